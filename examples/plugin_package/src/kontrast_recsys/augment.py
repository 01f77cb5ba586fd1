"""SGL's views: the graph with a negative for every user, and two copies of it that lack edges.

Shapes: B samples, E edges.
"""

from dataclasses import replace

import torch
from torch import Tensor

import kontrast as kt
from kontrast_recsys.graph import Graph, Lookup

__all__ = ["SGLViews"]

NEGATIVES, DROPPED = 1, 2  # streams of random numbers


class SGLViews(kt.Augmenter):
    """Draw an item that each user did not choose, and drop edges of the whole graph, anew in every epoch.

    View 0 is the graph as it is; views 1 and 2 lack some edges, each its own. Which ones is a function of (seed,
    epoch, edge), so that all batches of an epoch and all processes see the same two graphs; a negative is one of (seed,
    epoch, sample).

    Args:
        ratio: the probability that an edge is dropped, in [0, 1).

    Raises:
        InvalidValueError: if `ratio` is not in [0, 1).

    Source:
        Wu et al. 2021, arXiv:2010.10783, section 3.1.1 (edge dropout), eq. 7. Each edge goes by itself as there; the
        authors' code takes a fixed share of the edges.
    """

    def __init__(self, ratio: float = 0.1) -> None:
        super().__init__()
        if not 0 <= ratio < 1:
            raise kt.InvalidValueError(f"`ratio` must be in [0, 1), got {ratio!r}; it is the share of edges dropped")
        self.ratio = ratio
        self._kept: tuple[tuple[Graph, int, int], list[Graph]] | None = None  # a shortcut, no state

    def forward(self, batch: kt.Batch, draws: kt.Draws) -> list[kt.View]:
        """Return the three views."""
        lookup: Lookup = batch.inputs
        numbers = draws.uniform(batch.ids, 1, stream=NEGATIVES)[:, 0]
        lookup = replace(lookup, negatives=lookup.graph.unchosen(lookup.users, numbers))
        graphs = [lookup.graph, *self._dropped(lookup.graph, draws)]
        return [kt.View.of(batch, replace(lookup, graph=graph)) for graph in graphs]

    def _dropped(self, graph: Graph, draws: kt.Draws) -> list[Graph]:
        wanted = (graph, draws.seed, draws.epoch)
        if self._kept is None or self._kept[0][0] is not graph or self._kept[0][1:] != wanted[1:]:
            self._kept = wanted, [graph.without(self._edges(graph, draws, view)) for view in (1, 2)]
        return self._kept[1]

    def _edges(self, graph: Graph, draws: kt.Draws, view: int) -> Tensor:
        edges = torch.arange(len(graph.users), device=graph.users.device)
        return draws.uniform(edges, 1, view=view, stream=DROPPED)[:, 0] < self.ratio
