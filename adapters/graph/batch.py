"""A batch of graphs laid flat, as torch_geometric has it, and what is asked of it in every augmentation.

Shapes: B graphs, N nodes and E directed edges of all of them together, F features of a node.
"""

import copy
from functools import cache, cached_property
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch_geometric.data import Batch

from kontrast.adapters.graph.arrays import columns, offsets
from kontrast.arrays import Array, argsort, array, library, numbers, repeat, tensor

__all__ = ["Flat", "GraphBatch", "Part", "graph_batch", "node_number", "split"]


class GraphBatch(Protocol):
    """What is read of a torch_geometric Batch."""

    @property
    def x(self) -> Tensor:
        """Features [N, F], graph by graph."""
        ...

    @property
    def num_features(self) -> int:
        """F."""
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


def graph_batch(x: Tensor, edge_index: Tensor, owner: Tensor, ptr: Tensor) -> GraphBatch:
    """Return a torch_geometric Batch.

    Args:
        x: features [N, F], graph by graph.
        edge_index: [2, E], rows of `x`; an undirected edge stands there in both directions.
        owner: the graph of each node, int64 [N].
        ptr: where each graph begins, and where the last ends, int64 [B + 1].
    """
    made: Any = copy.copy(_empty())  # a third of the time of Batch(x=...), which looks up its base class's parameters
    made.x, made.edge_index, made.batch, made.ptr = x, edge_index, owner, ptr
    return cast(GraphBatch, made)


@cache
def _empty() -> Batch:
    return Batch()


class Flat:
    """A batch of graphs as arrays, without features.

    Args:
        ids: of the graphs, int64 [B].
        ptr: where each graph's nodes begin, and where the last ends, int64 [B + 1].
        owner: the graph of each node, int64 [N].
        edge_index: int64 [2, E].
    """

    def __init__(self, ids: Array, ptr: Array, owner: Array, edge_index: Array) -> None:
        self.ids, self.ptr, self.owner, self.edge_index = ids, ptr, owner, edge_index
        self.start, self.end = edge_index

    @classmethod
    def of(cls, graphs: GraphBatch, ids: Tensor) -> "Flat":
        """Return these graphs, over the same memory."""
        if isinstance(graphs, Part):
            return graphs.flat
        return cls(array(ids), array(graphs.ptr), array(graphs.batch), array(graphs.edge_index))

    @cached_property
    def counts(self) -> Array:
        """Nodes of each graph, int64 [B]."""
        return self.ptr[1:] - self.ptr[:-1]

    @cached_property
    def number(self) -> Array:
        """Each node's number within its graph, int64 [N]."""
        return numbers(len(self.owner), self.owner) - self.ptr[self.owner]

    @cached_property
    def edge_owner(self) -> Array:
        """The graph of each edge, int64 [E]."""
        return self.owner[self.start]


class Part:
    """Some graphs of a batch by themselves; a GraphBatch. `split` makes them.

    Args:
        x: features of the whole batch.
        flat: the part.
        nodes: rows of its nodes in the whole batch, int64 [n].
        edges: places of its edges there, int64 [e].
    """

    def __init__(self, x: Tensor, flat: Flat, nodes: Array, edges: Array) -> None:
        self._x, self.flat, self.nodes, self.edges = x, flat, nodes, edges

    @property
    def x(self) -> Tensor:
        """Features [n, F]; taken when they are asked for, since most transforms do not look at them."""
        return self._x.index_select(0, tensor(self.nodes))

    @property
    def num_features(self) -> int:
        """F."""
        return self._x.shape[1]

    @property
    def edge_index(self) -> Tensor:
        """Edges by the numbers of the part, int64 [2, e]."""
        return tensor(self.flat.edge_index)

    @property
    def batch(self) -> Tensor:
        """The graph of each node, int64 [n]."""
        return tensor(self.flat.owner)

    @property
    def ptr(self) -> Tensor:
        """Where each graph begins, and where the last ends."""
        return tensor(self.flat.ptr)


def split(x: Tensor, whole: Flat, choice: Array, number: int) -> list[Part]:
    """Return a batch in parts, each of the graphs of one choice, in their order.

    Args:
        x: features of the whole batch, [N, F].
        whole: the rest of it.
        choice: the part of each graph, in 0..number - 1, int64 [B].
        number: of parts, less than 2^15.
    """
    xp = library(choice)
    choice = xp.asarray(choice, dtype=xp.int16)  # which sorts in a fraction of the time
    of_node, of_edge = choice[whole.owner], choice[whole.edge_owner]
    rows, nodes, edges = argsort(choice), argsort(of_node), argsort(of_edge)
    counts = whole.counts[rows]
    ptr, owner = offsets(counts), repeat(numbers(len(rows), rows), counts)
    number_of_node = xp.empty_like(nodes)
    number_of_node[nodes] = numbers(len(nodes), nodes)
    edge_index = number_of_node[columns(whole.edge_index, edges)]
    row, edge = (offsets(xp.bincount(of, minlength=number)).tolist() for of in (choice, of_edge))
    node = ptr[row].tolist()
    return [
        Part(
            x,
            Flat(
                whole.ids[rows[row[n] : row[n + 1]]],
                ptr[row[n] : row[n + 1] + 1] - node[n],
                owner[node[n] : node[n + 1]] - row[n],
                edge_index[:, edge[n] : edge[n + 1]] - node[n],
            ),
            nodes[node[n] : node[n + 1]],
            edges[edge[n] : edge[n + 1]],
        )
        for n in range(number)
    ]


def node_number(graphs: GraphBatch) -> Tensor:
    """Return each node's number within its graph, int64 [N]."""
    number = torch.arange(len(graphs.batch), device=graphs.batch.device)
    return number.sub_(graphs.ptr.index_select(0, graphs.batch))
