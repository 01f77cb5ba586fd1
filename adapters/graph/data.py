"""Graphs as a data set: checked once, laid flat, and cut into batches without a loop over graphs.

Shapes: G graphs, N nodes and E directed edges of all of them together, F features of a node.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch_geometric.data import Data as Graph

import kontrast as kt
from kontrast.adapters.graph.arrays import array, columns, numbers, offsets, ranges, repeat, tensor
from kontrast.adapters.graph.batch import graph_batch

__all__ = ["GraphData", "graphs"]


class GraphData:
    """Graphs in memory; make it with `graphs`.

    Args:
        x: features, graph by graph, [N, F].
        edge_index: int64 [2, E], graph by graph, rows of `x`.
        num_nodes: of each graph, int64 [G].
        num_edges: of each graph, int64 [G].
        labels: classes, int64 [G].
    """

    def __init__(
        self, x: Tensor, edge_index: Tensor, num_nodes: Tensor, num_edges: Tensor, labels: Tensor | None = None
    ) -> None:
        self.x, self.edge_index = x, edge_index
        self.num_nodes, self.num_edges, self.labels = num_nodes, num_edges, labels
        self._first_node, self._first_edge = offsets(num_nodes), offsets(num_edges)

    def __len__(self) -> int:
        return len(self.num_nodes)

    @property
    def num_features(self) -> int:
        """Features of a node, F."""
        return self.x.shape[1]

    def batch(self, indices: Tensor) -> kt.Batch:
        """Return the graphs at `indices`, int64 [B], as a torch_geometric Batch; a graph's id is its index."""
        at = array(indices)
        counts, edges = array(self.num_nodes)[at], array(self.num_edges)[at]
        first, ptr = array(self._first_node)[at], offsets(counts)
        nodes = tensor(ranges(first, counts))
        edge_index = columns(array(self.edge_index), ranges(array(self._first_edge)[at], edges))
        edge_index += repeat(ptr[:-1] - first, edges)
        owner = tensor(repeat(numbers(len(at), at), counts))
        labels = None if self.labels is None else self.labels.index_select(0, indices)
        made = graph_batch(self.x.index_select(0, nodes), tensor(edge_index), owner, tensor(ptr))
        return kt.Batch(made, indices, labels)


def graphs(items: Sequence[Graph], labels: Tensor | None = None, *, undirected: bool = True) -> GraphData:
    """Return torch_geometric graphs as a data set.

    Args:
        items: each with `edge_index` [2, edges] and `x` [nodes, F]; where none has `x`, every node gets the constant 1,
            as GraphCL gives to social networks.
        labels: classes, int64 [G]; by default the graphs' `y`, where each has a single integer.
        undirected: whether each edge must stand there in both directions.

    Raises:
        InvalidValueError: names the first graph that has no node, an edge to a node it does not have, features of
            another width, a feature that is not finite, or an edge in one direction alone.
    """
    if not items:
        raise kt.InvalidValueError("a data set must hold at least one graph, got none")
    features = [_features(number, item) for number, item in enumerate(items)]
    bare = sum(part is None for part in features)
    if 0 < bare < len(items):
        number = next(number for number, part in enumerate(features) if part is None)
        raise kt.InvalidValueError(f"graph {number} must have features `x` as other graphs have, got none")
    edges = [_edges(number, item, undirected) for number, item in enumerate(items)]
    num_nodes = torch.tensor([int(item.num_nodes or 0) for item in items])
    x = [torch.ones(int(count), 1) if part is None else part for part, count in zip(features, num_nodes, strict=True)]
    for number, part in enumerate(x):
        if part.shape[1] != x[0].shape[1]:
            raise kt.InvalidValueError(
                f"graph {number} must have {x[0].shape[1]} features per node as graph 0 has, got {part.shape[1]}"
            )
    num_edges = torch.tensor([part.shape[1] for part in edges])
    moved = torch.repeat_interleave(offsets(num_nodes)[:-1], num_edges)
    if labels is None:
        labels = _labels(items)
    elif labels.dtype != torch.int64 or labels.shape != (len(items),):
        raise kt.InvalidValueError(
            f"`labels` must be int64 [{len(items)}], one per graph, got {labels.dtype} {list(labels.shape)}"
        )
    return GraphData(torch.cat(x), torch.cat(edges, 1) + moved, num_nodes, num_edges, labels)


def _features(number: int, item: Graph) -> Tensor | None:
    if not item.num_nodes:
        raise kt.InvalidValueError(f"graph {number} must have at least one node, got none; leave it out")
    if item.x is None:
        return None
    x: Tensor = (item.x[:, None] if item.x.ndim == 1 else item.x).float()
    if x.ndim != 2 or len(x) != item.num_nodes:
        raise kt.InvalidValueError(
            f"`x` of graph {number} must be [{item.num_nodes}, F], one row per node, got {list(x.shape)}"
        )
    if not x.isfinite().all():
        node = int((~x.isfinite()).any(1).nonzero()[0])
        raise kt.InvalidValueError(f"features must be finite, got NaN or infinity at node {node} of graph {number}")
    return x


def _edges(number: int, item: Graph, undirected: bool) -> Tensor:
    if item.edge_index is None:
        return torch.zeros(2, 0, dtype=torch.int64)
    edge_index: Tensor = item.edge_index
    nodes = int(item.num_nodes or 0)
    if edge_index.ndim != 2 or len(edge_index) != 2 or edge_index.dtype != torch.int64:
        raise kt.InvalidValueError(
            f"`edge_index` of graph {number} must be int64 [2, edges], got {edge_index.dtype} {list(edge_index.shape)}"
        )
    if edge_index.numel() and (int(edge_index.min()) < 0 or int(edge_index.max()) >= nodes):
        wrong = int(edge_index[(edge_index < 0) | (edge_index >= nodes)][0])
        raise kt.InvalidValueError(f"`edge_index` of graph {number} must be in 0..{nodes - 1}, its nodes, got {wrong}")
    start, end = edge_index
    if undirected and not torch.equal((start * nodes + end).sort().values, (end * nodes + start).sort().values):
        raise kt.InvalidValueError(
            f"edges must stand there in both directions, and graph {number} has one that does not; apply "
            "torch_geometric.transforms.ToUndirected, or say undirected=False"
        )
    return edge_index


def _labels(items: Sequence[Graph]) -> Tensor | None:
    values = [item.get("y") for item in items]
    if not all(
        (isinstance(value, Tensor) and value.numel() == 1 and not value.is_floating_point()) or isinstance(value, int)
        for value in values
    ):
        return None
    return torch.tensor([int(value) for value in values])
