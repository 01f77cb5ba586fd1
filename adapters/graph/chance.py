"""What nodes and edges of graphs draw, and how many of them a share is.

Every number is a function of (seed, epoch, graph, view, node or edge).

Shapes: B graphs, N nodes, E directed edges.
"""

import torch
from torch import Tensor

import kontrast as kt
from kontrast.adapters.graph.batch import GraphBatch, edge_owner, node_number

__all__ = ["part_of", "per_edge", "per_node", "share"]


def per_node(graphs: GraphBatch, ids: Tensor, draws: kt.Draws, view: int, stream: int) -> Tensor:
    """Return 40 random bits of each node, int64 [N]."""
    return draws.bits(ids, graphs.batch, node_number(graphs), view=view, stream=stream)


def per_edge(
    graphs: GraphBatch, ids: Tensor, draws: kt.Draws, view: int, stream: int, *, undirected: bool = True
) -> Tensor:
    """Return 40 random bits of each edge, int64 [E]; where undirected, the same in both directions."""
    owner = edge_owner(graphs)
    first = graphs.ptr.index_select(0, owner)
    start, end = graphs.edge_index
    if undirected:
        start, end = torch.minimum(start, end), torch.maximum(start, end)
    nodes = graphs.ptr.diff().index_select(0, owner)
    return draws.bits(ids, owner, (start - first).mul_(nodes).add_(end).sub_(first), view=view, stream=stream)


def part_of(counts: Tensor, share: float) -> Tensor:
    """Return floor(share x count), int64; a product such as 0.1 x 30 counts as the 3 that it means."""
    return torch.floor(share * counts.double() + 1e-9).long()


def share(value: float, name: str) -> float:
    """Return the value of a parameter that is a share; raise where it is not in [0, 1)."""
    if not 0 <= value < 1:
        raise kt.InvalidValueError(f"`{name}` must be in [0, 1), got {value!r}")
    return value
