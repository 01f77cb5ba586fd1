"""Graphs as a data set: checked once, laid flat, and cut into batches without a loop over graphs.

Shapes: G graphs, N nodes and E directed edges of all of them together, F features of a node.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch_geometric.data import Batch
from torch_geometric.data import Data as Graph

import kontrast as kt
from kontrast.adapters.graph.arrays import columns, offsets
from kontrast.adapters.graph.batch import graph_batch
from kontrast.arrays import array, numbers, ranges, repeat, tensor

__all__ = ["GraphData", "class_labels", "graphs"]


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


def graphs(items: Iterable[Graph], labels: Tensor | None = None, *, undirected: bool = True) -> GraphData:
    """Return torch_geometric graphs as a data set.

    Args:
        items: each with `edge_index` [2, edges] and `x` [nodes, F]; where none has `x`, every node gets the constant 1,
            as GraphCL gives to social networks.
        labels: classes, int64 [G]; by default the graphs' `y`, where each has a single whole number. Other targets,
            several of a graph or real numbers, are no classes and are not read.
        undirected: whether each edge must stand there in both directions.

    Raises:
        InvalidValueError: names the first graph that has no node, an edge to a node it does not have, features of
            another width, a feature that is not finite, an edge in one direction alone, or no `y` where others have.
    """
    items = _listed(items)
    features = [_features(number, item) for number, item in enumerate(items)]
    bare = sum(part is None for part in features)
    if 0 < bare < len(items):
        number = next(number for number, part in enumerate(features) if part is None)
        raise kt.InvalidValueError(
            f"graph {number} must have features `x` as other graphs have, got none; give all of them features, or none"
        )
    edges = [_edges(number, item, undirected) for number, item in enumerate(items)]
    num_nodes = torch.tensor([int(item.num_nodes or 0) for item in items])
    x = [torch.ones(int(count), 1) if part is None else part for part, count in zip(features, num_nodes, strict=True)]
    for number, part in enumerate(x):
        if part.shape[1] != x[0].shape[1]:
            raise kt.InvalidValueError(
                f"graph {number} must have {x[0].shape[1]} features per node as graph 0 has, got {part.shape[1]}; "
                "bring all graphs to one width, or leave the graph out"
            )
    num_edges = torch.tensor([part.shape[1] for part in edges])
    moved = torch.repeat_interleave(offsets(num_nodes)[:-1], num_edges)
    labels = _labels(items) if labels is None else class_labels(labels, len(items), "graph")
    return GraphData(torch.cat(x), torch.cat(edges, 1) + moved, num_nodes, num_edges, labels)


def class_labels(labels: Tensor, count: int, of: str) -> Tensor:
    """Return labels that were given, or raise where they are not int64, one of each.

    Args:
        labels: what was given.
        count: how many there must be.
        of: what each is of.
    """
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.shape != (count,):
        found = f"{labels.dtype} {list(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        raise kt.InvalidValueError(
            f"`labels` must be int64 [{count}], one per {of}, got {found}; torch.tensor(labels) makes one of "
            "a list of integers"
        )
    return labels


def _listed(items: Iterable[Graph]) -> list[Graph]:
    if isinstance(items, Graph):  # which is iterable, over its fields
        raise kt.InvalidValueError(
            f"`items` must be several torch_geometric Data, got one {type(items).__name__}; "
            f"{'take its to_data_list()' if isinstance(items, Batch) else 'put it in a list'}"
        )
    try:
        each = iter(items)
    except TypeError as error:
        raise kt.InvalidValueError(f"`items` must be a list of torch_geometric Data, got {items!r}") from error
    listed = list(each)
    if not listed:
        raise kt.InvalidValueError("a data set must hold at least one graph, got none")
    for number, item in enumerate(listed):
        if not isinstance(item, Graph):
            raise kt.InvalidValueError(
                f"graph {number} must be a torch_geometric Data, got {type(item).__name__}; leave it out"
            )
    return listed


def _features(number: int, item: Graph) -> Tensor | None:
    if not item.num_nodes:
        raise kt.InvalidValueError(f"graph {number} must have at least one node, got none; leave it out")
    if item.x is None:
        return None
    given: object = item.x
    if not isinstance(given, Tensor) or given.is_complex() or given.layout != torch.strided:
        found = f"{given.dtype} {given.layout}" if isinstance(given, Tensor) else type(given).__name__
        raise kt.InvalidValueError(
            f"`x` of graph {number} must be a dense tensor of real numbers, got {found}; turn it into one"
        )
    x: Tensor = (given[:, None] if given.ndim == 1 else given).float()
    if x.ndim != 2 or len(x) != item.num_nodes:
        raise kt.InvalidValueError(
            f"`x` of graph {number} must be [{item.num_nodes}, F], one row per node, got {list(x.shape)}"
        )
    if not x.isfinite().all():
        node = int((~x.isfinite()).any(1).nonzero()[0])
        raise kt.InvalidValueError(
            f"features must be finite, got NaN or infinity at node {node} of graph {number}; fill them in, by "
            "torch.nan_to_num for instance, or leave the graph out"
        )
    return x


def _edges(number: int, item: Graph, undirected: bool) -> Tensor:
    if item.edge_index is None:
        return torch.zeros(2, 0, dtype=torch.int64)
    edge_index: object = item.edge_index
    nodes = int(item.num_nodes or 0)
    if not isinstance(edge_index, Tensor):
        raise kt.InvalidValueError(
            f"`edge_index` of graph {number} must be a tensor int64 [2, edges], got {type(edge_index).__name__}; "
            "torch.as_tensor makes one of an array"
        )
    if edge_index.ndim != 2 or len(edge_index) != 2 or edge_index.dtype != torch.int64:
        raise kt.InvalidValueError(
            f"`edge_index` of graph {number} must be int64 [2, edges], got {edge_index.dtype} {list(edge_index.shape)}"
        )
    if edge_index.numel() and (int(edge_index.min()) < 0 or int(edge_index.max()) >= nodes):
        wrong = int(edge_index[(edge_index < 0) | (edge_index >= nodes)][0])
        raise kt.InvalidValueError(
            f"`edge_index` of graph {number} must be in 0..{nodes - 1}, its nodes, got {wrong}; nodes count from 0 in "
            "each graph, and those without features are told by `num_nodes`"
        )
    start, end = edge_index
    if undirected and not torch.equal((start * nodes + end).sort().values, (end * nodes + start).sort().values):
        raise kt.InvalidValueError(
            f"edges must stand there in both directions, and graph {number} has one that does not; apply "
            "torch_geometric.transforms.ToUndirected; graph.graphs alone takes directed graphs, with undirected=False"
        )
    return edge_index


def _labels(items: Sequence[Graph]) -> Tensor | None:
    """Return the graphs' `y` where each is a whole number, in whatever dtype."""
    given = [item.get("y") for item in items]
    if all(value is None for value in given):
        return None
    remedy = "give the classes as `labels`, or take `y` from all graphs"
    values = []
    for number, value in enumerate(given):
        try:
            y = torch.as_tensor(torch.nan if value is None else value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise kt.InvalidValueError(
                f"`y` of graph {number} must be a number or a tensor, got {value!r}; {remedy}"
            ) from error
        if y.numel() == 1 and y.isnan().any():
            raise kt.InvalidValueError(f"graph {number} must have a label `y` as others have, got {value}; {remedy}")
        values.append(y)
    if any(y.numel() != 1 or y.is_complex() for y in values):
        return None
    numbers = [y.item() for y in values]
    return torch.tensor([int(y) for y in numbers]) if all(float(y).is_integer() for y in numbers) else None
