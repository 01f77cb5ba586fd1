"""What augmentations of graphs ask of arrays (`kontrast.arrays`) beside what the core does, alike for numpy and torch.

Shapes: n elements, P owners.
"""

import numpy as np
import torch

from kontrast.arrays import Array, argsort, library, numbers

__all__ = [
    "columns",
    "lower",
    "lowest",
    "nth",
    "offsets",
    "seen_before",
    "zeros",
]

_RANK = 40  # bits of a rank
_LARGEST = (1 << 63) - 1


def zeros(count: int, like: Array) -> Array:
    """Return zeros of the same kind."""
    return np.zeros(count, like.dtype) if isinstance(like, np.ndarray) else like.new_zeros(count)


def offsets(counts: Array) -> Array:
    """Return where each of P parts begins, and where the last ends, int64 [P + 1]."""
    made = zeros(len(counts) + 1, counts)
    made[1:] = counts.cumsum(0)
    return made


def columns(edge_index: Array, at: Array) -> Array:
    """Return the edges, [2, E], at these places, [2, n]."""
    if isinstance(edge_index, np.ndarray):
        return edge_index.take(at, 1)
    return torch.stack([edge_index[0].index_select(0, at), edge_index[1].index_select(0, at)])


def lower(values: Array, at: Array, by: Array) -> None:
    """Put `by`, [n], at these places of `values` where it is lower than what is there; of several the lowest."""
    if isinstance(values, np.ndarray):
        np.minimum.at(values, at, by)
    else:
        values.scatter_reduce_(0, at, by, "amin")


def nth(owner: Array, rank: Array, first: Array, number: Array) -> Array:
    """Return the rank of each owner's element `number`, counted from 0 in ascending order; where it has fewer, >= 2^40.

    Args:
        owner: int64 [n], in 0..P - 1, in any order; P up to 2^23.
        rank: int64 [n], in 0..2^40 - 1.
        first: how many elements are of a lower owner, int64 [P].
        number: at most as many as the owner has, int64 [P].
    """
    ordered = zeros(len(owner) + 1, owner)
    ordered[:-1] = owner << _RANK
    ordered[:-1] += rank
    ordered[-1] = _LARGEST
    ordered = np.sort(ordered) if isinstance(ordered, np.ndarray) else ordered.sort().values
    return ordered[first + number] - (numbers(len(number), number) << _RANK)


def lowest(owner: Array, rank: Array, first: Array, number: Array) -> Array:
    """Return which elements are among the `number` lowest of their owner, bool [n]; for the rest see `nth`.

    Of elements of one rank at the border, none is among the lowest.
    """
    return rank < nth(owner, rank, first, number)[owner]


def seen_before(values: Array) -> Array:
    """Return which values stand at an earlier place too, bool [n]."""
    order = argsort(values)
    ordered = values[order]
    seen = library(values).zeros_like(values, dtype=bool)
    seen[order[1:]] = ordered[1:] == ordered[:-1]
    return seen
