"""What nodes and edges of graphs draw, and how many of them a share is.

Every number is a function of (seed, epoch, graph, view, node or edge).

Shapes: B graphs, N nodes, E directed edges.
"""

import kontrast as kt
from kontrast.adapters.graph.batch import Flat
from kontrast.arrays import Array, array, library, tensor

__all__ = ["part_of", "per_edge", "per_element", "per_graph", "per_node", "share", "unit"]


def per_graph(graphs: Flat, draws: kt.Draws, view: int, stream: int) -> Array:
    """Return a number in [0, 1) of each graph, float64 [B]."""
    drawn = array(draws.uniform(tensor(graphs.ids), 1, view=view, stream=stream))
    xp = library(drawn)
    return xp.asarray(drawn[:, 0], dtype=xp.float64)


def per_node(graphs: Flat, draws: kt.Draws, view: int, stream: int) -> Array:
    """Return 40 random bits of each node, int64 [N]."""
    return per_element(graphs.ids, graphs.owner, graphs.number, draws, view, stream)


def per_edge(graphs: Flat, draws: kt.Draws, view: int, stream: int, *, undirected: bool = True) -> Array:
    """Return 40 random bits of each edge, int64 [E]; where undirected, the same in both directions."""
    owner, start, end = graphs.edge_owner, graphs.start, graphs.end
    if undirected:
        xp = library(start)
        start, end = xp.minimum(start, end), xp.maximum(start, end)
    # (start - first) nodes + (end - first), of the first node of the graph and its number of nodes
    number = start * graphs.counts[owner]
    number += end
    number -= (graphs.ptr[:-1] * (graphs.counts + 1))[owner]
    return per_element(graphs.ids, owner, number, draws, view, stream)


def per_element(ids: Array, owner: Array, number: Array, draws: kt.Draws, view: int, stream: int) -> Array:
    """Return `draws.bits`."""
    return array(draws.bits(tensor(ids), tensor(owner), tensor(number), view=view, stream=stream))


def unit(bits: Array) -> Array:
    """Return the numbers in [0, 1) that 40 random bits are, float64."""
    xp = library(bits)
    return xp.asarray(bits, dtype=xp.float64) * 2.0**-40


def part_of(counts: Array, share: float) -> Array:
    """Return floor(share x count), int64; a product such as 0.1 x 30 counts as the 3 that it means."""
    xp = library(counts)
    return xp.asarray(xp.floor(xp.asarray(counts, dtype=xp.float64) * share + 1e-9), dtype=xp.int64)


def share(value: float, name: str) -> float:
    """Return the value of a parameter that is a share; raise where it is not in [0, 1)."""
    if not 0 <= value < 1:
        raise kt.InvalidValueError(f"`{name}` must be in [0, 1), got {value!r}")
    return value
