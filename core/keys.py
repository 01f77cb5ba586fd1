"""Integer keys, and what their equality says: the same, positive, comparable; found by comparing or by sorting.

Shapes: A anchors, C candidates, P pairs of equal keys.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import overload

import torch
from torch import Tensor

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
        return _join_itself(first, limit)
    if len(second) > 2 * len(first):  # a queue: its many keys are looked up among the few, not sorted
        turned = join(second, first, len(second) * len(first) if limit is None else limit)
        if turned is None:
            return None
        order = turned[1].argsort(stable=True)
        return turned[1][order], turned[0][order]
    values, order = second.sort(stable=True)
    first = first.contiguous()
    start = torch.searchsorted(values, first)
    count = torch.searchsorted(values, first, right=True) - start
    count = torch.where(first == -1, 0, count)
    total = int(count.sum())  # a card is waited for here, and not again
    if limit is not None and total > limit:
        return None
    at = torch.arange(len(count), device=count.device).repeat_interleave(count, output_size=total)
    # Position inside the run of equal keys, then in the sorted keys, then in the second.
    inside = torch.arange(len(at), device=count.device) - (count.cumsum(0) - count)[at]
    return at, order[start[at] + inside]


def equals(first: Tensor, second: Tensor) -> Tensor:
    """Return how many of the second's keys equal each of the first's, int64 [A]; -1 equals nothing."""
    values, counts = torch.unique(second[second != -1], return_counts=True)
    if not len(values):
        return torch.zeros_like(first)
    at = torch.searchsorted(values, first).clamp(max=len(values) - 1)
    return torch.where(values[at] == first, counts[at], 0)


def _join_itself(keys: Tensor, limit: int | None) -> tuple[Tensor, Tensor] | None:
    """Return what `join` does of a tensor and itself, by one sort, or none where the keys stand in order."""
    own = torch.arange(len(keys), device=keys.device)
    if bool((keys[1:] > keys[:-1]).all()):
        own = own[keys != -1]
        return own, own
    values, order = keys.sort(stable=True)
    _, run, count = torch.unique_consecutive(values, return_inverse=True, return_counts=True)
    if len(count) == len(values):  # no key comes twice
        own = own[keys != -1]
        return own, own
    run = torch.empty_like(run).scatter_(0, order, run)  # of every key where it stands
    each = torch.where(keys == -1, 0, count.index_select(0, run))
    total = int(each.sum())
    if limit is not None and total > limit:
        return None
    at = own.repeat_interleave(each, output_size=total)
    # Of each key's first match, the place in the order less its number among the matches: then the number is added.
    first = (count.cumsum(0) - count).index_select(0, run) - (each.cumsum(0) - each)
    place = first.index_select(0, at) + torch.arange(total, device=keys.device)
    return at, order.index_select(0, place)
