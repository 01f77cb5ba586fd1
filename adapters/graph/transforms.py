"""GraphCL's four augmentations, of a whole batch at once and without a loop over graphs.

Every number is a function of (seed, epoch, graph, view, node or edge), so a graph is augmented alike in any batch, on
any process, and on the CPU as on a GPU. Both directions of an edge share their number.

Shapes: B graphs, N nodes, E directed edges, F features of a node.
"""

import math

import torch
from torch import Tensor

import kontrast as kt
from kontrast.adapters.graph.batch import (
    GraphBatch,
    argsort,
    columns,
    edge_owner,
    lowest,
    node_number,
    offsets,
    ranges,
    seen_before,
    true_at,
)
from kontrast.adapters.graph.edit import Edit, GraphTransform, GraphViews, Part

__all__ = ["AttributeMasking", "EdgePerturbation", "NodeDropping", "OneOf", "Subgraph", "Unchanged", "graphcl_views"]

# Streams of random numbers, so that transforms of one view do not draw the same.
NODES, EDGES, NEW_EDGES, MASK, NOISE, SEED, GROWTH, CHOICE = range(1, 9)
MOST_CANDIDATES = 64  # pairs drawn for each edge to add, where nearly all nodes are joined already


def per_node(graphs: GraphBatch, ids: Tensor, draws: kt.Draws, view: int, stream: int) -> Tensor:
    """Return 40 random bits of each node, int64 [N]."""
    return draws.bits(ids, graphs.batch, node_number(graphs), view=view, stream=stream)


def per_edge(graphs: GraphBatch, ids: Tensor, draws: kt.Draws, view: int, stream: int) -> Tensor:
    """Return 40 random bits of each edge, the same in both directions, int64 [E]."""
    owner = edge_owner(graphs)
    first = graphs.ptr.index_select(0, owner)
    start, end = graphs.edge_index
    low, high = torch.minimum(start, end).sub_(first), torch.maximum(start, end).sub_(first)
    nodes = graphs.ptr.diff().index_select(0, owner)
    return draws.bits(ids, owner, low.mul_(nodes).add_(high), view=view, stream=stream)


class Unchanged(GraphTransform):
    """The graphs as they are."""

    def edit(self, graphs: GraphBatch, ids: Tensor, draws: kt.Draws, view: int) -> Edit:
        """Return an edit that changes nothing."""
        return Edit()


class NodeDropping(GraphTransform):
    """A share of each graph's nodes, drawn evenly, goes with its edges; rounded down, so that one always stays.

    Args:
        ratio: share of nodes that go, in [0, 1).
        num_views: copies per graph.

    Source:
        You et al. 2020, arXiv:2010.13902, section 3.1; its code drops 10 % in the unsupervised setting, and with them
        every node that is left without an edge, which here stays.
    """

    def __init__(self, ratio: float = 0.1, *, num_views: int = 2) -> None:
        super().__init__(num_views)
        self.ratio = _share(ratio, "ratio")

    def edit(self, graphs: GraphBatch, ids: Tensor, draws: kt.Draws, view: int) -> Edit:
        """Drop floor(ratio x nodes) nodes of each graph."""
        bits = per_node(graphs, ids, draws, view, NODES)
        return Edit(nodes=~lowest(graphs.batch, bits, _part(graphs.ptr.diff(), self.ratio)))


