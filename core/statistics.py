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
from .finite import check_finite
from .fused import fused_sums
from .listing import listed, listed_positives
from .pairs import Pairs
from .precision import full_precision
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
        NonFiniteLossError: if an embedding is not finite (on the CPU; on a GPU the loss is then nan).
    """
    if not 0 < temperature < math.inf:
        raise InvalidValueError(f"`temperature` must be > 0, got {temperature!r}")
    hardness = float(pairs.hardness)
    powers = (1 + hardness, hardness) if hardness else (1.0,)
    with full_precision(pairs.anchors):
        prepared = Prepared(pairs.similarity)
        blocks = [_block(block, pairs, prepared, 1 / temperature, powers) for block in pairs.blocks]
        total = blocks[0].statistics
        for other in blocks[1:]:
            total = total + other.statistics
        count = total.positive_count
        check_finite(pairs, total.positive_sum, total.positive_logsumexp, *total.negative)

        def positive_sums(function: Callable[[Tensor], Tensor], offset: Tensor | None) -> Tensor:
            with full_precision(pairs.anchors):
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
    fused = fused_sums(block, prepared, inverse_temperature, powers) if plain else None
    a, c = (block.anchors, block.candidates) if fused else (prepared.anchors(block), prepared.candidates(block))
    found = listed(block) if fused is None and plain and block.negatives else None
    slots = fused.positives if fused else listed_positives(block) if found is None else found.positives
    walked = tuple[Tensor, ...]()
    logits: tuple[Tensor, Tensor] | None = None
    if fused is not None:
        sums, negatives, logits = fused.log_sums.unbind(0), fused.negatives, (fused.positives[0], fused.logits)
    elif found is not None:
        mirrored = block.mirrored and a is c
        ours, theirs = block.anchor_keys.scope, block.candidate_keys.scope
        scopes = None if ours is None or theirs is None else (ours, theirs)
        bound = similarity.bound if isinstance(similarity.bound, float) else _greatest(a, c)
        spec = Exponentials(a, None if mirrored else c, inverse_temperature, powers, found.excepted, bound, scopes)
        log_sums, excepted = spec.log_sums()
        sums = log_sums.unbind(0)
        negatives = spec.plan.sizes - torch.bincount(found.excepted[0], minlength=len(a))
        logits = found.positives[0], excepted[found.which]
    elif block.negatives or slots is None:
        measure = _Logits(inverse_temperature, (*powers, 0.0) if weighted else powers, positives=slots is None)
        walked = prepared.walk(block).measured(measure)
        negatives, sums = walked[0], walked[1 : 1 + len(powers)]
    else:
        negatives = torch.zeros(len(a), dtype=torch.int64, device=a.device)
        sums = (a.new_full((len(a),), -torch.inf),) * len(powers)

    if slots is None:
        count, total, positive = walked[-3:]
    else:
        if logits is None:  # they were not among the products
            logits = listed_logits(prepared, block, slots, inverse_temperature)
        count = torch.bincount(logits[0], minlength=len(a))
        total = logits[1].new_zeros(len(a)).index_add(0, logits[0], logits[1])
        positive = _scattered_log_sum_exp(logits[1], logits[0], len(a))
    weight = walked[1 + len(powers)] if walked and weighted else negatives.to(total.dtype).log()
    return _Measured(block, logits, _Sums(count, negatives, total, positive, tuple(sums), weight))


@dataclass(frozen=True)
class _Logits(Measure):
    """The negatives' count and log-sum-exp for each power, and if wanted the positives' count, sum and log-sum-exp."""

    inverse_temperature: float
    powers: tuple[float, ...]
    positives: bool

    @property
    def merges(self) -> tuple[Merge, ...]:
        merge: Merge = "logsumexp"
        negatives: tuple[Merge, ...] = ("count", *(merge for _ in self.powers))
        return (*negatives, "count", "sum", merge) if self.positives else negatives

    def __call__(self, tile: Scored) -> tuple[Tensor, ...]:
        shape = tile.scores.shape
        positive, negative = tile.counted()
        logits = tile.scores * self.inverse_temperature
        weights = tile.negative_log_weights()
        sums = [
            log_sum_exp(logits * power if weights is None else logits * power + weights, negative)
            for power in self.powers
        ]
        negatives = (negative.expand(shape).sum(-1), *sums)
        if not self.positives:
            return negatives
        if tile.log_weights is not None:
            logits = logits + tile.log_weights
        total = torch.where(positive, logits, 0.0).sum(-1)
        return (*negatives, positive.expand(shape).sum(-1), total, log_sum_exp(logits, positive))


def _greatest(anchors: Tensor, candidates: Tensor) -> float | None:
    """Return what no |product| of rows [A, D] and [C, D] passes, by their lengths; None on a GPU, which would wait."""
    if anchors.device.type != "cpu" or not len(anchors) or not len(candidates):
        return None
    sides = (anchors,) if candidates is anchors else (anchors, candidates)
    longest = [float(torch.linalg.vector_norm(rows.detach(), dim=1).max()) for rows in sides]
    greatest = longest[0] * longest[-1] * (1 + 1e-5)
    return greatest if math.isfinite(greatest) else None


def _scattered_log_sum_exp(logits: Tensor, row: Tensor, count: int) -> Tensor:
    """Return the log-sum-exp of the logits [P] of each row [A]; -inf, with zero gradient, where it has none."""
    top = logits.detach().new_full((count,), -torch.inf).scatter_reduce(0, row, logits.detach(), "amax")
    shift = torch.where(top == -torch.inf, 0.0, top)
    sums = torch.zeros_like(top).index_add(0, row, (logits - shift[row]).exp())
    some = sums != 0  # not-a-number stays visible
    return torch.where(some, torch.where(some, sums, 1.0).log() + shift, -torch.inf)
