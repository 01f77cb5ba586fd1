"""GraphCL's edge perturbation, of a whole batch at once.

Shapes: B graphs, N nodes, E directed edges, K new edges.
"""

import torch
from torch import Tensor

import kontrast as kt
from kontrast.adapters.graph.batch import (
    GraphBatch,
    columns,
    edge_owner,
    lowest,
    offsets,
    ranges,
    seen_before,
    true_at,
)
from kontrast.adapters.graph.chance import part_of, per_edge, share
from kontrast.adapters.graph.edit import Edit, GraphTransform

__all__ = ["EdgePerturbation"]

EDGES, NEW_EDGES = 2, 3  # streams of random numbers
MOST_CANDIDATES = 64  # pairs drawn for each edge to add, where nearly all nodes are joined already


class EdgePerturbation(GraphTransform):
    """A share of each graph's edges goes, and as many new ones come between nodes that had none.

    Args:
        ratio: share of edges that go, in [0, 1).
        add: whether new ones come. In a graph that is nearly complete fewer come, since there is no room.
        undirected: whether both directions of an edge go and come together; False: each is an edge of its own.
        num_views: copies per graph.

    Raises:
        InvalidValueError: if a graph has an edge in one direction alone, and `undirected` is not False; names it.

    Source:
        You et al. 2020, arXiv:2010.13902, section 3.1. Its code adds none (`add=False`).
    """

    def __init__(self, ratio: float = 0.1, *, add: bool = True, undirected: bool = True, num_views: int = 2) -> None:
        super().__init__(num_views)
        self.ratio = share(ratio, "ratio")
        self.add, self.undirected = add, undirected

    def edit(self, graphs: GraphBatch, ids: Tensor, draws: kt.Draws, view: int) -> Edit:
        """Exchange floor(ratio x edges) edges of each graph; self-loops stay."""
        start, end = graphs.edge_index
        # A self-loop is nobody's edge: it gets an owner beyond the graphs, of whose edges none is wanted.
        owner = edge_owner(graphs).masked_fill_(start == end, len(ids))
        bits = per_edge(graphs, ids, draws, view, EDGES, undirected=self.undirected)
        directions = 2 if self.undirected else 1
        if self.undirected:
            _check_undirected(graphs, owner, bits, ids)
        edges = torch.bincount(owner, minlength=len(ids) + 1)[:-1] // directions
        leaving = part_of(edges, self.ratio)
        # Both directions of an undirected edge have one rank, so they go together.
        gone = lowest(owner, bits, torch.cat([directions * leaving, leaving.new_zeros(1)]))
        new = self._new_edges(graphs, ids, draws, view, leaving, edges) if self.add else None
        return Edit(edges=~gone, new_edges=new)

    def _new_edges(
        self, graphs: GraphBatch, ids: Tensor, draws: kt.Draws, view: int, wanted: Tensor, edges: Tensor
    ) -> Tensor:
        counts = graphs.ptr.diff()
        pairs = counts * (counts - 1) // (2 if self.undirected else 1)
        room = (pairs - edges).clamp_(min=0)
        wanted = torch.minimum(wanted, room)
        # So many that three of them are right for each that is wanted, on average.
        drawn = wanted * (3 * pairs / room.clamp(min=1)).ceil_().clamp_(max=MOST_CANDIDATES).long()
        owner = torch.repeat_interleave(drawn)
        number = ranges(torch.zeros_like(drawn), drawn)
        first, counts = graphs.ptr[:-1].index_select(0, owner), counts.index_select(0, owner)
        one, step = (
            draws.bits(ids, owner, 2 * number + side, view=view, stream=NEW_EDGES) * (counts - side) >> 40
            for side in (0, 1)
        )
        other = (one + step + 1) % counts
        if self.undirected:
            one, other = torch.minimum(one, other), torch.maximum(one, other)
        start, end = one + first, other + first
        nodes = len(graphs.batch)
        taken = graphs.edge_index[0] * nodes + graphs.edge_index[1]
        right = ~seen_before(torch.cat([taken, start * nodes + end]))[len(taken) :]
        before = offsets(right.long())
        right &= before[1:] - before.index_select(0, offsets(drawn)[:-1].index_select(0, owner)) <= wanted[owner]
        new = columns(torch.stack([start, end]), true_at(right))
        return torch.cat([new, new.flip(0)], 1) if self.undirected else new


def _check_undirected(graphs: GraphBatch, owner: Tensor, bits: Tensor, ids: Tensor) -> None:
    """Raise where an edge has no other direction: both share their bits, so with opposite signs they add up to 0."""
    start, end = graphs.edge_index
    signed = torch.where(start < end, bits, -bits)
    if signed.masked_fill_(start == end, 0).sum():
        sums = torch.zeros(len(ids) + 1, dtype=torch.int64, device=bits.device).index_add_(0, owner, signed)
        number = int(ids[sums[:-1] != 0][0])
        raise kt.InvalidValueError(
            f"edges must stand there in both directions, and graph {number} has one that does not; apply "
            "torch_geometric.transforms.ToUndirected, or take EdgePerturbation(undirected=False)"
        )
