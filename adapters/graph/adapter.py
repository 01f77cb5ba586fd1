"""The graph domain as the command line sees it."""

import kontrast as kt
from kontrast.adapters.graph.data import GraphData
from kontrast.adapters.graph.read import load

__all__ = ["GraphAdapter"]


class GraphAdapter(kt.Adapter):
    """Graphs, as torch_geometric Batches."""

    default_data = "ba2motifs"
    default_encoder = "gin"
    default_augmenter = "graphcl-views"
    default_probe = "svm"

    def load(self, source: str) -> kt.Splits[GraphData]:
        """Return `kontrast.adapters.graph.load(source)`."""
        return load(source)
