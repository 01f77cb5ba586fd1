"""GCC's subgraphs around a node, by random walk with restart, for whole batches at once.

Shapes: B graphs, N nodes, E directed edges, H hops of a walk.
"""

import torch
from torch import Tensor

import kontrast as kt
from kontrast.adapters.graph.batch import GraphBatch, offsets
from kontrast.adapters.graph.edit import Edit, GraphTransform
from kontrast.adapters.graph.transforms import per_node

__all__ = ["EgoSubgraphs"]

EGO, RESTART, NEIGHBOR = 30, 31, 32  # streams of random numbers


class EgoSubgraphs(GraphTransform):
    """What a random walk with restart visits around one node: the same node in every view, a walk of its own in each.

    A hop goes to a random neighbour; after it the walk returns to its node with probability `restart`. A node that
    comes first is kept by all views, so no graph is emptied. The node is drawn with a chance that grows with its
    degree.

    Args:
        hops: of one walk, >= 1.
        restart: in (0, 1].
        power: of the degree, in the chance of being the node; 0: all alike.
        num_views: copies per graph.

    Raises:
        InvalidValueError: if a parameter is out of range.

    Source:
        Qiu et al. 2020, arXiv:2006.09963, section 3.1, with restart 0.8, 256 hops and power 0.75 as in its code. There
        a walk also grows with the degree of its node.
    """

    def __init__(self, hops: int = 256, restart: float = 0.8, *, power: float = 0.75, num_views: int = 2) -> None:
        super().__init__(num_views)
        if hops < 1:
            raise kt.InvalidValueError(f"`hops` must be >= 1, got {hops!r}")
        if not 0 < restart <= 1:
            raise kt.InvalidValueError(f"`restart` must be in (0, 1], got {restart!r}")
        if power < 0:
            raise kt.InvalidValueError(f"`power` must be >= 0, got {power!r}")
        self.hops, self.restart, self.power = hops, restart, power

    def forward(self, batch: kt.Batch, draws: kt.Draws) -> list[kt.View]:
        """Return the views; their inputs say in `seed`, bool [N], which node each is around."""
        views = super().forward(batch, draws)
        seeds = self._seeds(batch.inputs, batch.ids, draws) - batch.inputs.ptr[:-1]
        for view in views:
            assert view.coords is not None
            view.inputs.seed = view.coords == seeds[view.inputs.batch]
        return views

    def edit(self, graphs: GraphBatch, ids: Tensor, draws: kt.Draws, view: int) -> Edit:
        """Keep the nodes that a walk visits."""
        seeds = self._seeds(graphs, ids, draws)
        ends = graphs.edge_index[1][graphs.edge_index[0].argsort(stable=True)]
        degree = torch.bincount(graphs.edge_index[0], minlength=len(graphs.batch))
        first = offsets(degree)[:-1]
        turns = draws.uniform(ids, self.hops, view=view, stream=NEIGHBOR).double()  # which neighbour each hop takes
        returns = draws.uniform(ids, self.hops, view=view, stream=RESTART) < self.restart
        # Hops since the last return: excursions do not know of each other, so all hops of one depth go together.
        hop = torch.arange(self.hops, device=ids.device).expand_as(returns)
        begin = torch.where(returns, hop + 1, 0).cummax(1).values
        depth = hop - torch.cat([torch.zeros_like(begin[:, :1]), begin[:, :-1]], 1)
        at = seeds[:, None].expand_as(hop).clone()  # where the walk stands after each hop
        visited = torch.zeros_like(graphs.batch, dtype=torch.bool)
        visited[seeds] = True
        for level in range(int(depth.max()) + 1):
            walk, step = (depth == level).nonzero(as_tuple=True)
            here = at[walk, step - 1] if level else seeds[walk]
            choices = degree[here]
            place = first[here] + (turns[walk, step] * choices).long()
            there = torch.where(choices > 0, ends[place.clamp(max=max(len(ends) - 1, 0))], here) if len(ends) else here
            at[walk, step] = there
            visited[there] = True
        return Edit(nodes=visited)

    def _seeds(self, graphs: GraphBatch, ids: Tensor, draws: kt.Draws) -> Tensor:
        """Return a node of each graph, with chances in proportion to a power of the degrees, int64 [B]."""
        degree = torch.bincount(graphs.edge_index[0], minlength=len(graphs.batch))
        weight = degree.double().clamp(min=1e-9) ** self.power
        # Of exponential times at these rates, the soonest is each node's with the chance wanted.
        time = -torch.log1p(-per_node(graphs, ids, draws, 0, EGO)[:, 0].double()) / weight
        soonest = torch.full((len(ids),), torch.inf, dtype=time.dtype, device=time.device)
        soonest = soonest.scatter_reduce(0, graphs.batch, time, "amin")
        number = torch.arange(len(time), device=time.device)
        last = torch.where(time == soonest[graphs.batch], number, -1)
        return torch.zeros_like(ids).scatter_reduce(0, graphs.batch, last, "amax", include_self=False)
