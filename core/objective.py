"""The interface of objectives."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from .errors import IncompatibleError
from .loss import Loss
from .pairs import Pairs
from .precision import full_precision

if TYPE_CHECKING:
    from .sampler import PairSampler

__all__ = ["Needs", "Objective"]


@dataclass(frozen=True)
class Needs:
    """What an objective asks of the pairs it is given.

    Args:
        negatives: whether it is meaningless without negatives.
        min_batch: the smallest batch (of all ranks) it is defined for.
        softmax: whether it reads the negatives as `row_statistics(...).negative_logsumexp` alone, where hard and
            debiased estimates stand.
    """

    negatives: bool = False
    min_batch: int = 1
    softmax: bool = False


class Objective(nn.Module, ABC):
    """Pairs -> Loss, pure in its tensors.

    Subclasses define `forward` from `row_statistics`, `Pairs.aligned` or `Pairs.positive_scores`, and declare `needs`.
    Memory, ranks and precision are the core's business: return sums and counts, never a mean over this rank's rows.
    """

    needs = Needs()

    def __call__(self, pairs: Pairs) -> Loss:
        """Return `forward(pairs)`, computed in full precision whatever autocast the encoders ran under."""
        with full_precision(pairs.anchors):
            loss: Loss = super().__call__(pairs)
        return loss

    @abstractmethod
    def forward(self, pairs: Pairs) -> Loss:
        """Return the loss of these pairs."""

    def check(self, sampler: "PairSampler") -> None:
        """Refuse a sampler that cannot give what this objective needs.

        Raises:
            IncompatibleError: says which need is not met and what would meet it.
        """
        name, source = type(self).__name__, type(sampler).__name__
        if self.needs.negatives and not sampler.gives.negatives:
            raise IncompatibleError(
                f"{name} needs negatives, and the sampler {source} gives none; "
                "take kontrast.InBatch, or put a kontrast.Queue around it"
            )
        if sampler.gives.reweighted and not self.needs.softmax:
            raise IncompatibleError(
                f"the sampler {source} estimates the sum of the negatives' exponentials, and {name} reads no such sum; "
                "take a softmax-type objective such as InfoNCE, or leave HardNegatives and Debiased out"
            )
