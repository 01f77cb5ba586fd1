"""Recommendation as a domain of kontrast: user-item graphs, LightGCN, SGL and CLRec.

Import from the modules (`from kontrast_recsys.data import load`). Nothing stands here because kontrast imports this
file, on its way to `hooks`, whenever it lists what is installed.
"""
