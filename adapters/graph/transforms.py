"""GraphCL's four augmentations, of a whole batch at once and without a loop over graphs.

Every number is a function of (seed, epoch, graph, view, node or edge), so a graph is augmented alike in any batch, on
any process, and on the CPU as on a GPU. Both directions of an edge share their number.

Shapes: B graphs, N nodes, E directed edges, F features of a node.
"""

import math

import torch
from torch import Tensor

import kontrast as kt
from kontrast.adapters.graph.arrays import lower, lowest, nth, offsets
from kontrast.adapters.graph.batch import Flat, GraphBatch, split
from kontrast.adapters.graph.chance import part_of, per_edge, per_graph, per_node, share, unit
from kontrast.adapters.graph.edit import Edit, GraphTransform
from kontrast.arrays import Array, argsort, library, ranges, repeat, tensor, true_at

__all__ = ["AttributeMasking", "NodeDropping", "OneOf", "Subgraph", "Unchanged"]

# Streams of random numbers, so that transforms of one view do not draw the same; edge perturbation has 2 and 3.
NODES, MASK, NOISE, SEED, GROWTH, CHOICE = 1, 4, 5, 6, 7, 8
PRUNED = 3  # rounds of growth between two looks at what may still be reached in time
# Times are >= 0, so their bits order as they do: 11 of the exponent and 29 of the rest are enough.
DROPPED = 23
NEVER = 0x7FF << 52 >> DROPPED  # of an infinite time


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
        self.ratio = share(ratio, "ratio")

    def edit(self, graphs: GraphBatch, ids: Tensor, draws: kt.Draws, view: int) -> Edit:
        """Drop floor(ratio x nodes) nodes of each graph."""
        flat = Flat.of(graphs, ids)
        bits = per_node(flat, draws, view, NODES)
        leaving = part_of(flat.counts, self.ratio)
        return Edit(nodes=tensor(~lowest(flat.owner, bits, flat.ptr[:-1], leaving)))


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
        self.ratio = share(ratio, "ratio")
        self.mean, self.std = mean, std

    def edit(self, graphs: GraphBatch, ids: Tensor, draws: kt.Draws, view: int) -> Edit:
        """Replace the features of floor(ratio x nodes) nodes of each graph."""
        flat = Flat.of(graphs, ids)
        bits = per_node(flat, draws, view, MASK)
        rows = true_at(lowest(flat.owner, bits, flat.ptr[:-1], part_of(flat.counts, self.ratio)))
        features = graphs.num_features
        keys = kt.key(tensor(flat.ids[flat.owner[rows]]), tensor(bits[rows]))
        uniform = draws.uniform(keys, features + features % 2, view=view, stream=NOISE)
        # Box and Muller 1958: two uniform numbers make two normal ones; 1 - u is in (0, 1].
        radius, angle = uniform.chunk(2, 1)
        radius = (-2 * torch.log1p(-radius)).sqrt_()
        angle = angle * (2 * math.pi)
        normal = torch.cat([radius * angle.cos(), radius * angle.sin()], 1)[:, :features]
        return Edit(x=self.mean + self.std * normal, rows=tensor(rows))


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
        You et al. 2020, arXiv:2010.13902, section 3.1 ("random walk"), with 20 % kept as in its code. Differs from it:
        the code means to draw the next node evenly from the neighbours of the part, here one with two edges into it
        comes twice as often, and neither is a plain random walk. The code then forgets all neighbours but the seed's
        (`hops=1`).
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
        flat = Flat.of(graphs, ids)
        xp = library(flat.owner)
        size = xp.minimum(part_of(flat.counts, self.keep) + 1, flat.counts)
        seeds = flat.ptr[:-1] + xp.asarray(per_graph(flat, draws, view, SEED) * flat.counts, dtype=xp.int64)
        order = argsort(flat.start)
        end, time = flat.end[order], -xp.log1p(-unit(per_edge(flat, draws, view, GROWTH)[order]))
        degree = xp.bincount(flat.start, minlength=len(flat.owner))
        first = offsets(degree)
        reached = xp.full_like(degree, math.inf, dtype=xp.float64)
        reached[seeds] = 0.0

        def late() -> Array:
            """Return each node's rank from which on it is too late."""
            return nth(flat.owner, reached.view(xp.int64) >> DROPPED, flat.ptr[:-1], size).clip(None, NEVER)[flat.owner]

        front, rounds = seeds, 0
        while len(front) and not rounds == self.hops > 0:
            rounds += 1
            if rounds % PRUNED == 0:  # what is too late already leads nowhere in time, nor what comes later
                limit = (late() << DROPPED).view(xp.float64)
                reached = xp.minimum(reached, limit)
                front = front[reached[front] < limit[front]]
            out = degree[front]
            edges = ranges(first[front], out)
            arrival = repeat(reached[front], out) + time[edges]
            there = end[edges]
            sooner = arrival < reached[there]
            there, arrival = there[sooner], arrival[sooner]
            lower(reached, there, arrival)
            front = there[arrival == reached[there]]
        return Edit(nodes=tensor((reached.view(xp.int64) >> DROPPED) < late()))


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
        flat = Flat.of(graphs, ids)
        drawn = per_graph(flat, draws, view, CHOICE) * len(self.transforms)
        parts = []
        for transform, part in zip(self.transforms, split(graphs.x, flat, drawn, len(self.transforms)), strict=True):
            assert isinstance(transform, GraphTransform)
            if len(part.flat.ids):
                parts.append((transform.edit(part, tensor(part.flat.ids), draws, view), part))
        return Edit.joined(graphs, parts)
