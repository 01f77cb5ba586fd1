"""Blocks: anchors, candidates, and what says which of them are compared and how.

Shapes: A anchors, C candidates, K candidates of one anchor (with an index), P positive pairs, D embedding size.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from .errors import InvalidValueError
from .keys import Keys, equals, join, key, relation

__all__ = ["Block", "Rule"]


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
        log_weights: added to the logits, [C] or with an index [A, K]. -inf: left out. They are constants: a tensor that
            wants a gradient is refused, since it would get none.
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
        if self.log_weights is not None and self.log_weights.requires_grad:
            raise InvalidValueError(
                "`log_weights` must be constants, got a tensor that requires grad and would get none; detach it, or "
                "make what is learned part of the similarity"
            )
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

    def of_matches(self) -> "Block":
        """Return the block with each anchor in a scope with what carries its match key: its positives, and little else.

        With an index, whose slots are an anchor's own, the block itself.
        """
        ours, theirs = self.anchor_keys, self.candidate_keys
        if self.index is not None or ours.match is None or theirs.match is None:
            return self
        first, second = ours.match, theirs.match
        if ours.scope is not None and theirs.scope is not None:
            first, second = key(ours.scope, first), key(theirs.scope, second)
        return replace(self, anchor_keys=replace(ours, scope=first), candidate_keys=replace(theirs, scope=second))

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
