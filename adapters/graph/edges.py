"""GraphCL's edge perturbation, of a whole batch at once.

Shapes: B graphs, N nodes, E directed edges, K new edges.
"""

from torch import Tensor

import kontrast as kt
from kontrast.adapters.graph.arrays import columns, lowest, offsets, seen_before, zeros
from kontrast.adapters.graph.batch import Flat, GraphBatch
from kontrast.adapters.graph.chance import part_of, per_edge, per_element, share
from kontrast.adapters.graph.edit import Edit, GraphTransform
from kontrast.arrays import Array, library, numbers, ranges, repeat, tensor, true_at

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
        flat = Flat.of(graphs, ids)
        xp = library(flat.start)
        # A self-loop is nobody's edge: it gets an owner beyond the graphs, of whose edges none is wanted.
        owner = xp.where(flat.start == flat.end, len(flat.ids), flat.edge_owner)
        bits = per_edge(flat, draws, view, EDGES, undirected=self.undirected)
        if self.undirected:
            _check_undirected(flat, bits)
        directions = 2 if self.undirected else 1
        has = xp.bincount(owner, minlength=len(flat.ids) + 1)
        edges = has // directions
        edges[-1] = 0
        leaving = part_of(edges, self.ratio)
        # Both directions of an undirected edge have one rank, so they go together.
        gone = lowest(owner, bits, offsets(has)[:-1], directions * leaving)
        new = self._new_edges(flat, draws, view, leaving[:-1], edges[:-1]) if self.add else None
        return Edit(edges=tensor(~gone), new_edges=None if new is None else tensor(new))

    def _new_edges(self, flat: Flat, draws: kt.Draws, view: int, wanted: Array, edges: Array) -> Array:
        xp = library(wanted)
        pairs = flat.counts * (flat.counts - 1) // (2 if self.undirected else 1)
        room = (pairs - edges).clip(0)
        wanted = xp.minimum(wanted, room)
        # So many that three of them are right for each that is wanted, on average.
        drawn = wanted * -(-3 * pairs // room.clip(1)).clip(-MOST_CANDIDATES)
        owner = repeat(numbers(len(drawn), drawn), drawn)
        number = ranges(zeros(len(drawn), drawn), drawn)
        first, counts = flat.ptr[owner], flat.counts[owner]
        twice = xp.concatenate((owner, owner))
        bits = per_element(flat.ids, twice, xp.concatenate((2 * number, 2 * number + 1)), draws, view, NEW_EDGES)
        one = bits[: len(owner)] * counts >> 40
        other = (one + (bits[len(owner) :] * (counts - 1) >> 40) + 1) % counts
        if self.undirected:
            one, other = xp.minimum(one, other), xp.maximum(one, other)
        new = xp.stack((one + first, other + first))
        nodes = len(flat.owner)
        taken = flat.start * nodes + flat.end
        right = ~seen_before(xp.concatenate((taken, new[0] * nodes + new[1])))[len(taken) :]
        before = offsets(xp.asarray(right, dtype=xp.int64))
        right &= before[1:] - before[offsets(drawn)[owner]] <= wanted[owner]
        new = columns(new, true_at(right))
        return xp.concatenate((new, xp.flip(new, (0,))), 1) if self.undirected else new


def _check_undirected(flat: Flat, bits: Array) -> None:
    """Raise where an edge has no other direction: both share their bits, so with opposite signs they add up to 0."""
    xp = library(bits)
    signed = bits * xp.sign(flat.end - flat.start)
    if signed.sum():
        wrong = [g for g in range(len(flat.ids)) if signed[flat.edge_owner == g].sum()]
        raise kt.InvalidValueError(
            f"edges must stand there in both directions, and graph {int(flat.ids[wrong[0]])} has one that does not; "
            "apply torch_geometric.transforms.ToUndirected, or take EdgePerturbation(undirected=False)"
        )
