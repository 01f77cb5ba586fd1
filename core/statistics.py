"""Row statistics: the few numbers per anchor that all objectives on pairs reduce to.

Shapes: A anchors, C candidates of a block (or slots, with an index).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .dense import dense_statistics
from .errors import InvalidValueError
from .pairs import Pairs

__all__ = ["RowStatistics", "row_statistics"]


@dataclass(frozen=True)
class RowStatistics:
    """What one anchor's positives and negatives amount to; logits are similarity / temperature (+ log-weight).

    Args:
        positive_count: [A].
        negative_count: [A].
        positive_mean: mean logit of the positives, [A]; 0 where there are none.
        positive_logsumexp: log of the sum of exp(logit) over the positives, [A]; -inf where there are none.
        negative_logsumexp: the same over the negatives.
    """

    positive_count: Tensor
    negative_count: Tensor
    positive_mean: Tensor
    positive_logsumexp: Tensor
    negative_logsumexp: Tensor

    @property
    def logsumexp(self) -> Tensor:
        """Log of the sum of exp(logit) over everything compared, [A]."""
        return torch.logaddexp(self.positive_logsumexp, self.negative_logsumexp)


def row_statistics(pairs: Pairs, *, temperature: float = 1.0) -> RowStatistics:
    """Return the statistics of every anchor, merged over the blocks, with gradient.

    Args:
        pairs: A anchors.
        temperature: what similarities are divided by, > 0.

    Raises:
        InvalidValueError: if `temperature` is not > 0.
    """
    if not temperature > 0:
        raise InvalidValueError(f"`temperature` must be > 0, got {temperature!r}")
    return RowStatistics(*dense_statistics(pairs, 1.0 / temperature))
