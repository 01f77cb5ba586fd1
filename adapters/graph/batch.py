"""A batch of graphs laid flat, as torch_geometric has it, and what is asked of it in every augmentation.

`index_select` takes a seventh of the time of indexing by brackets on the CPU, and numpy sorts and finds true entries
six times as fast as torch there; hence the small functions below.

Shapes: B graphs, N nodes and E directed edges of all of them together, F features of a node, n elements, P owners.
"""

import copy
from functools import cache
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch

__all__ = [
    "GraphBatch",
    "argsort",
    "columns",
    "edge_owner",
    "graph_batch",
    "lowest",
    "node_number",
    "offsets",
    "ranges",
    "seen_before",
    "true_at",
]

_RANK = 40  # bits of a rank


class GraphBatch(Protocol):
    """What is read of a torch_geometric Batch."""

    @property
    def x(self) -> Tensor:
        """Features [N, F], graph by graph."""
        ...

    @property
    def edge_index(self) -> Tensor:
        """Edges, int64 [2, E], rows of `x`."""
        ...

    @property
    def batch(self) -> Tensor:
        """The graph of each node, int64 [N], ascending."""
        ...

    @property
    def ptr(self) -> Tensor:
        """Where each graph begins, and where the last ends, int64 [B + 1]."""
        ...


def graph_batch(
    x: Tensor, edge_index: Tensor, counts: Tensor, owner: Tensor | None = None, ptr: Tensor | None = None
) -> GraphBatch:
    """Return a torch_geometric Batch.

    Args:
        x: features [N, F], graph by graph.
        edge_index: [2, E], rows of `x`; an undirected edge stands there in both directions.
        counts: nodes of each graph, int64 [B].
        owner: the graph of each node, where it is known, int64 [N].
        ptr: `offsets(counts)`, where they are known.
    """
    made: Any = copy.copy(_empty())  # a third of the time of Batch(x=...), which looks up its base class's parameters
    made.x, made.edge_index = x, edge_index
    made.batch = torch.repeat_interleave(counts, output_size=len(x)) if owner is None else owner
    made.ptr = offsets(counts) if ptr is None else ptr
    return cast(GraphBatch, made)


@cache
def _empty() -> Batch:
    return Batch()


def offsets(counts: Tensor) -> Tensor:
    """Return where each of B parts begins, and where the last ends, int64 [B + 1]."""
    made = counts.new_zeros(len(counts) + 1)
    torch.cumsum(counts, 0, out=made[1:])
    return made


def ranges(first: Tensor, counts: Tensor) -> Tensor:
    """Return first[0], first[0] + 1, ..., counts[0] of them, then first[1] and so on, int64."""
    ends = counts.cumsum(0)
    shift = torch.repeat_interleave(first - ends + counts, counts)
    return shift.add_(torch.arange(len(shift), device=shift.device))


def node_number(graphs: GraphBatch) -> Tensor:
    """Return each node's number within its graph, int64 [N]."""
    number = torch.arange(len(graphs.batch), device=graphs.batch.device)
    return number.sub_(graphs.ptr.index_select(0, graphs.batch))


def edge_owner(graphs: GraphBatch) -> Tensor:
    """Return the graph of each edge, int64 [E]."""
    return graphs.batch.index_select(0, graphs.edge_index[0])


def columns(edge_index: Tensor, at: Tensor) -> Tensor:
    """Return the edges at these places, int64 [2, n]."""
    return torch.stack([edge_index[0].index_select(0, at), edge_index[1].index_select(0, at)])


def true_at(mask: Tensor) -> Tensor:
    """Return where a bool [n] is true, int64."""
    return mask.nonzero().squeeze(1) if mask.is_cuda else torch.from_numpy(np.flatnonzero(mask.numpy()))


def lowest(owner: Tensor, rank: Tensor, number: Tensor) -> Tensor:
    """Return which elements are among the lowest of their owner, bool [n].

    Args:
        owner: int64 [n], in 0..P - 1, in any order; P up to 2^23.
        rank: int64 [n], in 0..2^40 - 1. Of elements of one rank at the border, none is among the lowest.
        number: how many of each owner are wanted, at most as many as it has, int64 [P].
    """
    key = (owner << _RANK).add_(rank)
    ordered = key.sort().values if key.is_cuda else torch.from_numpy(np.sort(key.numpy()))
    has = torch.bincount(owner, minlength=len(number))
    # The first that is not wanted; where all are wanted, what no element of this owner reaches.
    border = (torch.arange(1, len(number) + 1, device=key.device) << _RANK).sub_(1)
    if len(key):
        first = ordered.index_select(0, (offsets(has)[:-1] + number).clamp_(max=len(key) - 1))
        border = torch.where(number < has, first, border)
    return key < border.index_select(0, owner)


def argsort(values: Tensor) -> Tensor:
    """Return the places of values, int64 [n], in ascending order; of equal ones the first comes first."""
    if values.is_cuda:
        return values.argsort(stable=True)
    return torch.from_numpy(np.argsort(values.numpy(), kind="stable"))  # fast where they nearly are in order


def seen_before(values: Tensor) -> Tensor:
    """Return which values, int64 [n], stand at an earlier place too, bool [n]."""
    order = argsort(values)
    ordered = values.index_select(0, order)
    seen = torch.zeros_like(values, dtype=torch.bool)
    return seen.index_copy_(0, order[1:], ordered[1:] == ordered[:-1])
