"""Row statistics: the few numbers per anchor that all objectives on pairs reduce to.

Shapes: A anchors.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from .block_statistics import BlockStatistics
from .errors import InvalidValueError
from .finite import check_finite
from .pairs import Pairs
from .precision import full_precision
from .prepared import Prepared
from .reweighting import reweighted
from .sums import SumOf, added, block_sums
from .walk import log_add

__all__ = ["RowStatistics", "row_statistics"]


@dataclass(frozen=True)
class RowStatistics:
    """What one anchor's positives and negatives amount to; logits are similarity / temperature (+ log-weight).

    Log-sums are taken when they are asked for. Where positives are many (labels), `logsumexp` by itself costs a
    fraction of the two kinds told apart.

    Args:
        positive_count: [A].
        negative_count: [A].
        positive_mean: mean logit of the positives, [A]; 0 where there are none.
    """

    positive_count: Tensor
    negative_count: Tensor
    positive_mean: Tensor
    _pairs: Pairs = field(repr=False, compare=False)
    _parts: tuple[BlockStatistics, ...] = field(repr=False, compare=False)

    @cached_property
    def positive_logsumexp(self) -> Tensor:
        """Log of the sum of exp(logit) over the positives, [A]; -inf where there are none."""
        with full_precision(self._pairs.anchors):
            total = _log_added([part.positive_logsumexp for part in self._parts])
            check_finite(self._pairs, total)
        return total

    @cached_property
    def negative_logsumexp(self) -> Tensor:
        """The same over the negatives; where the sampler asks for it, of the hard or debiased estimate of that sum."""
        pairs = self._pairs
        with full_precision(pairs.anchors):
            sums, weights = zip(*(part.negative for part in self._parts), strict=True)
            powers = [_log_added(list(power)) for power in zip(*sums, strict=True)]
            check_finite(pairs, *powers)
            weight = _log_added(list(weights))
            inverse_temperature = self._parts[0].inverse_temperature
            return reweighted(pairs, powers, weight, self.positive_logsumexp, self.positive_count, inverse_temperature)

    @cached_property
    def logsumexp(self) -> Tensor:
        """Log of the sum of exp(logit) over everything compared, [A]."""
        pairs = self._pairs
        if pairs.hardness or pairs.positive_prior or not any(part.labelled for part in self._parts):
            return log_add(self.positive_logsumexp, self.negative_logsumexp)
        with full_precision(pairs.anchors):
            total = _log_added([part.logsumexp for part in self._parts])
            check_finite(pairs, total)
        return total

    def positive_sums(self, function: Callable[[Tensor], Tensor], offset: Tensor | None = None) -> Tensor:
        """Return for every anchor the sum of ``function(logit - offset)`` over its positives, [A], as `row_sums` does.

        Args:
            function: of a tensor entry by entry.
            offset: one number per anchor [A], with gradient.
        """
        with full_precision(self._pairs.anchors):
            measure = SumOf(function, "positive", self._parts[0].inverse_temperature)
            parts = [block_sums(part.prepared, measure, part.block, part.positives, offset) for part in self._parts]
        return added(parts)


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
        parts = tuple(BlockStatistics(block, prepared, 1 / temperature, powers) for block in pairs.blocks)
        positives, negatives = (added(counts) for counts in zip(*(part.counts for part in parts), strict=True))
        total = added([part.positive_sum for part in parts])
        check_finite(pairs, total)
    rows = RowStatistics(positives, negatives, total / positives.clamp(min=1), pairs, parts)
    if not any(part.labelled for part in parts):
        rows.logsumexp  # noqa: B018  it is there already, and what is wrong with it is said here
    return rows


def _log_added(parts: list[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = log_add(total, part)
    return total