class EdgePerturbation(GraphTransform):
    """A share of each graph's undirected edges goes, and as many new ones come between nodes that had none.

    Args:
        ratio: share of edges that go, in [0, 1).
        add: whether new ones come. In a graph that is nearly complete fewer come, since there is no room.
        num_views: copies per graph.

    Source:
        You et al. 2020, arXiv:2010.13902, section 3.1. Its code adds none (`add=False`).
    """

    def __init__(self, ratio: float = 0.1, *, add: bool = True, num_views: int = 2) -> None:
        super().__init__(num_views)
        self.ratio = _share(ratio, "ratio")
        self.add = add

    def edit(self, graphs: GraphBatch, ids: Tensor, draws: kt.Draws, view: int) -> Edit:
        """Exchange floor(ratio x edges) undirected edges of each graph; self-loops stay."""
        start, end = graphs.edge_index
        # A self-loop is nobody's edge: it gets an owner beyond the graphs, of whose edges none is wanted.
        owner = edge_owner(graphs).masked_fill_(start == end, len(ids))
        edges = torch.bincount(owner, minlength=len(ids) + 1)[:-1] // 2
        leaving = _part(edges, self.ratio)
        # Both directions of an edge have one rank, so they go together.
        gone = lowest(owner, per_edge(graphs, ids, draws, view, EDGES), torch.cat([2 * leaving, leaving.new_zeros(1)]))
        new = self._new_edges(graphs, ids, draws, view, leaving, edges) if self.add else None
        return Edit(edges=~gone, new_edges=new)

    def _new_edges(
        self, graphs: GraphBatch, ids: Tensor, draws: kt.Draws, view: int, wanted: Tensor, edges: Tensor
    ) -> Tensor:
        counts = graphs.ptr.diff()
        pairs = counts * (counts - 1) // 2
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
        low, high = torch.minimum(one, other).add_(first), torch.maximum(one, other).add_(first)
        nodes = len(graphs.batch)
        taken = graphs.edge_index[0] * nodes + graphs.edge_index[1]
        right = ~seen_before(torch.cat([taken, low * nodes + high]))[len(taken) :]
        before = offsets(right.long())
        right &= before[1:] - before.index_select(0, offsets(drawn)[:-1].index_select(0, owner)) <= wanted[owner]
        new = columns(torch.stack([low, high]), true_at(right))
        return torch.cat([new, new.flip(0)], 1)


class AttributeMasking(GraphTransform):
    """The features of a share of each graph's nodes are replaced by noise.

    Args:
        ratio: share of nodes, in [0, 1); rounded down.
        mean: of the normal noise, in units of the features.
        std: its standard deviation.
        num_views: copies per graph.

    Source:
        You et al. 2020, arXiv:2010.13902, section 3.1; the noise N(0.5, 0.5) is its code's.
    """

    def __init__(self, ratio: float = 0.1, *, mean: float = 0.5, std: float = 0.5, num_views: int = 2) -> None:
        super().__init__(num_views)
        self.ratio = _share(ratio, "ratio")
        self.mean, self.std = mean, std

    def edit(self, graphs: GraphBatch, ids: Tensor, draws: kt.Draws, view: int) -> Edit:
        """Replace the features of floor(ratio x nodes) nodes of each graph."""
        bits = per_node(graphs, ids, draws, view, MASK)
        at = true_at(lowest(graphs.batch, bits, _part(graphs.ptr.diff(), self.ratio)))
        x = graphs.x
        features = x.shape[1]
        keys = kt.key(ids.index_select(0, graphs.batch.index_select(0, at)), bits.index_select(0, at))
        uniform = draws.uniform(keys, features + features % 2, view=view, stream=NOISE)
        # Box and Muller 1958: two uniform numbers make two normal ones; 1 - u is in (0, 1].
        radius, angle = uniform.chunk(2, 1)
        radius = (-2 * torch.log1p(-radius)).sqrt_()
        angle = angle * (2 * math.pi)
        normal = torch.cat([radius * angle.cos(), radius * angle.sin()], 1)[:, :features]
        return Edit(x=x.index_copy(0, at, (self.mean + self.std * normal).to(x.dtype)))


