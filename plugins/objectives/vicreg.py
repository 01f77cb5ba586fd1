"""VICReg: variance, invariance and covariance, statistics of the whole batch in place of negatives.

Shapes: P positive pairs of this rank, N those of all ranks, D embedding size.
"""

import torch
from torch import Tensor

from kontrast import InvalidValueError, Loss, Needs, Objective, Pairs, Term, all_sum

__all__ = ["VICReg"]


class VICReg(Objective):
    """Bring views together, while each dimension keeps its spread and no two say the same.

    For the views Z and Z' [N, D] of a batch::

        loss = invariance x mse(Z, Z') + variance x [v(Z) + v(Z')] + covariance x [c(Z) + c(Z')]
        v(Z) = mean over d of max(0, 1 - sqrt(var(Z_d) + eps))
        c(Z) = sum over d != e of cov(Z)_de^2 / D

    The embeddings enter as they are, not normalised. The views may come from different encoders. Extra memory is D x D.
    Z are the anchors and Z' their positives: ``Positives("forward")`` makes each one view; of other samplers the views
    may stand mixed on both sides.

    Args:
        invariance: weight of the mean squared error over all entries, usually 25.
        variance: weight of the hinge on the standard deviations, usually 25; without it everything collapses.
        covariance: weight of the squared covariances, usually 1.
        eps: under the square root, > 0.

    Raises:
        InvalidValueError: if a weight is negative or `eps` not > 0, or a batch has fewer than two pairs.

    Source:
        Bardes et al. 2022, arXiv:2105.04906, eq. 1-6 and algorithm 1. As in the algorithm (and unlike eq. 5) the
        invariance is a mean over dimensions too. The authors' code halves v(Z) + v(Z'); the paper does not.
    """

    needs = Needs(min_batch=2)

    def __init__(
        self, invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0, eps: float = 1e-4
    ) -> None:
        super().__init__()
        for name, value in (("invariance", invariance), ("variance", variance), ("covariance", covariance)):
            if not value >= 0:
                raise InvalidValueError(f"`{name}` must be >= 0, got {value!r}; it is the weight of a term")
        if not eps > 0:
            raise InvalidValueError(f"`eps` must be > 0, got {eps!r}; it keeps the root of a zero variance smooth")
        self.invariance, self.variance, self.covariance, self.eps = invariance, variance, covariance, eps

    def forward(self, pairs: Pairs) -> Loss:
        """Return the three terms.

        Args:
            pairs: one view against the other (`Positives("forward")`), so that each side is one view's embeddings.
        """
        anchor, first, second = pairs.positive_index()
        squared = (first - second).square().mean(1).sum()
        (v_first, c_first), (v_second, c_second) = self._spread(first), self._spread(second)
        # Variance and covariance are of all ranks' rows, and so the same on each: their mean over ranks is the value.
        return Loss(
            (
                Term("invariance", squared, float(len(first)), self.invariance),
                Term("variance", v_first + v_second, 1.0, self.variance),
                Term("covariance", c_first + c_second, 1.0, self.covariance),
            ),
            (Loss.left_out(torch.bincount(anchor, minlength=len(pairs.anchors)) == 0),),
        )

    def _spread(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return v and c of the joined rows of all ranks."""
        count = all_sum(rows.new_tensor(float(len(rows))))
        if count < 2:
            raise InvalidValueError(f"VICReg needs at least 2 pairs in a batch for a variance, got {int(count)}")
        centred = rows - all_sum(rows.sum(0)) / count
        covariance = all_sum(centred.T @ centred) / (count - 1)
        variances = covariance.diagonal()
        hinge = torch.relu(1 - (variances + self.eps).sqrt()).mean()
        return hinge, (covariance.square().sum() - variances.square().sum()) / rows.shape[1]
