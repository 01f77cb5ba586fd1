"""GCC's subgraphs around a node, by random walk with restart, for whole batches at once.

Shapes: B graphs, N nodes, E directed edges.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

import kontrast as kt
from kontrast.adapters.graph.arrays import lower, offsets, zeros
from kontrast.adapters.graph.batch import Flat, GraphBatch
from kontrast.adapters.graph.chance import per_element, per_node, unit
from kontrast.adapters.graph.edit import Edit, GraphTransform, check_graphs
from kontrast.arrays import Array, argsort, library, numbers, ranges, repeat, tensor, true_at

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

    first: Array
    ends: Array
    degree: Array

    @classmethod
    def of(cls, start: Array, end: Array, nodes: int) -> "Around":
        """Return the neighbours of `nodes` nodes with these edges, int64 [E] each."""
        degree = library(start).bincount(start, minlength=nodes)
        return cls(offsets(degree), library(end).concatenate((end[argsort(start)], zeros(1, end))), degree)


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
        flat = Flat.of(batch.inputs, batch.ids)
        seeds = self._seeds(flat, draws)
        number = tensor(flat.number[seeds])
        views = []
        for copy in range(self.num_views):
            view = self._walk(flat, seeds, draws, copy).view(batch)
            view.inputs.seed = view.coords == number.index_select(0, view.inputs.batch)
            views.append(view)
        return views

    def edit(self, graphs: GraphBatch, ids: Tensor, draws: kt.Draws, view: int) -> Edit:
        """Keep the nodes that a walk visits."""
        flat = Flat.of(graphs, ids)
        return self._walk(flat, self._seeds(flat, draws), draws, view)

    def _walk(self, flat: Flat, seeds: Array, draws: kt.Draws, view: int) -> Edit:
        visited = library(seeds).zeros_like(flat.owner, dtype=bool)
        for _, here in self.visits(Around.of(flat.start, flat.end, len(visited)), flat.ids, seeds, draws, view):
            visited[here] = True
        return Edit(nodes=tensor(visited))

    def visits(
        self, around: "Around", ids: Array, seeds: Array, draws: kt.Draws, view: int
    ) -> Iterator[tuple[Array, Array]]:
        """Yield walks, by their place among the seeds, and the nodes they come to; first all seeds, then hop by hop."""
        xp = library(seeds)
        yield numbers(len(seeds), seeds), seeds
        grown = xp.asarray(around.degree[seeds], dtype=xp.float64) ** self.power
        hops = xp.asarray(grown * (math.e / (math.e - 1) / self.restart) + 0.5, dtype=xp.int64).clip(self.hops)
        walk = repeat(numbers(len(hops), hops), hops)
        bits = per_element(ids, walk, ranges(zeros(len(hops), hops), hops), draws, view, EGO)
        turn = bits >> 16  # which neighbour a hop takes, of 24 bits
        returns = (bits & 0xFFFF) < self.restart * 2**16  # the 16 others: whether the walk returns after it
        returns[hops.cumsum(0) - 1] = True
        # Excursions do not know of each other, so the first hops of all go together, then the second ones and so on.
        begins = xp.ones_like(returns)
        begins[1:] = returns[:-1]
        hop = true_at(begins)
        here = seeds[walk[hop]]
        while len(hop):
            choices, place = around.degree[here], turn[hop]
            place *= choices
            place >>= 24
            place += around.first[here]
            here = xp.where(choices > 0, around.ends[place], here)
            yield walk[hop], here
            on = true_at(~returns[hop])
            hop, here = hop[on] + 1, here[on]

    def _seeds(self, flat: Flat, draws: kt.Draws) -> Array:
        """Return a node of each graph, with chances in proportion to a power of the degrees, int64 [B]."""
        xp = library(flat.owner)
        degree = xp.bincount(flat.start, minlength=len(flat.owner))
        # Of exponential times at these rates, the soonest is each node's with the chance wanted.
        most = int(degree.max()) if len(degree) else 0  # few degrees, many nodes: a power takes long
        rates = xp.asarray(numbers(most + 1, degree), dtype=xp.float64).clip(1e-9) ** self.power
        time = -xp.log1p(-unit(per_node(flat, draws, 0, CENTRE))) / rates[degree]
        soonest = xp.full_like(time, math.inf)[: len(flat.ids)]
        lower(soonest, flat.owner, time)
        at = true_at(time == soonest[flat.owner])
        seeds = zeros(len(flat.ids), flat.ids)
        lower(seeds, flat.owner[at], -at)  # of two that tie the last
        return -seeds
