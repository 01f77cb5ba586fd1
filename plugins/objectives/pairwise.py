"""The pairwise contrastive loss: positives at distance zero, negatives beyond a margin.

Shapes: A anchors, C candidates, D embedding size.
"""

import math

import torch
from torch import Tensor

from kontrast import InvalidValueError, Loss, Needs, NegativeDistance, Objective, Pairs, Term, pair_counts, row_sums

__all__ = ["PairwiseContrastive"]


class PairwiseContrastive(Objective):
    """Squared distances of positives, squared hinges of negatives, each kind with its own mean.

    With d the distance; the method's similarity must be `NegativeDistance`::

        loss = mean over positives of d^2 / 2  +  mean over negatives of max(0, margin - d)^2 / 2

    The negatives of an anchor without positives are pairs like others, and count.

    Args:
        margin: the distance beyond which negatives are left alone, > 0.

    Raises:
        InvalidValueError: if `margin` is not > 0.

    Source:
        Hadsell, Chopra and LeCun 2006, "Dimensionality Reduction by Learning an Invariant Mapping", CVPR, eq. 4. Two
        means in place of one sum: a batch holds far more negatives than positives.
    """

    needs = Needs(negatives=True, similarity=NegativeDistance, weights=True)

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        if not 0 < margin < math.inf:
            raise InvalidValueError(f"`margin` must be > 0, got {margin!r}; it is the distance negatives are pushed to")
        self.margin = margin

    def forward(self, pairs: Pairs) -> Loss:
        """Return the two means, in squared distance.

        Args:
            pairs: anchors [A, D] against candidates [C, D].
        """
        positives, negatives = pair_counts(pairs)
        return Loss(
            (
                Term(
                    "positive",
                    pairs.weighted(row_sums(pairs, _pull, of="positive")).sum(),
                    pairs.weighted(positives).sum(),
                ),
                Term(
                    "negative",
                    pairs.weighted(row_sums(pairs, self._push, of="negative")).sum(),
                    pairs.weighted(negatives).sum(),
                ),
            )
        )

    def _push(self, scores: Tensor) -> Tensor:
        return torch.relu(self.margin + scores).square() / 2


def _pull(scores: Tensor) -> Tensor:
    return scores.square() / 2
