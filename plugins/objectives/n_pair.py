"""N-pair loss: one positive against the other pairs' positives, on plain dot products.

Shapes: A anchors, C candidates, D embedding size.
"""

from dataclasses import replace

import torch
from torch import Tensor

from kontrast import InvalidValueError, Loss, Pairs, Similarity, Term, row_statistics, row_sums
from kontrast.plugins.objectives.info_nce import cross_entropies
from kontrast.plugins.objectives.softmax import SoftmaxObjective, positives_alone

__all__ = ["NPair"]


class NPair(SoftmaxObjective):
    """Multi-class cross entropy of the positive against the negatives, with the embeddings' lengths held small.

    For anchor f_i with positives P(i) and negatives N(i); take `Dot` as the method's similarity::

        loss_i = mean over p of  log( 1 + sum_{n in N(i)} e^(s_in - s_ip) )
        + regularization x mean over positive pairs of (|f_i|^2 + |f_p|^2) / 2

    Args:
        regularization: weight of the squared lengths, >= 0; 0.002 is usual.

    Raises:
        InvalidValueError: if `regularization` is not >= 0.

    Source:
        Sohn 2016, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective", NeurIPS, eq. 5 and section
        3.2.2. Batches with one pair per class are the sampler's part (`NoDuplicates` by label).
    """

    def __init__(self, regularization: float = 0.002) -> None:
        super().__init__(1.0)
        if not regularization >= 0:
            raise InvalidValueError(
                f"`regularization` must be >= 0, got {regularization!r}; it is the weight of a term"
            )
        self.regularization = regularization
        self._lengths = _MeanSquaredLength()

    def forward(self, pairs: Pairs) -> Loss:
        """Return the cross entropy over anchors that have a positive, in nats, and the squared lengths.

        Args:
            pairs: anchors [A, D] against candidates [C, D].
        """
        rows = row_statistics(pairs)
        some = rows.positive_count > 0
        loss = Loss.over_rows(
            cross_entropies(rows) / rows.positive_count.clamp(min=1), some, weights=pairs.anchor_weights
        )
        if not self.regularization:
            return loss
        # As a score of each positive pair: with labels the pairs themselves are too many to be listed.
        lengths = row_sums(replace(positives_alone(pairs), similarity=self._lengths), _same, of="positive")
        return Loss(
            (
                *loss.terms,
                Term(
                    "length",
                    pairs.weighted(lengths).sum(),
                    pairs.weighted(rows.positive_count).sum(),
                    self.regularization,
                ),
            ),
            loss.metrics,
        )


class _MeanSquaredLength(Similarity):
    """(|a|^2 + |c|^2) / 2, as a product: [|a|^2 / 2, 1] . [1, |c|^2 / 2]."""

    symmetric = False

    def prepare(self, rows: Tensor) -> Tensor:
        """Return [|a|^2 / 2, 1]."""
        half = rows.square().sum(-1, keepdim=True) / 2
        return torch.cat([half, torch.ones_like(half)], dim=-1)

    def prepare_candidates(self, rows: Tensor) -> Tensor:
        """Return [1, |c|^2 / 2]."""
        return self.prepare(rows).flip(-1)


def _same(scores: Tensor) -> Tensor:
    return scores
