"""GraphCL's four augmentations, of a whole batch at once and without a loop over graphs.

Every number is a function of (seed, epoch, graph, view, node or edge), so a graph is augmented alike in any batch, on
any process, and on the CPU as on a GPU. Both directions of an edge share their number.

Shapes: B graphs, N nodes, E directed edges, F features of a node.
"""

import math

import torch
from torch import Tensor

import kontrast as kt
from kontrast.adapters.graph.batch import GraphBatch, edge_owner, node_number, offsets, ordinal
from kontrast.adapters.graph.edit import Edit, GraphTransform, GraphViews, Part

__all__ = ["AttributeMasking", "EdgePerturbation", "NodeDropping", "OneOf", "Subgraph", "Unchanged", "graphcl_views"]

# Streams of random numbers, so that transforms of one view do not draw the same.
NODES, EDGES, NEW_EDGES, MASK, NOISE, SEED, GROWTH, CHOICE = range(1, 9)
CANDIDATES = 4  # pairs drawn for each edge to add: some join nodes that are joined already


def per_node(graphs: GraphBatch, ids: Tensor, draws: kt.Draws, view: int, stream: int, count: int = 1) -> Tensor:
    """Return numbers in [0, 1) for each node, [N, count]."""
    return draws.uniform(kt.key(ids[graphs.batch], node_number(graphs)), count, view=view, stream=stream)


def per_edge(graphs: GraphBatch, ids: Tensor, draws: kt.Draws, view: int, stream: int) -> Tensor:
    """Return a number in [0, 1) for each edge, the same in both directions, [E]."""
    ends = node_number(graphs)[graphs.edge_index]
    undirected = kt.key(ends.amin(0), ends.amax(0))
    return draws.uniform(kt.key(ids[edge_owner(graphs)], undirected), 1, view=view, stream=stream)[:, 0]


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
        counts = graphs.ptr.diff()
        place = ordinal(graphs.batch, per_node(graphs, ids, draws, view, NODES)[:, 0], len(counts))
        return Edit(nodes=place >= _part(counts, self.ratio)[graphs.batch])


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
        graphs_count = len(graphs.ptr) - 1
        start, end = graphs.edge_index
        forward = (start < end).nonzero().squeeze(1)
        owner = graphs.batch[start[forward]]
        counts = torch.bincount(owner, minlength=graphs_count)
        leaving = _part(counts, self.ratio)
        number = per_edge(graphs, ids, draws, view, EDGES)
        place = ordinal(owner, number[forward], graphs_count)
        # The other direction is found by its ends: both are looked up in the sorted list of edges that go.
        nodes = len(graphs.batch)
        gone = (start * nodes + end)[forward[place < leaving[owner]]].sort().values
        undirected = torch.minimum(start, end) * nodes + torch.maximum(start, end)
        stays = ~_among(undirected, gone)
        new = self._new_edges(graphs, ids, draws, view, leaving, undirected) if self.add else None
        return Edit(edges=stays, new_edges=new)

    def _new_edges(
        self, graphs: GraphBatch, ids: Tensor, draws: kt.Draws, view: int, wanted: Tensor, taken: Tensor
    ) -> Tensor:
        drawn = wanted * CANDIDATES
        owner = torch.repeat_interleave(drawn)
        number = torch.arange(len(owner), device=owner.device) - offsets(drawn)[owner]
        uniform = draws.uniform(kt.key(ids[owner], number), 2, view=view, stream=NEW_EDGES).double()
        counts = graphs.ptr.diff()[owner]
        ends = (uniform * counts[:, None]).long() + graphs.ptr[owner][:, None]
        low, high = ends.amin(1), ends.amax(1)
        pair = low * len(graphs.batch) + high
        _, inverse = torch.unique(pair, return_inverse=True)
        first = torch.full_like(pair, len(pair)).scatter_reduce(
            0, inverse, torch.arange(len(pair), device=pair.device), "amin"
        )[inverse]
        right = (low < high) & ~_among(pair, taken.sort().values)
        right &= first == torch.arange(len(pair), device=pair.device)
        before = right.cumsum(0)
        begin = torch.cat([before.new_zeros(1), before])[offsets(drawn)[:-1]]
        right &= before - begin[owner] <= wanted[owner]
        pairs = torch.stack([low[right], high[right]])
        return torch.cat([pairs, pairs.flip(0)], 1)


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
        counts = graphs.ptr.diff()
        place = ordinal(graphs.batch, per_node(graphs, ids, draws, view, MASK)[:, 0], len(counts))
        at = (place < _part(counts, self.ratio)[graphs.batch]).nonzero().squeeze(1)
        keys = kt.key(ids[graphs.batch[at]], node_number(graphs)[at])
        uniform = draws.uniform(keys, 2 * graphs.x.shape[1], view=view, stream=NOISE).to(graphs.x.dtype)
        radius, angle = uniform.chunk(2, 1)  # Box and Muller 1958; 1 - u is in (0, 1]
        normal = (-2 * (1 - radius).log()).sqrt() * (2 * math.pi * angle).cos()
        return Edit(x=graphs.x.index_copy(0, at, self.mean + self.std * normal))


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
        counts = graphs.ptr.diff()
        uniform = draws.uniform(ids, 1, view=view, stream=SEED)[:, 0].double()
        seeds = graphs.ptr[:-1] + (uniform * counts).long()
        time = -torch.log1p(-per_edge(graphs, ids, draws, view, GROWTH).double())
        start, end = graphs.edge_index
        reached = torch.full((len(graphs.batch),), math.inf, dtype=torch.float64, device=time.device)
        reached[seeds] = 0.0
        rounds = 0
        while self.hops == 0 or rounds < self.hops:
            sooner = reached.scatter_reduce(0, end, reached[start] + time, "amin")
            if torch.equal(sooner, reached):
                break
            reached, rounds = sooner, rounds + 1
        order = torch.argsort(reached, stable=True)
        order = order[torch.argsort(graphs.batch[order], stable=True)]
        place = torch.empty_like(order)
        place[order] = node_number(graphs)  # sorted by graph, the n-th of a graph stands where its n-th node did
        size = _part(counts, self.keep) + 1
        return Edit(nodes=(place < size[graphs.batch]) & reached.isfinite())


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
                part = Part.of(graphs, chosen)
                parts.append((transform.edit(part.graphs, ids[chosen], draws, view), part))
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


def _among(values: Tensor, sorted_values: Tensor) -> Tensor:
    """Return which values are in a sorted list, bool."""
    if not len(sorted_values):
        return torch.zeros_like(values, dtype=torch.bool)
    place = torch.searchsorted(sorted_values, values).clamp(max=len(sorted_values) - 1)
    return sorted_values[place] == values


def _share(value: float, name: str) -> float:
    if not 0 <= value < 1:
        raise kt.InvalidValueError(f"`{name}` must be in [0, 1), got {value!r}")
    return value
