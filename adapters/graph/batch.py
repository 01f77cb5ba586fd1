"""A batch of graphs laid flat, as torch_geometric has it.

Shapes: B graphs, N nodes and E directed edges of all of them together, F features of a node.
"""

from typing import Protocol, cast

import torch
from torch import Tensor
from torch_geometric.data import Batch

__all__ = ["GraphBatch", "edge_owner", "graph_batch", "node_number", "offsets", "ordinal"]


class GraphBatch(Protocol):
    """What is read of a torch_geometric Batch: x [N, F], edge_index [2, E], batch [N] (a node's graph), ptr [B + 1]."""

    x: Tensor
    edge_index: Tensor
    batch: Tensor
    ptr: Tensor


def graph_batch(x: Tensor, edge_index: Tensor, counts: Tensor) -> GraphBatch:
    """Return a torch_geometric Batch.

    Args:
        x: features [N, F], graph by graph.
        edge_index: [2, E], rows of `x`; an undirected edge stands there in both directions.
        counts: nodes of each graph, int64 [B].
    """
    owner = torch.repeat_interleave(counts)
    return cast(GraphBatch, Batch(x=x, edge_index=edge_index, batch=owner, ptr=offsets(counts)))


def offsets(counts: Tensor) -> Tensor:
    """Return where each of B parts begins, and where the last ends, int64 [B + 1]."""
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def node_number(graphs: GraphBatch) -> Tensor:
    """Return each node's number within its graph, int64 [N]."""
    number: Tensor = torch.arange(len(graphs.batch), device=graphs.batch.device) - graphs.ptr[graphs.batch]
    return number


def edge_owner(graphs: GraphBatch) -> Tensor:
    """Return the graph of each edge, int64 [E]."""
    owner: Tensor = graphs.batch[graphs.edge_index[0]]
    return owner


def ordinal(owner: Tensor, draw: Tensor, parts: int) -> Tensor:
    """Return the place of each element among those of its owner, in the order of their draws, int64 [n].

    Args:
        owner: int64 [n], in 0..parts - 1, in any order.
        draw: numbers in [0, 1), [n]; of equal ones the first comes first.
        parts: owners.
    """
    # float64 holds an owner up to 2^28 beside the 24 bits of a draw.
    order = torch.argsort(owner + draw.double(), stable=True)
    begin = offsets(torch.bincount(owner, minlength=parts))[:-1]
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device) - begin[owner[order]]
    return place