class Subgraph(GraphTransform):
    """A connected part of each graph, grown from a random node by one random edge after the other.

    The next edge is drawn evenly from those that lead out of the part. That is the order in which a fluid gets to the
    nodes when it takes each edge in an exponential time of its own (the times forget what has passed), so all
    graphs grow together as shortest paths, in as many rounds as the longest of these has edges.

    Args:
        keep: share of nodes that stay, in (0, 1]: floor(keep x nodes) + 1, or the seed's component if that is smaller.
        hops: how far from the seed it may grow; 0: any distance.
        num_views: copies per graph.

    Source:
        You et al. 2020, arXiv:2010.13902, section 3.1 ("random walk"), with 20 % kept as in its code. That code drops
        what its walk finds beyond the seed's neighbours (`hops=1`).
    """

    def __init__(self, keep: float = 0.2, *, hops: int = 0, num_views: int = 2) -> None:
        super().__init__(num_views)
        if not 0 < keep <= 1:
            raise kt.InvalidValueError(f"`keep` must be in (0, 1], got {keep!r}")
        if hops < 0:
            raise kt.InvalidValueError(f"`hops` must be >= 0, got {hops!r}")
        self.keep, self.hops = keep, hops

    def edit(self, graphs: GraphBatch, ids: Tensor, draws: kt.Draws, view: int) -> Edit:
        """Keep the grown part."""
        size = _part(graphs.ptr.diff(), self.keep) + 1
        uniform = draws.uniform(ids, 1, view=view, stream=SEED)[:, 0].double()
        seeds = graphs.ptr[:-1] + (uniform * graphs.ptr.diff()).long()
        bits = per_edge(graphs, ids, draws, view, GROWTH)
        time = torch.log1p(bits.double().mul_(-(2.0**-40))).neg_()
        start, end = graphs.edge_index
        order = argsort(start)
        end, time = end.index_select(0, order), time.index_select(0, order)
        degree = torch.bincount(start, minlength=len(graphs.batch))
        first = offsets(degree)
        reached = torch.full((len(graphs.batch),), math.inf, dtype=torch.float64, device=time.device)
        reached[seeds] = 0.0
        front, rounds = seeds, 0
        while True:
            # Times are >= 0, so their bits order as they do: 11 of the exponent and 29 of the rest are enough.
            inside = lowest(graphs.batch, reached.view(torch.int64) >> 23, size) & reached.isfinite()
            # What is too late already leads nowhere in time.
            front = front.index_select(0, true_at(inside.index_select(0, front)))
            if not len(front) or rounds == self.hops > 0:
                return Edit(nodes=inside)
            out = degree.index_select(0, front)
            edges = ranges(first.index_select(0, front), out)
            arrival = torch.repeat_interleave(reached.index_select(0, front), out) + time.index_select(0, edges)
            there = end.index_select(0, edges)
            sooner = true_at(arrival < reached.index_select(0, there))
            there, arrival = there.index_select(0, sooner), arrival.index_select(0, sooner)
            reached.scatter_reduce_(0, there, arrival, "amin")
            front = there.index_select(0, true_at(arrival == reached.index_select(0, there)))
            rounds += 1


class OneOf(GraphTransform):
    """Each graph gets one of several transforms, drawn evenly for it.

    Args:
        transforms: to choose from.
        num_views: copies per graph.

    Source:
        You et al. 2020, arXiv:2010.13902; `random2`, `random3` and `random4` of its code.
    """

    def __init__(self, *transforms: GraphTransform, num_views: int = 2) -> None:
        super().__init__(num_views)
        if not transforms:
            raise kt.InvalidValueError("OneOf must be given the transforms to choose from, got none")
        self.transforms = torch.nn.ModuleList(transforms)

    def edit(self, graphs: GraphBatch, ids: Tensor, draws: kt.Draws, view: int) -> Edit:
        """Join what each transform does to the graphs that drew it, which alone it is shown."""
        number = draws.uniform(ids, 1, view=view, stream=CHOICE)[:, 0]
        choice = (number.double() * len(self.transforms)).long()
        parts = []
        for index, transform in enumerate(self.transforms):
            assert isinstance(transform, GraphTransform)
            chosen = choice == index
            if chosen.any():
                part = Part(graphs, chosen)
                parts.append((transform.edit(part, ids[chosen], draws, view), part))
        return Edit.joined(graphs, parts)


def graphcl_views(ratio: float = 0.1, keep: float = 0.2, choices: int = 4, paper_code: bool = False) -> kt.Augmenter:
    """Return GraphCL's pair of views: the graph as it is, and one augmentation drawn for each graph.

    Args:
        ratio: share of nodes dropped, edges exchanged or attributes masked, in [0, 1).
        keep: share of nodes that a subgraph keeps, in (0, 1].
        choices: 2: node dropping and subgraph; 3: edge perturbation too; 4: attribute masking too.
        paper_code: as the authors' code, not as the paper: edges are removed and none added, and subgraphs end at the
            seed's neighbours.

    Raises:
        InvalidValueError: if a parameter is out of range.

    Source:
        You et al. 2020, arXiv:2010.13902; `random2` to `random4` of its unsupervised setting.
    """
    if choices not in (2, 3, 4):
        raise kt.InvalidValueError(f"`choices` must be 2, 3 or 4, got {choices!r}")
    transforms = (
        NodeDropping(ratio),
        Subgraph(keep, hops=1 if paper_code else 0),
        EdgePerturbation(ratio, add=not paper_code),
        AttributeMasking(ratio),
    )
    return GraphViews(Unchanged(), OneOf(*transforms[:choices]))


def _part(counts: Tensor, share: float) -> Tensor:
    """Return floor(share x count), int64; a product such as 0.1 x 30 counts as the 3 that it means."""
    return torch.floor(share * counts.double() + 1e-9).long()


def _share(value: float, name: str) -> float:
    if not 0 <= value < 1:
        raise kt.InvalidValueError(f"`{name}` must be in [0, 1), got {value!r}")
    return value
