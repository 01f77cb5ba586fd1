"""Integer arrays that the same lines compute with on the CPU and on a GPU: numpy's there, torch's here.

Keys are sorted and counted by many calls on small arrays, and a call costs numpy a third of what it costs torch.
Operators, indexing and the functions of `library` are the same of both; those below are the rest.

Shapes: n elements, P parts.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "Array",
    "argsort",
    "array",
    "between",
    "cut",
    "library",
    "numbers",
    "ranges",
    "repeat",
    "runs",
    "tensor",
    "true_at",
]

Array = Any  # a numpy array, or a tensor


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


def repeat(values: Array, counts: Array) -> Array:
    """Return each value as often as its count says."""
    return np.repeat(values, counts) if isinstance(counts, np.ndarray) else torch.repeat_interleave(values, counts)


def ranges(first: Array, counts: Array) -> Array:
    """Return first[0], first[0] + 1, ..., counts[0] of them, then first[1] and so on, int64."""
    shift = repeat(first - counts.cumsum(0) + counts, counts)
    shift += numbers(len(shift), shift)
    return shift


def true_at(mask: Array) -> Array:
    """Return where a bool [n] is true, int64."""
    return np.flatnonzero(mask) if isinstance(mask, np.ndarray) else mask.nonzero().squeeze(1)


def argsort(values: Array) -> Array:
    """Return the places of values in ascending order; of equal ones the first comes first."""
    if isinstance(values, np.ndarray):
        return values.argsort(kind="stable")  # fast where they nearly are in order
    return values.argsort(stable=True)


def between(ordered: Array, values: Array) -> tuple[Array, Array]:
    """Return where each value's equals begin among others in ascending order, and how many they are, int64 [n]."""
    if isinstance(ordered, np.ndarray):
        start: Array = ordered.searchsorted(values)
        return start, ordered.searchsorted(values, "right") - start
    values = values.contiguous()
    start = torch.searchsorted(ordered, values)
    return start, torch.searchsorted(ordered, values, right=True) - start


def runs(ordered: Array) -> tuple[Array, Array]:
    """Return where each run of equal values begins, and how long it is, int64 [P]."""
    first = library(ordered).ones_like(ordered, dtype=bool)
    first[1:] = ordered[1:] != ordered[:-1]
    begin = true_at(first)
    length = library(ordered).empty_like(begin)
    length[:-1] = begin[1:] - begin[:-1]
    length[-1:] = len(ordered) - begin[-1:]
    return begin, length


def cut(values: Array, size: int) -> list[Array]:
    """Return runs of `size` values, the last one of what is left."""
    return [values[start : start + size] for start in range(0, len(values), size)]
