"""Sums of a function of every logit of a row, over its positives or its negatives.

Shapes: A anchors, P positive pairs.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .block import Block
from .errors import IncompatibleError, InvalidValueError
from .finite import check_finite
from .keys import equals
from .listing import listed, listed_positives
from .pairs import Pairs
from .precision import full_precision
from .prepared import Prepared
from .walk import Measure, Merge, Scored

__all__ = ["SumOf", "added", "block_sums", "listed_logits", "pair_counts", "row_sums"]


def row_sums(
    pairs: Pairs,
    function: Callable[[Tensor], Tensor],
    *,
    of: Literal["positive", "negative"],
    temperature: float = 1.0,
    offset: Tensor | None = None,
) -> Tensor:
    """Return for every anchor the sum of ``function(logit - offset)`` over its positives or its negatives, [A].

    For losses that are a sum over pairs: SigLIP's softplus, a margin's hinge. Tiles are scored once more in the
    backward pass; memory O(A + C).

    Args:
        pairs: A anchors; logits are similarity / temperature (+ log-weight, where -inf leaves a pair out).
        function: of a tensor entry by entry, differentiable and finite; it has no parameters.
        of: which of the pairs are summed over.
        temperature: what similarities are divided by, > 0.
        offset: one number per anchor [A], with gradient.

    Raises:
        InvalidValueError: if an argument breaks its rule.
        IncompatibleError: if the sampler asks for hard or debiased negatives, which are no sum over pairs.
    """
    if not 0 < temperature < math.inf:
        raise InvalidValueError(f"`temperature` must be > 0, got {temperature!r}")
    if of not in ("positive", "negative"):
        raise InvalidValueError(f"`of` must be positive or negative, got {of!r}")
    if of == "negative" and (pairs.hardness or pairs.positive_prior):
        raise IncompatibleError(
            "a sum over negatives one by one cannot take hardness or a positive prior, which change their log-sum-exp; "
            "take a softmax-type objective such as InfoNCE, or leave HardNegatives and Debiased out"
        )
    measure = SumOf(function, of, 1 / temperature)
    with full_precision(pairs.anchors):
        prepared = Prepared(pairs.similarity)
        parts = []
        for block in pairs.blocks:
            slots = listed_positives(block) if of == "positive" else None
            listed = None if slots is None else listed_logits(prepared, block, slots, 1 / temperature)
            parts.append(block_sums(prepared, measure, block, listed, offset))
    total = added(parts)
    check_finite(pairs, total)
    return total


def pair_counts(pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Return how many positives and how many negatives every anchor has, [A] and [A]; those of weight zero not counted.

    From the keys alone where those single out few pairs; else tiles are walked.
    """
    totals = torch.zeros(2, len(pairs.anchors), dtype=torch.int64, device=pairs.anchors.device)
    with torch.no_grad(), full_precision(pairs.anchors):
        prepared = Prepared(pairs.similarity)
        for block in pairs.blocks:
            weighted = block.log_weights is not None or bool(block.rules)
            found = None if weighted else listed(block)
            if found is None:
                totals += torch.stack(prepared.walk(block).measured(_Counts()))
                continue
            totals[0] += torch.bincount(found.positives[0], minlength=len(block.anchors))
            if block.negatives:
                totals[1] += _compared(block) - torch.bincount(found.excepted[0], minlength=len(block.anchors))
    return totals[0], totals[1]


def _compared(block: Block) -> Tensor | int:
    """Return how many candidates are in each anchor's scope, [A], or in that of all."""
    ours, theirs = block.anchor_keys.scope, block.candidate_keys.scope
    if ours is None or theirs is None:
        return len(block.candidates)
    return equals(ours, theirs)


@dataclass(frozen=True)
class _Counts(Measure):
    """How many positives and negatives there are."""

    @property
    def merges(self) -> tuple[Merge, ...]:
        return ("count", "count")

    def __call__(self, tile: Scored) -> tuple[Tensor, ...]:
        positive, negative = (part.expand(tile.scores.shape).sum(-1) for part in tile.counted())
        return positive, negative


@dataclass(frozen=True)
class SumOf(Measure):
    """The sum of a function over a row's positives or negatives."""

    function: Callable[[Tensor], Tensor]
    of: str
    inverse_temperature: float

    @property
    def merges(self) -> tuple[Merge, ...]:
        """One sum."""
        return ("sum",)

    def __call__(self, tile: Scored) -> tuple[Tensor, ...]:
        """Return the sum over the tile's part of each row."""
        positive, negative = tile.counted()
        mask, weights = (
            (positive, tile.log_weights) if self.of == "positive" else (negative, tile.negative_log_weights())
        )
        logits = tile.scores * self.inverse_temperature
        if weights is not None:  # what is left out stays finite: it is masked after the function
            logits = logits + torch.where(weights > -torch.inf, weights, 0.0)
        values = self.function(logits if tile.offset is None else logits - tile.offset[..., None])
        return (torch.where(mask, values, 0.0).sum(-1),)


def block_sums(
    prepared: Prepared, measure: SumOf, block: Block, listed: tuple[Tensor, Tensor] | None, offset: Tensor | None
) -> Tensor:
    """Return a block's part of the sums, [A]; `listed` are its (anchor [P], logit [P]) where those are all there is."""
    dtype = torch.promote_types(block.anchors.dtype, torch.float32)
    offset = None if offset is None else offset.to(dtype)
    if not (block.positives if measure.of == "positive" else block.negatives):
        return block.anchors.new_zeros(len(block.anchors), dtype=dtype)
    if listed is None:
        walked = block.of_matches() if measure.of == "positive" else block
        (part,) = prepared.walk(walked).measured(measure, offset)
        return part
    anchor, logits = listed
    values = measure.function(logits if offset is None else logits - offset[anchor])
    return values.new_zeros(len(block.anchors)).index_add(0, anchor, values)


def added(parts: Sequence[Tensor]) -> Tensor:
    """Return the sum of what each block has per anchor, [A]; of one block that itself."""
    return parts[0] if len(parts) == 1 else torch.stack(list(parts)).sum(0)


def listed_logits(
    prepared: Prepared, block: Block, slots: tuple[Tensor, Tensor], inverse_temperature: float
) -> tuple[Tensor, Tensor]:
    """Return (anchor [P], logit [P]) of pairs (anchor [P], slot [P]); those of weight zero are left out."""
    if block.log_weights is None:
        return slots[0], prepared.paired(block, slots) * inverse_temperature
    weights = block.log_weights[slots[1] if block.index is None else slots].detach()
    kept = weights > -torch.inf
    slots = slots[0][kept], slots[1][kept]
    logits = prepared.paired(block, slots) * inverse_temperature
    return slots[0], logits + weights[kept].to(logits.dtype)
