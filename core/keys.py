"""Integer keys, and what their equality says: the same, positive, comparable; found by comparing or by sorting.

Shapes: A anchors, C candidates, P pairs of equal keys.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import overload

import torch
from torch import Tensor

from .arrays import Array, argsort, array, between, library, numbers, ranges, repeat, runs, tensor
from .random import mix

__all__ = ["Keys", "equals", "join", "key", "relation"]


def key(first: Tensor, second: Tensor) -> Tensor:
    """Join two integer keys into one (a sample and a coordinate); -1 in either stays -1, which equals nothing.

    The result is a 63-bit mix: two different pairs meet with a chance of about n^2 / 2^64 among n of them.
    """
    joined = mix(mix(first) + second) & ((1 << 63) - 1)
    return torch.where((first == -1) | (second == -1), -1, joined)


@dataclass(frozen=True)
class Keys:
    """What each row is, in integers; -1 equals nothing. Between an anchor and a candidate they are read in this order.

    Args:
        scope: different: not compared. Absent on either side: everything is compared.
        row: equal: the same embedding, ignored.
        match: equal: a positive.
        alias: equal: ignored. What is left is a negative.
    """

    scope: Tensor | None = None
    row: Tensor | None = None
    match: Tensor | None = None
    alias: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> "Keys":
        """Return the keys with `function` applied to each that is there."""
        parts = (getattr(self, entry.name) for entry in fields(self))
        return Keys(*(None if part is None else function(part) for part in parts))


def relation(ours: Keys, theirs: Keys, *, paired: bool = False) -> tuple[Tensor, Tensor]:
    """Return which anchors and candidates are positives and which negatives, by their keys.

    Args:
        ours: keys [..., A].
        theirs: keys [..., C].
        paired: the keys stand row by row instead, [P] and [P].

    Returns:
        Two bool tensors, [..., A, C] or [P], or of fewer dimensions where no key tells rows apart.
    """

    def same(name: str) -> Tensor | None:
        first, second = getattr(ours, name), getattr(theirs, name)
        if first is None or second is None:
            return None
        if not paired:
            first, second = first[..., :, None], second[..., None, :]
        equal: Tensor = (first == second) & (first != -1)
        return equal

    scope, row, match, alias = (same(name) for name in ("scope", "row", "match", "alias"))
    compared = torch.ones((), dtype=torch.bool) if scope is None else scope
    if row is not None:
        compared = compared & ~row
    positive, negative = torch.zeros((), dtype=torch.bool), compared
    if match is not None:
        positive, negative = compared & match, compared & ~match
    return positive, negative if alias is None else negative & ~alias


@overload
def join(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]: ...
@overload
def join(first: Tensor, second: Tensor, limit: int) -> tuple[Tensor, Tensor] | None: ...
def join(first: Tensor, second: Tensor, limit: int | None = None) -> tuple[Tensor, Tensor] | None:
    """Return the positions (in first [P], in second [P]) at which two key tensors are equal, in order of the first.

    Args:
        first: [A]; -1 equals nothing.
        second: [C].
        limit: return None where P would pass it.
    """
    if second is first:
        found = _join_itself(array(first), limit)
    elif len(second) > 2 * len(first):  # a queue: its many keys are looked up among the few, not sorted
        found = _join(array(second), array(first), limit)
        if found is not None:
            order = argsort(found[1])
            found = found[1][order], found[0][order]
    else:
        found = _join(array(first), array(second), limit)
    return None if found is None else (tensor(found[0]), tensor(found[1]))


def _join(first: Array, second: Array, limit: int | None) -> tuple[Array, Array] | None:
    order = argsort(second)
    start, count = between(second[order], first)
    count[first == -1] = 0
    return _matched(order, start, count, limit)


def _join_itself(keys: Array, limit: int | None) -> tuple[Array, Array] | None:
    """Return what `join` does of an array and itself, by one sort, or none where the keys stand in order."""
    own = numbers(len(keys), keys)
    if bool((keys[1:] > keys[:-1]).all()):
        own = own[keys != -1]
        return own, own
    order = argsort(keys)
    begin, length = runs(keys[order])
    start, count = library(keys).empty_like(own), library(keys).empty_like(own)
    start[order], count[order] = repeat(begin, length), repeat(length, length)
    count[keys == -1] = 0
    return _matched(order, start, count, limit)


def _matched(order: Array, start: Array, count: Array, limit: int | None) -> tuple[Array, Array] | None:
    """Return for each of the first the positions `order[start]`, `order[start + 1]`, ..., `count` of them."""
    if limit is not None and int(count.sum()) > limit:
        return None
    return repeat(numbers(len(count), count), count), order[ranges(start, count)]


def equals(first: Tensor, second: Tensor) -> Tensor:
    """Return how many of the second's keys equal each of the first's, int64 [A]; -1 equals nothing."""
    values, counts = torch.unique(second[second != -1], return_counts=True)
    if not len(values):
        return torch.zeros_like(first)
    at = torch.searchsorted(values, first).clamp(max=len(values) - 1)
    return torch.where(values[at] == first, counts[at], 0)
