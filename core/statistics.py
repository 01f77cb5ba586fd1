"""Row statistics: the few numbers per anchor that all objectives on pairs reduce to.

Shapes: A anchors, C candidates of a block (or slots, with an index), P positive pairs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .block import Block
from .errors import InvalidValueError
from .exponentials import Exponentials
from .listing import listed, listed_positives
from .pairs import Pairs
from .prepared import Prepared
from .reweighting import reweighted
from .similarity import Similarity
from .sums import SumOf, block_sums, listed_logits
from .walk import Measure, Merge, Scored, log_add, log_sum_exp

__all__ = ["RowStatistics", "row_statistics"]


@dataclass(frozen=True)
class RowStatistics:
    """What one anchor's positives and negatives amount to; logits are similarity / temperature (+ log-weight).

    Args:
        positive_count: [A].
        negative_count: [A].
        positive_mean: mean logit of the positives, [A]; 0 where there are none.
        positive_logsumexp: log of the sum of exp(logit) over the positives, [A]; -inf where there are none.
        negative_logsumexp: the same over the negatives; where the sampler asks for it, of the hard or debiased estimate
            of that sum.
    """

    positive_count: Tensor
    negative_count: Tensor
    positive_mean: Tensor
    positive_logsumexp: Tensor
    negative_logsumexp: Tensor
    _positive_sums: Callable[[Callable[[Tensor], Tensor], Tensor | None], Tensor] = field(repr=False, compare=False)

    def positive_sums(self, function: Callable[[Tensor], Tensor], offset: Tensor | None = None) -> Tensor:
        """Return for every anchor the sum of ``function(logit - offset)`` over its positives, [A], as `row_sums` does.

        Args:
            function: of a tensor entry by entry.
            offset: one number per anchor [A], with gradient.
        """
        return self._positive_sums(function, offset)

    @property
    def logsumexp(self) -> Tensor:
        """Log of the sum of exp(logit) over everything compared, [A]."""
        return log_add(self.positive_logsumexp, self.negative_logsumexp)


def row_statistics(pairs: Pairs, *, temperature: float = 1.0) -> RowStatistics:
    """Return the statistics of every anchor, merged over the blocks, with gradient.

    Memory O(A + C) beside the embeddings. Half-precision embeddings are compared in float32, float64 ones in float64,
    whatever autocast says. An anchor of zero length has zero gradient under a cosine.

    Args:
        pairs: A anchors.
        temperature: what similarities are divided by, > 0.

    Raises:
        InvalidValueError: if `temperature` is not > 0.
        IncompatibleError: if a positive prior comes with a similarity without a bound.
    """
    if not 0 < temperature < math.inf:
        raise InvalidValueError(f"`temperature` must be > 0, got {temperature!r}")
    hardness = float(pairs.hardness)
    powers = (1 + hardness, hardness) if hardness else (1.0,)
    with torch.autocast(pairs.anchors.device.type, enabled=False):
        prepared = Prepared(pairs.similarity)
        blocks = [_block(block, pairs, prepared, 1 / temperature, powers) for block in pairs.blocks]
        total = blocks[0].statistics
        for other in blocks[1:]:
            total = total + other.statistics
        count = total.positive_count

        def positive_sums(function: Callable[[Tensor], Tensor], offset: Tensor | None) -> Tensor:
            with torch.autocast(pairs.anchors.device.type, enabled=False):
                measure = SumOf(function, "positive", 1 / temperature)
                parts = [block_sums(prepared, measure, block.block, block.positives, offset) for block in blocks]
            return torch.stack(parts).sum(0)

        return RowStatistics(
            positive_count=count,
            negative_count=total.negative_count,
            positive_mean=total.positive_sum / count.clamp(min=1),
            positive_logsumexp=total.positive_logsumexp,
            negative_logsumexp=reweighted(
                pairs, list(total.negative), total.weight, total.positive_logsumexp, count, 1 / temperature
            ),
            _positive_sums=positive_sums,
        )


@dataclass(frozen=True)
class _Measured:
    """A block, its positives' logits where they are listed, and its part of the statistics."""

    block: Block
    positives: tuple[Tensor, Tensor] | None
    statistics: "_Sums"


