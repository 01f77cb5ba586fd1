"""Arrays that the same lines compute with on the CPU and on a GPU: numpy's there, torch's here.

To augment a batch of graphs is many calls on small arrays, and a call costs numpy a third of what it costs torch.
Operators, indexing and the functions of `library` are the same of both; those below are the rest.

Shapes: n elements, P owners.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "Array",
    "argsort",
    "array",
    "columns",
    "library",
    "lower",
    "lowest",
    "nth",
    "numbers",
    "offsets",
    "ranges",
    "repeat",
    "seen_before",
    "tensor",
    "true_at",
    "zeros",
]

Array = Any  # a numpy array, or a tensor

_RANK = 40  # bits of a rank
_LARGEST = (1 << 63) - 1


def array(given: Tensor) -> Array:
    """Return what to compute with, over the same memory: a numpy array for a tensor on the CPU."""
    return given.numpy() if given.is_cpu else given


def tensor(made: Array) -> Tensor:
    """Return an array as a tensor, over the same memory."""
    return torch.from_numpy(made) if isinstance(made, np.ndarray) else made


def library(like: Array) -> Any:
    """Return numpy or torch, for functions that are called alike."""
    return np if isinstance(like, np.ndarray) else torch


def numbers(count: int, like: Array) -> Array:
    """Return 0, 1, ..., count - 1, int64."""
    return np.arange(count) if isinstance(like, np.ndarray) else torch.arange(count, device=like.device)


def zeros(count: int, like: Array) -> Array:
    """Return zeros of the same kind."""
    return np.zeros(count, like.dtype) if isinstance(like, np.ndarray) else like.new_zeros(count)


def repeat(values: Array, counts: Array) -> Array:
    """Return each value as often as its count says."""
    return np.repeat(values, counts) if isinstance(counts, np.ndarray) else torch.repeat_interleave(values, counts)


def offsets(counts: Array) -> Array:
    """Return where each of P parts begins, and where the last ends, int64 [P + 1]."""
    made = zeros(len(counts) + 1, counts)
    made[1:] = counts.cumsum(0)
    return made


def ranges(first: Array, counts: Array) -> Array:
    """Return first[0], first[0] + 1, ..., counts[0] of them, then first[1] and so on, int64."""
    shift = repeat(first - counts.cumsum(0) + counts, counts)
    shift += numbers(len(shift), shift)
    return shift


def columns(edge_index: Array, at: Array) -> Array:
    """Return the edges, [2, E], at these places, [2, n]."""
    if isinstance(edge_index, np.ndarray):
        return edge_index.take(at, 1)
    return torch.stack([edge_index[0].index_select(0, at), edge_index[1].index_select(0, at)])


def true_at(mask: Array) -> Array:
    """Return where a bool [n] is true, int64."""
    return np.flatnonzero(mask) if isinstance(mask, np.ndarray) else mask.nonzero().squeeze(1)


def lower(values: Array, at: Array, by: Array) -> None:
    """Put `by`, [n], at these places of `values` where it is lower than what is there; of several the lowest."""
    if isinstance(values, np.ndarray):
        np.minimum.at(values, at, by)
    else:
        values.scatter_reduce_(0, at, by, "amin")


def argsort(values: Array) -> Array:
    """Return the places of values in ascending order; of equal ones the first comes first."""
    if isinstance(values, np.ndarray):
        return values.argsort(kind="stable")  # fast where they nearly are in order, or of 16 bits
    return values.argsort(stable=True)


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
