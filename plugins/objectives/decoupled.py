"""Decoupled contrastive learning: the positive is left out of the denominator.

Shapes: A anchors, C candidates, D embedding size.
"""

import math

from torch import Tensor

from kontrast import InvalidValueError, Loss, Pairs, row_statistics
from kontrast.plugins.objectives.softmax import SoftmaxObjective, log_mean, positives_alone

__all__ = ["DCL", "DCLW"]


class DCL(SoftmaxObjective):
    """Pull the positive closer than the log-sum of the negatives alone.

    For anchor i with positives P(i) and negatives N(i)::

        loss_i = mean over p of  -s_ip / t  +  log sum_{n in N(i)} e^(s_in / t)

    May be negative. Its gradient is InfoNCE's without the factor that vanishes where the positive is easy, so that
    small batches learn as well.

    Args:
        temperature: t above, dimensionless, > 0; 0.1 in the paper.

    Raises:
        InvalidValueError: if `temperature` is not > 0.

    Source:
        Yeh et al. 2022, arXiv:2110.06848, eq. 6. Any number of positives (their mean). An anchor without a positive or
        without a negative contributes nothing and is not counted.
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__(temperature)

    def forward(self, pairs: Pairs) -> Loss:
        """Return the loss over anchors that have a positive and a negative, in nats.

        Args:
            pairs: anchors [A, D] against candidates [C, D].
        """
        rows = row_statistics(pairs, temperature=self.temperature)
        both = (rows.positive_count > 0) & (rows.negative_count > 0)
        return Loss.over_rows(rows.negative_logsumexp - rows.positive_mean, both, weights=pairs.anchor_weights)


class DCLW(SoftmaxObjective):
    """`DCL` that asks more of positive pairs which are far apart.

    With weights w that are 1 on average over the batch's positive pairs (i, p)::

        loss_i = mean over p of  -w_ip s_ip / t  +  log sum_{n in N(i)} e^(s_in / t)
        w_ip = 2 - e^(s_ip / sigma) / mean over all pairs of e^(s / sigma)

    Args:
        temperature: t above, dimensionless, > 0.
        sigma: above, dimensionless, > 0; 0.5 in the paper. Smaller spreads the weights.

    Raises:
        InvalidValueError: if `temperature` or `sigma` is not > 0.

    Source:
        Yeh et al. 2022, arXiv:2110.06848, eq. 7, the von Mises-Fisher weights. The mean is over the positive pairs of
        all processes; the weights carry gradient, as in the authors' code. A log-weight counts on negatives alone.
    """

    def __init__(self, temperature: float = 0.1, sigma: float = 0.5) -> None:
        super().__init__(temperature)
        if not 0 < sigma < math.inf:
            raise InvalidValueError(f"`sigma` must be > 0, got {sigma!r}; it is the scale of the positives' weights")
        self.sigma = sigma

    def forward(self, pairs: Pairs) -> Loss:
        """Return the loss over anchors that have a positive and a negative, in nats.

        Args:
            pairs: anchors [A, D] against candidates [C, D].
        """
        rows = row_statistics(pairs, temperature=self.temperature)
        positives = row_statistics(positives_alone(pairs), temperature=self.sigma)
        # With x = s / sigma - log mean e^(s / sigma), a weight is 2 - e^x: it does not overflow, however large s is.
        mean = log_mean(positives.positive_logsumexp, positives.positive_count, pairs.anchor_weights)
        offset = mean.expand(len(pairs.anchors))
        weighted = positives.positive_sums(_weighted, offset) + mean * positives.positive_sums(_weight, offset)
        total = self.sigma / self.temperature * weighted
        both = (rows.positive_count > 0) & (rows.negative_count > 0)
        losses = rows.negative_logsumexp - total / rows.positive_count.clamp(min=1)
        return Loss.over_rows(losses, both, weights=pairs.anchor_weights)


def _weight(x: Tensor) -> Tensor:
    return 2 - x.exp()


def _weighted(x: Tensor) -> Tensor:
    return _weight(x) * x