@dataclass(frozen=True)
class _Sums:
    """A block's part of the statistics; `weight` is the log of the sum of the negatives' weights."""

    positive_count: Tensor
    negative_count: Tensor
    positive_sum: Tensor
    positive_logsumexp: Tensor
    negative: tuple[Tensor, ...]
    weight: Tensor

    def __add__(self, other: "_Sums") -> "_Sums":
        return _Sums(
            self.positive_count + other.positive_count,
            self.negative_count + other.negative_count,
            self.positive_sum + other.positive_sum,
            log_add(self.positive_logsumexp, other.positive_logsumexp),
            tuple(log_add(a, b) for a, b in zip(self.negative, other.negative, strict=True)),
            log_add(self.weight, other.weight),
        )


def _block(
    block: Block, pairs: Pairs, prepared: Prepared, inverse_temperature: float, powers: tuple[float, ...]
) -> _Measured:
    similarity = pairs.similarity
    weighted = block.log_weights is not None or bool(block.rules)
    plain = similarity.factors and type(similarity).transform is Similarity.transform and not weighted
    found = listed(block) if plain and block.negatives else None
    slots = found.positives if found is not None else None if block.negatives else listed_positives(block)
    if slots is None:
        measure = _Logits(inverse_temperature, (*powers, 0.0) if weighted else powers)
        count, negatives, total, positive, *sums = prepared.walk(block).measured(measure)
        weight = sums.pop() if weighted else negatives.to(total.dtype).log()
        return _Measured(block, None, _Sums(count, negatives, total, positive, tuple(sums), weight))
    positives = listed_logits(prepared, block, slots, inverse_temperature)
    anchor, logits = positives
    count = torch.bincount(anchor, minlength=len(block.anchors))
    total = logits.new_zeros(len(count)).index_add(0, anchor, logits)
    positive = _scattered_log_sum_exp(logits, anchor, len(count))
    if found is None:
        nothing = torch.full_like(total, -torch.inf)
        sums = [nothing] * len(powers)
        return _Measured(block, positives, _Sums(count, torch.zeros_like(count), total, positive, tuple(sums), nothing))
    a, c = prepared.anchors(block), prepared.candidates(block)
    mirrored = block.mirrored and a is c
    bound = similarity.bound if isinstance(similarity.bound, float) else None
    walk = Exponentials(a, None if mirrored else c, inverse_temperature, powers, found.excepted, bound)
    negatives = len(c) - torch.bincount(found.excepted[0], minlength=len(a))
    weight = negatives.to(total.dtype).log()
    return _Measured(
        block, positives, _Sums(count, negatives, total, positive, tuple(walk.log_sums().unbind(0)), weight)
    )


@dataclass(frozen=True)
class _Logits(Measure):
    """Counts, the sum and the log-sum-exp of the positives, and a log-sum-exp of the negatives for each power."""

    inverse_temperature: float
    powers: tuple[float, ...]

    @property
    def merges(self) -> tuple[Merge, ...]:
        merge: Merge = "logsumexp"
        return ("count", "count", "sum", merge, *(merge for _ in self.powers))

    def __call__(self, tile: Scored) -> tuple[Tensor, ...]:
        logits = tile.scores * self.inverse_temperature
        weighted = logits if tile.log_weights is None else logits + tile.log_weights
        weights = tile.negative_log_weights()
        shape = tile.scores.shape
        positive, negative = tile.counted()
        return (
            positive.expand(shape).sum(-1),
            negative.expand(shape).sum(-1),
            torch.where(positive, weighted, 0.0).sum(-1),
            log_sum_exp(weighted, positive),
            *(
                log_sum_exp(logits * power if weights is None else logits * power + weights, negative)
                for power in self.powers
            ),
        )


def _scattered_log_sum_exp(logits: Tensor, row: Tensor, count: int) -> Tensor:
    """Return the log-sum-exp of the logits [P] of each row [A]; -inf, with zero gradient, where it has none."""
    top = logits.detach().new_full((count,), -torch.inf).scatter_reduce(0, row, logits.detach(), "amax")
    shift = torch.where(top == -torch.inf, 0.0, top)
    sums = torch.zeros_like(top).index_add(0, row, (logits - shift[row]).exp())
    some = sums != 0  # not-a-number stays visible
    return torch.where(some, torch.where(some, sums, 1.0).log() + shift, -torch.inf)
