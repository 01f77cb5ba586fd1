"""Blocks: anchors, candidates, and the integer keys that say which of them are compared and how.

Shapes: A anchors, C candidates, K candidates of one anchor (with an index), P positive pairs, D embedding size.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import overload

import torch
from torch import Tensor

from .errors import InvalidValueError
from .random import mix

__all__ = ["Block", "Keys", "Rule", "equals", "join", "key", "relation"]


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


@dataclass(frozen=True)
class Rule:
    """Which negatives count, and how much, where that depends on more than integers (GIST's guide, a threshold).

    Args:
        function: (scores [..., A, C] of a tile, detached; the anchors' tensors [..., A, *]; the candidates'
            [..., C, *]) -> what is added to the negatives' logits, [..., A, C]; -inf: ignored. Called without gradient,
            once for every tile, so it must not look beyond it.
        anchors: tensors with one row per anchor, [A, *].
        candidates: tensors with one row per candidate, [C, *].
    """

    function: Callable[[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]], Tensor]
    anchors: tuple[Tensor, ...] = ()
    candidates: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Block:
    """Anchors against candidates that all of them share, or against K of them each.

    Args:
        anchors: [A, D].
        candidates: [C, D]; the same tensor, with the same keys, where anchors are compared with each other: then each
            product serves both directions.
        anchor_keys: one integer per anchor, [A].
        candidate_keys: one integer per candidate, [C]; with an index one per slot, [A, K].
        index: which candidates each anchor meets, int64 [A, K]; None: all of them.
        log_weights: added to the logits, [C] or with an index [A, K]; without gradient. -inf: left out.
        positives: False: what the keys call positive is ignored (another block holds it).
        negatives: False: what they call negative is.
        rules: further log-weights of the negatives, one after the other.

    Raises:
        InvalidValueError: if shapes or dtypes do not fit.
    """

    anchors: Tensor
    candidates: Tensor
    anchor_keys: Keys
    candidate_keys: Keys
    index: Tensor | None = None
    log_weights: Tensor | None = None
    positives: bool = True
    negatives: bool = True
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        a, c = self.anchors, self.candidates
        if a.ndim != 2 or c.ndim != 2 or a.shape[1] != c.shape[1]:
            raise InvalidValueError(
                f"anchors and candidates must be [A, D] and [C, D] with one D, got {list(a.shape)} and {list(c.shape)}"
            )
        if not a.dtype.is_floating_point or a.dtype != c.dtype:
            raise InvalidValueError(
                f"anchors and candidates must share one floating dtype, got {a.dtype} and {c.dtype}"
            )
        if self.index is not None and (
            self.index.ndim != 2 or len(self.index) != len(a) or self.index.dtype != torch.int64
        ):
            raise InvalidValueError(
                f"the index must be int64 [{len(a)}, K], got {self.index.dtype} {list(self.index.shape)}"
            )
        slots = [len(c)] if self.index is None else list(self.index.shape)
        for keys, shape, whose in (
            (self.anchor_keys, [len(a)], "anchor"),
            (self.candidate_keys, slots, "candidate"),
        ):
            for name in (entry.name for entry in fields(keys)):
                value: Tensor | None = getattr(keys, name)
                if value is not None and (list(value.shape) != shape or value.dtype != torch.int64):
                    raise InvalidValueError(
                        f"the {whose} key `{name}` must be int64 {shape}, got {value.dtype} {list(value.shape)}"
                    )
        if self.log_weights is not None and list(self.log_weights.shape) != slots:
            raise InvalidValueError(f"log_weights must be {slots}, got {list(self.log_weights.shape)}")
        for rule in self.rules:
            for part, rows, whose in ((rule.anchors, len(a), "anchor"), (rule.candidates, len(c), "candidate")):
                if any(len(tensor) != rows for tensor in part):
                    found = [list(tensor.shape) for tensor in part]
                    raise InvalidValueError(f"a rule's tensors must have one row per {whose}, {rows}, got {found}")

    @property
    def mirrored(self) -> bool:
        """Whether anchors and candidates are one tensor with one set of keys, so that the relation is symmetric."""
        ours, theirs = self.anchor_keys, self.candidate_keys
        same_keys = all(getattr(ours, entry.name) is getattr(theirs, entry.name) for entry in fields(ours))
        return self.anchors is self.candidates and self.index is None and same_keys

    def positive_slots(self) -> tuple[Tensor, Tensor]:
        """Return the positives as (anchor [P], slot [P]), in order of anchors, by a join that walks no tile.

        A slot is a column of the relation: a candidate, or with an index a position in the anchor's row of it. Those of
        log-weight -inf are left out.
        """
        anchor, slot = self._matching_slots()
        if self.log_weights is None:
            return anchor, slot
        kept = self._slot_log_weights(anchor, slot) > -torch.inf
        return anchor[kept], slot[kept]

    def _matching_slots(self) -> tuple[Tensor, Tensor]:
        ours, theirs = self.anchor_keys, self.candidate_keys
        if not self.positives or ours.match is None or theirs.match is None:
            nothing = torch.zeros(0, dtype=torch.int64, device=self.anchors.device)
            return nothing, nothing
        if self.index is not None:
            anchor, slot = self.relation()[0].nonzero(as_tuple=True)
            return anchor, slot
        if ours.scope is not None and theirs.scope is not None:  # a match outside the scope would only be thrown away
            anchor, candidate = join(key(ours.scope, ours.match), key(theirs.scope, theirs.match))
        else:
            anchor, candidate = join(ours.match, theirs.match)
        positive, _ = relation(ours.map(lambda k: k[anchor]), theirs.map(lambda k: k[candidate]), paired=True)
        kept = positive.expand(anchor.shape).nonzero()[:, 0]
        return anchor[kept], candidate[kept]

    def matches(self) -> int:
        """Return how many slots share an anchor's match key, whatever their other keys say; for a block without index.

        What `positive_slots` would have to list: with labels it grows with A x C.
        """
        ours, theirs = self.anchor_keys.match, self.candidate_keys.match
        if not self.positives or ours is None or theirs is None:
            return 0
        return int(equals(ours, theirs).sum())

    def positive_index(self) -> tuple[Tensor, Tensor]:
        """Return the positives as (anchor [P], candidate [P]), in order of anchors."""
        anchor, slot = self.positive_slots()
        return anchor, slot if self.index is None else self.index[anchor, slot]

    def positive_log_weights(self) -> Tensor:
        """Return the log-weight of every positive [P], 0 where the block has none."""
        anchor, slot = self.positive_slots()
        if self.log_weights is None:
            return torch.zeros(len(anchor), device=anchor.device)
        return self._slot_log_weights(anchor, slot)

    def _slot_log_weights(self, anchor: Tensor, slot: Tensor) -> Tensor:
        assert self.log_weights is not None
        return self.log_weights[slot] if self.index is None else self.log_weights[anchor, slot]

    def relation(self) -> tuple[Tensor, Tensor]:
        """Return which slots are positives and which negatives by their keys, bool [A, C] or with an index [A, K]."""
        if self.index is None:
            slots = (len(self.anchors), len(self.candidates))
            positive, negative = relation(self.anchor_keys, self.candidate_keys)
        else:
            slots = (len(self.anchors), self.index.shape[1])
            positive, negative = relation(self.anchor_keys.map(lambda k: k[:, None]), self.candidate_keys)
            positive, negative = (part.squeeze(-2) if part.ndim == 3 else part for part in (positive, negative))
        device = self.anchors.device
        positive, negative = (part.to(device).expand(slots).contiguous() for part in (positive, negative))
        nothing = torch.zeros((), dtype=torch.bool, device=device).expand(slots)
        return positive if self.positives else nothing, negative if self.negatives else nothing


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
    """Return what `join` does of a tensor and itself, by one sort."""
    values, order = keys.sort(stable=True)
    real = values != -1
    if not bool(real.all()):
        values, order = values[real], order[real]
    _, count = torch.unique_consecutive(values, return_counts=True)
    if len(count) == len(values):  # no key comes twice
        own = order.sort().values
        return own, own
    total = int(count.square().sum())
    if limit is not None and total > limit:
        return None
    run = torch.repeat_interleave(count, output_size=len(values))  # of every place in the order
    first = torch.repeat_interleave(count[run], output_size=total)
    start = (count.cumsum(0) - count)[run]
    inside = torch.arange(len(first), device=keys.device) - (count[run].cumsum(0) - count[run])[first]
    at, other = order[first], order[start[first] + inside]
    by_anchor = at.argsort(stable=True)
    return at[by_anchor], other[by_anchor]
