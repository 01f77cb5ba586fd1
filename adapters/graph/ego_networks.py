"""The nodes of one large graph as samples of GCC: each is what walks around it visit.

Shapes: B samples, N nodes and E directed edges of the large graph, M nodes of all subgraphs of a batch.
"""

from dataclasses import replace
from typing import Any

from torch import Tensor
from torch_geometric.data import Data as Graph

import kontrast as kt
from kontrast.adapters.graph.arrays import offsets
from kontrast.adapters.graph.batch import GraphBatch, graph_batch
from kontrast.adapters.graph.data import class_labels, graphs
from kontrast.adapters.graph.ego import Around, EgoSubgraphs
from kontrast.arrays import array, library, numbers, ranges, repeat, tensor

__all__ = ["EgoNetworks", "EgoViews"]


class EgoNetworks:
    """The nodes of one graph as a data set; a sample's id is its node's number.

    A run takes `augmenter=networks.views()` with it, whose walks go through the whole graph, anew for every view. What
    `batch` gives, and evaluation reads, is one more walk around each node, the same every time.

    Args:
        item: the graph, undirected.
        walks: around a node; their `power` says how much longer they are around hubs.
        labels: of nodes, int64 [N]; by default the graph's `y`, where it has one integer per node.

    Raises:
        InvalidValueError: as `graphs`, or if there is not one label per node.

    Source:
        Qiu et al. 2020, arXiv:2006.09963, section 3.1. Differs from it: an epoch has every node once, where the code
        draws nodes with a chance that grows with their degree.
    """

    def __init__(self, item: Graph, *, walks: EgoSubgraphs | None = None, labels: Tensor | None = None) -> None:
        data = graphs([item])
        nodes = int(data.num_nodes[0])
        y = item.y
        if labels is None and isinstance(y, Tensor) and y.shape == (nodes,) and not y.is_floating_point():
            labels = y.long()
        self.labels = None if labels is None else class_labels(labels, nodes, "node")
        self.walks = EgoSubgraphs() if walks is None else walks
        start, end = array(data.edge_index)
        self._x, self._around = data.x, Around.of(start, end, nodes)

    def __len__(self) -> int:
        return len(self._x)

    def batch(self, indices: Tensor) -> kt.Batch:
        """Return what a walk around each of these nodes visits, as a torch_geometric Batch with the mark `seed`."""
        # A view that no run asks for, so what is evaluated is none of those that are trained on.
        made, _ = cut_out(self._x, self._around, self.walks, indices, kt.Draws(0), self.walks.num_views)
        return kt.Batch(made, indices, None if self.labels is None else self.labels.index_select(0, indices))

    def views(self) -> "EgoViews":
        """Return the augmenter that goes with it."""
        return EgoViews(self._x, self._around, self.walks)


class EgoViews(kt.Augmenter):
    """Walks around the nodes that a batch of `EgoNetworks` is of; make it with `EgoNetworks.views`.

    Args:
        x: features of the whole graph, [N, F].
        around: its edges.
        walks: around a node.
    """

    x: Tensor
    first: Tensor
    ends: Tensor
    degree: Tensor

    def __init__(self, x: Tensor, around: Around, walks: EgoSubgraphs) -> None:
        super().__init__()
        self.walks = walks
        for name, part in (("first", around.first), ("ends", around.ends), ("degree", around.degree)):
            self.register_buffer(name, tensor(part), persistent=False)  # data, not state: no checkpoint needs them
        self.register_buffer("x", x, persistent=False)

    def forward(self, batch: kt.Batch, draws: kt.Draws) -> list[kt.View]:
        """Return the views; their inputs say in `seed`, bool [M], which node each is around."""
        around, views = Around(array(self.first), array(self.ends), array(self.degree)), []
        for copy in range(self.walks.num_views):
            made, nodes = cut_out(self.x, around, self.walks, batch.ids, draws, copy)
            views.append(replace(kt.View.of(batch, made), coords=nodes))
        return views


def cut_out(
    x: Tensor, around: Around, walks: EgoSubgraphs, seeds: Tensor, draws: kt.Draws, view: int
) -> tuple[GraphBatch, Tensor]:
    """Return what walks around nodes visit, with all edges among it, and which nodes these are, int64 [M]."""
    nodes, at = len(x), array(seeds)
    xp = library(at)
    visits = [walk * nodes + here for walk, here in walks.visits(around, at, at, draws, view)]
    visited = xp.unique(xp.concatenate(visits))
    owner, node = visited // nodes, visited % nodes
    degree = around.degree[node]
    start = repeat(numbers(len(degree), degree), degree)
    other = owner[start] * nodes + around.ends[ranges(around.first[node], degree)]
    end = xp.searchsorted(visited, other).clip(0, len(visited) - 1)
    inside = visited[end] == other
    edge_index = tensor(xp.stack((start[inside], end[inside])))
    ptr = offsets(xp.bincount(owner, minlength=len(seeds)))
    made: Any = graph_batch(x.index_select(0, tensor(node)), edge_index, tensor(owner), tensor(ptr))
    made.seed = tensor(node == at[owner])
    return made, tensor(node)
