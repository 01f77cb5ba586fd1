"""Objectives, one per file."""

from kontrast.plugins.objectives.cosine_regression import CosineRegression
from kontrast.plugins.objectives.info_nce import InfoNCE
from kontrast.plugins.objectives.nt_xent import NTXent
from kontrast.plugins.objectives.vicreg import VICReg

__all__ = ["CosineRegression", "InfoNCE", "NTXent", "VICReg"]
