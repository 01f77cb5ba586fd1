"""Hard and debiased negatives: two estimates of the negatives' sum, taken on log-sums of a row, in float64.

Shapes: A anchors.
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .errors import IncompatibleError

if TYPE_CHECKING:
    from .pairs import Pairs

__all__ = ["reweighted"]


def reweighted(
    pairs: "Pairs",
    log_sums: list[Tensor],
    log_count: Tensor,
    positive_logsumexp: Tensor,
    positive_count: Tensor,
    inverse_temperature: float,
) -> Tensor:
    """Return the log of the negatives' sum as the sampler wants it estimated, [A]; -inf without negatives.

    With l the logits, n the number of negatives (with log-weights, the sum of their weights), h the hardness and p the
    prior::

        hard     = n sum exp((1 + h) l) / sum exp(h l)
        debiased = max( (hard - n p mean over positives of exp(l)) / (1 - p),  n exp(least logit) )

    Where the floor holds the gradient is zero; without a positive nothing is subtracted.

    Args:
        pairs: carry hardness, prior and similarity.
        log_sums: the negatives' log-sum-exp at the powers 1 + h and h, or without hardness at 1, each [A].
        log_count: log n, [A].
        positive_logsumexp: of the logits, [A].
        positive_count: [A].
        inverse_temperature: of the logits.

    Raises:
        IncompatibleError: if there is a prior, and neither a least score nor a bound of the similarity.

    Source:
        Robinson et al. 2021, arXiv:2010.04592, eq. 4 and the authors' code; Chuang et al. 2020, arXiv:2007.00224, eq.
        7-8. The weights of the hard negatives carry gradient, as in the code, unless `detach_hardness`.
    """
    prior, hardness = pairs.positive_prior, pairs.hardness
    if not prior and not hardness:
        return log_sums[0]
    some = log_count > -torch.inf
    hard, *rest = (torch.where(some, part, 0.0).double() for part in log_sums)
    log_n = torch.where(some, log_count, 0.0).double()
    if rest:
        if pairs.detach_hardness:  # the value is the same; its slope is that of the sum with constant weights
            hard = hard.detach() + (hard - hard.detach()) / (1 + hardness)
            rest = [rest[0].detach()]
        hard = hard - rest[0] + log_n
    if prior:
        least = pairs.least_score
        bound = pairs.similarity.bound
        if least is None and bound is None:
            raise IncompatibleError(
                f"a positive prior needs the least score there can be, and {type(pairs.similarity).__name__} has no "
                "bound; take Cosine, or give Debiased a `least_score`"
            )
        floor = log_n + (least if least is not None else -bound) * inverse_temperature  # type: ignore[operator]
        log_mean = (positive_logsumexp - positive_count.clamp(min=1).to(positive_logsumexp.dtype).log()).double()
        paired = positive_count > 0
        share = torch.where(paired, log_n + math.log(prior) + torch.where(paired, log_mean, 0.0), -torch.inf)
        # Asked this way round, what is not a number is neither floored nor hidden.
        below = share >= hard
        # What the floor replaces is kept away from log(0), whose gradient would be not a number.
        gap = torch.where(below | ~paired, -1.0, torch.where(paired, share, 0.0) - hard)
        left = hard + torch.where(paired, torch.log1p(-gap.exp()), 0.0) - math.log1p(-prior)
        hard = torch.where(below | (left <= floor), floor, left)
    return torch.where(some, hard, -torch.inf).to(log_sums[0].dtype)
