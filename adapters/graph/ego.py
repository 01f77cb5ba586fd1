"""GCC's subgraphs around a node, by random walk with restart, for whole batches at once.

Shapes: B graphs, N nodes, E directed edges.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

import kontrast as kt
from kontrast.adapters.graph.batch import GraphBatch, argsort, offsets, ranges, true_at
from kontrast.adapters.graph.chance import per_node
from kontrast.adapters.graph.edit import Edit, GraphTransform, check_graphs

__all__ = ["Around", "EgoSubgraphs"]

EGO, CENTRE = 30, 31  # streams of random numbers


@dataclass(frozen=True)
class Around:
    """The neighbours of every node: of node n, `degree[n]` entries of `ends` from `first[n]` on.

    Args:
        first: int64 [N + 1].
        ends: int64 [E + 1]; the last is read where a node has no edge, and means nothing.
        degree: int64 [N].
    """

    first: Tensor
    ends: Tensor
    degree: Tensor

    @classmethod
    def of(cls, edge_index: Tensor, nodes: int) -> "Around":
        """Return the neighbours of `nodes` nodes with these edges."""
        start, end = edge_index
        degree = torch.bincount(start, minlength=nodes)
        return cls(offsets(degree), torch.cat([end.index_select(0, argsort(start)), end.new_zeros(1)]), degree)


class EgoSubgraphs(GraphTransform):
    """What a random walk with restart visits around one node: the same node in every view, a walk of its own in each.

    A hop goes to a random neighbour; after it the walk returns to its node with probability `restart`. A node that
    comes first is kept by all views, so no graph is emptied. The node is drawn with a chance that grows with its
    degree.

    Args:
        hops: of one walk, >= 1; more around a node whose degree d makes d^power e / ((e - 1) restart) larger.
        restart: in (0, 1].
        power: of the degree, in the chance of being the node and in the length of its walk, in [0, 1]; 0: all alike.
        num_views: copies per graph.

    Raises:
        InvalidValueError: if a parameter is out of range.

    Source:
        Qiu et al. 2020, arXiv:2006.09963, section 3.1, with restart 0.8, 256 hops, power 0.75 and longer walks around
        hubs as in its code. Each graph gives one of its nodes; for the nodes of one large graph see `EgoNetworks`.
    """

    def __init__(self, hops: int = 256, restart: float = 0.8, *, power: float = 0.75, num_views: int = 2) -> None:
        super().__init__(num_views)
        if hops < 1:
            raise kt.InvalidValueError(f"`hops` must be >= 1, got {hops!r}")
        if not 0 < restart <= 1:
            raise kt.InvalidValueError(f"`restart` must be in (0, 1], got {restart!r}")
        if not 0 <= power <= 1:
            raise kt.InvalidValueError(f"`power` must be in [0, 1], got {power!r}")
        self.hops, self.restart, self.power = hops, restart, power

    def forward(self, batch: kt.Batch, draws: kt.Draws) -> list[kt.View]:
        """Return the views; their inputs say in `seed`, bool [N], which node each is around."""
        check_graphs(batch.inputs)
        seeds = self._seeds(batch.inputs, batch.ids, draws)
        number = seeds - batch.inputs.ptr[:-1]
        views = []
        for copy in range(self.num_views):
            view = self._walk(batch.inputs, batch.ids, seeds, draws, copy).view(batch)
            view.inputs.seed = view.coords == number.index_select(0, view.inputs.batch)
            views.append(view)
        return views

    def edit(self, graphs: GraphBatch, ids: Tensor, draws: kt.Draws, view: int) -> Edit:
        """Keep the nodes that a walk visits."""
        return self._walk(graphs, ids, self._seeds(graphs, ids, draws), draws, view)

    def _walk(self, graphs: GraphBatch, ids: Tensor, seeds: Tensor, draws: kt.Draws, view: int) -> Edit:
        visited = torch.zeros_like(graphs.batch, dtype=torch.bool)
        for _, here in self.visits(Around.of(graphs.edge_index, len(graphs.batch)), ids, seeds, draws, view):
            visited.index_fill_(0, here, True)
        return Edit(nodes=visited)

    def visits(
        self, around: "Around", ids: Tensor, seeds: Tensor, draws: kt.Draws, view: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield walks, by their place among the seeds, and the nodes they come to; first all seeds, then hop by hop."""
        yield torch.arange(len(seeds), device=seeds.device), seeds
        grown = around.degree.index_select(0, seeds).double() ** self.power
        hops = (grown * (math.e / (math.e - 1) / self.restart) + 0.5).long().clamp_(min=self.hops)
        walk = torch.repeat_interleave(hops)
        bits = draws.bits(ids, walk, ranges(torch.zeros_like(hops), hops), view=view, stream=EGO)
        turn = bits >> 16  # which neighbour a hop takes, of 24 bits
        returns = (bits & 0xFFFF) < self.restart * 2**16  # the 16 others: whether the walk returns after it
        returns[hops.cumsum(0) - 1] = True
        # Excursions do not know of each other, so the first hops of all go together, then the second ones and so on.
        hop = true_at(torch.cat([returns.new_ones(1), returns[:-1]]))
        here = seeds.index_select(0, walk.index_select(0, hop))
        while len(hop):
            choices = around.degree.index_select(0, here)
            place = around.first.index_select(0, here) + (turn.index_select(0, hop) * choices >> 24)
            here = torch.where(choices > 0, around.ends.index_select(0, place), here)
            yield walk.index_select(0, hop), here
            on = true_at(~returns.index_select(0, hop))
            hop, here = hop.index_select(0, on) + 1, here.index_select(0, on)

    def _seeds(self, graphs: GraphBatch, ids: Tensor, draws: kt.Draws) -> Tensor:
        """Return a node of each graph, with chances in proportion to a power of the degrees, int64 [B]."""
        degree = torch.bincount(graphs.edge_index[0], minlength=len(graphs.batch))
        weight = degree.double().clamp(min=1e-9) ** self.power
        # Of exponential times at these rates, the soonest is each node's with the chance wanted.
        time = -torch.log1p(per_node(graphs, ids, draws, 0, CENTRE).double() * -(2.0**-40)) / weight
        soonest = torch.full((len(ids),), torch.inf, dtype=time.dtype, device=time.device)
        soonest = soonest.scatter_reduce(0, graphs.batch, time, "amin")
        number = torch.arange(len(time), device=time.device)
        last = torch.where(time == soonest.index_select(0, graphs.batch), number, -1)
        return torch.zeros_like(ids).scatter_reduce(0, graphs.batch, last, "amax", include_self=False)
