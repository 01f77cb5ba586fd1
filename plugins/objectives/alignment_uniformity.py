"""Alignment and uniformity: positives close, everything else spread over the sphere.

Shapes: A anchors, C candidates, D embedding size.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor

from kontrast import Cosine, InvalidValueError, Loss, Needs, Objective, Pairs, Term, row_statistics
from kontrast.plugins.objectives.softmax import log_mean

__all__ = ["AlignmentUniformity"]


class AlignmentUniformity(Objective):
    """The mean distance of positives, and the log of the mean Gaussian potential of negatives, on unit vectors.

    ::

        loss = alignment x mean over positives of |a - p|^power
             + uniformity x log( mean over negatives of e^(-t |a - n|^2) )

    The uniformity runs over the negative pairs that the sampler gives, of all processes: with ``InBatch()`` those
    within a view and across views. Positives are left out, as each would be 1.
    The negatives of an anchor without positives are pairs like others, and count.

    Args:
        alignment: weight of the first term, >= 0.
        uniformity: weight of the second, >= 0.
        power: of the distance, > 0; 2 in the paper.
        t: above, > 0; 2 in the paper.

    Raises:
        InvalidValueError: if an argument breaks its rule.

    Source:
        Wang and Isola 2020, arXiv:2005.10242, section 4.1. There the potential is taken within each view, and the two
        averaged.
    """

    needs = Needs(negatives=True, similarity=Cosine, weights=True)
    # A term that is a mean over pairs: the negatives of an anchor without positives are pairs like others.
    expected_failures: ClassVar = {"anchors-without-positives": "a mean over pairs, as in the paper, not over anchors"}

    def __init__(self, alignment: float = 1.0, uniformity: float = 1.0, power: float = 2.0, t: float = 2.0) -> None:
        super().__init__()
        for name, value in (("alignment", alignment), ("uniformity", uniformity)):
            if not value >= 0:
                raise InvalidValueError(f"`{name}` must be >= 0, got {value!r}; it is the weight of a term")
        for name, value in (("power", power), ("t", t)):
            if not 0 < value < math.inf:
                raise InvalidValueError(f"`{name}` must be > 0, got {value!r}")
        self.alignment, self.uniformity, self.power, self.t = alignment, uniformity, power, t

    def forward(self, pairs: Pairs) -> Loss:
        """Return the two terms.

        Args:
            pairs: anchors [A, D] against candidates [C, D], compared by their cosine.
        """
        # |a - c|^2 = 2 - 2 cos: the potential is e^(2 t cos) less a constant, and so a log-sum-exp of logits.
        rows = row_statistics(pairs, temperature=1 / (2 * self.t))
        alignment = pairs.weighted(rows.positive_sums(self._distance)).sum()
        # Of all processes' pairs, and so the same on each: the mean over processes is the value.
        some = rows.negative_count > 0
        potentials = torch.where(some, rows.negative_logsumexp - 2 * self.t, -torch.inf)
        uniformity = log_mean(potentials, rows.negative_count, pairs.anchor_weights)
        return Loss(
            (
                Term("alignment", alignment, pairs.weighted(rows.positive_count).sum(), self.alignment),
                Term("uniformity", uniformity, 1.0, self.uniformity),
            )
        )

    def _distance(self, logits: Tensor) -> Tensor:
        squared = (2 - logits / self.t).clamp(min=0)
        apart = squared > 0  # the root of a zero distance has no gradient
        return torch.where(apart, torch.where(apart, squared, 1.0) ** (self.power / 2), 0.0)
