"""Graphs as torch_geometric Batches: x [N, F], edge_index [2, E], the graph of each node, and where each begins."""

import warnings

with warnings.catch_warnings():  # torch_geometric still decorates by torch.jit.script, which torch says at every start
    warnings.filterwarnings("ignore", message="`torch.jit.script", category=FutureWarning)
    warnings.filterwarnings("ignore", message="`torch.jit.script", category=DeprecationWarning)
    import torch_geometric.nn  # noqa: F401

from kontrast.adapters.graph.adapter import GraphAdapter
from kontrast.adapters.graph.data import GraphData, graphs
from kontrast.adapters.graph.edges import EdgePerturbation
from kontrast.adapters.graph.edit import Edit, GraphTransform, GraphViews
from kontrast.adapters.graph.ego import EgoSubgraphs
from kontrast.adapters.graph.ego_networks import EgoNetworks, EgoViews
from kontrast.adapters.graph.encoders import GAT, GCN, GIN, GraphEncoder
from kontrast.adapters.graph.graphcl import graphcl_views
from kontrast.adapters.graph.node_views import EdgeDropping, FeatureMasking, Together, grace_views
from kontrast.adapters.graph.read import load
from kontrast.adapters.graph.structural import StructuralGIN
from kontrast.adapters.graph.transforms import (
    AttributeMasking,
    NodeDropping,
    OneOf,
    Subgraph,
    Unchanged,
)

__all__ = [
    "GAT",
    "GCN",
    "GIN",
    "AttributeMasking",
    "EdgeDropping",
    "EdgePerturbation",
    "Edit",
    "EgoNetworks",
    "EgoSubgraphs",
    "EgoViews",
    "FeatureMasking",
    "GraphAdapter",
    "GraphData",
    "GraphEncoder",
    "GraphTransform",
    "GraphViews",
    "NodeDropping",
    "OneOf",
    "StructuralGIN",
    "Subgraph",
    "Together",
    "Unchanged",
    "grace_views",
    "graphcl_views",
    "graphs",
    "load",
]
