"""What objectives on exponentials of logits share: a temperature, and means that no exponential overflows.

Shapes: A anchors.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from kontrast import InvalidValueError, Needs, Objective, Pairs, all_gather, all_sum

__all__ = ["SoftmaxObjective", "log_mean", "positives_alone"]


class SoftmaxObjective(Objective):
    """An objective that reads the negatives by their log-sum-exp alone.

    Args:
        temperature: what similarities are divided by, dimensionless, > 0.

    Raises:
        InvalidValueError: if `temperature` is not > 0.
    """

    needs = Needs(negatives=True, softmax=True, weights=True)

    def __init__(self, temperature: float) -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise InvalidValueError(
                f"`temperature` must be > 0, got {temperature!r}; similarities are divided by it, usually 0.05-0.5"
            )
        self.temperature = temperature


def log_mean(log_sums: Tensor, counts: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the log of the mean exponential over the pairs of all processes, with gradient; 0 without a pair.

    Args:
        log_sums: log of the sum of exponentials over each anchor's pairs, [A]; -inf where there are none.
        counts: how many they are, [A].
        weights: how much each anchor's pairs count, [A]; None: all the same.
    """
    if weights is not None:
        weights = weights.detach().to(log_sums)
        log_sums, counts = log_sums + weights.log(), counts * weights
    own = torch.cat([log_sums.detach(), log_sums.new_full((1,), -torch.inf)]).max()
    top = all_gather(own[None]).max()
    shift = torch.where(top == -torch.inf, 0.0, top)
    total, count = all_sum(torch.stack([(log_sums - shift).exp().sum(), counts.sum().to(log_sums.dtype)]))
    some = count > 0
    return torch.where(some, torch.where(some, total, 1.0).log() - torch.where(some, count, 1.0).log() + shift, 0.0)


def positives_alone(pairs: Pairs) -> Pairs:
    """Return the same pairs without negatives and without log-weights but those that leave a pair out."""
    blocks = []
    for block in pairs.blocks:
        weights = block.log_weights
        kept = None if weights is None else torch.where(weights > -torch.inf, 0.0, -torch.inf)
        blocks.append(replace(block, negatives=False, log_weights=kept))
    return replace(pairs, blocks=tuple(blocks))
