"""Graphs as torch_geometric Batches: x [N, F], edge_index [2, E], the graph of each node, and where each begins."""

from kontrast.adapters.graph.adapter import GraphAdapter
from kontrast.adapters.graph.data import GraphData, graphs
from kontrast.adapters.graph.edit import Edit, GraphTransform, GraphViews
from kontrast.adapters.graph.encoders import GAT, GCN, GIN, GraphEncoder
from kontrast.adapters.graph.read import load
from kontrast.adapters.graph.transforms import (
    AttributeMasking,
    EdgePerturbation,
    NodeDropping,
    OneOf,
    Subgraph,
    Unchanged,
    graphcl_views,
)

__all__ = [
    "GAT",
    "GCN",
    "GIN",
    "AttributeMasking",
    "EdgePerturbation",
    "Edit",
    "GraphAdapter",
    "GraphData",
    "GraphEncoder",
    "GraphTransform",
    "GraphViews",
    "NodeDropping",
    "OneOf",
    "Subgraph",
    "Unchanged",
    "graphcl_views",
    "graphs",
    "load",
]
