"""InfoNCE: pick the positive out from among the negatives.

Shapes: A anchors, C candidates, D embedding size.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from kontrast import Loss, Pairs, RowStatistics, Term, row_statistics
from kontrast.plugins.objectives.softmax import SoftmaxObjective

__all__ = ["InfoNCE", "cross_entropies"]


class InfoNCE(SoftmaxObjective):
    """Cross entropy of each positive against the anchor's negatives.

    For anchor i with positives P(i) and negatives N(i)::

        loss_i = mean over p in P(i) of  -log( e^(s_ip / t) / (e^(s_ip / t) + sum_{n in N(i)} e^(s_in / t)) )

    With one positive it equals `NTXent`; with several, each is told from the negatives alone.

    Args:
        temperature: t above, dimensionless, > 0, usually 0.05-0.5. Smaller favours hard negatives.

    Raises:
        InvalidValueError: if `temperature` is not > 0.

    Source:
        van den Oord et al. 2018, arXiv:1807.03748, eq. 4; with a temperature: He et al. 2020, arXiv:1911.05722, eq. 1.
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__(temperature)

    def forward(self, pairs: Pairs) -> Loss:
        """Return the loss over anchors that have a positive, in nats.

        Args:
            pairs: anchors [A, D] against candidates [C, D].
        """
        rows = row_statistics(pairs, temperature=self.temperature)
        losses = cross_entropies(rows)
        some = rows.positive_count > 0
        loss = Loss.over_rows(losses / rows.positive_count.clamp(min=1), some, weights=pairs.anchor_weights)
        if pairs.hardness or pairs.positive_prior:
            return loss
        # log(candidates) - loss bounds the mutual information of anchor and positive from below (ibid., eq. 5), where
        # the negatives are what they are: an estimate of their sum is no bound.
        bound = rows.positive_count * torch.log1p(rows.negative_count.to(losses.dtype)) - losses.detach()
        metric = Term("mutual_information_bound", bound.sum(), rows.positive_count.sum())
        return Loss(loss.terms, (*loss.metrics, metric))


def cross_entropies(rows: RowStatistics) -> Tensor:
    """Return for every anchor the sum over its positives of -log(e^p / (e^p + sum over negatives of e^n)), [A]."""
    some = rows.negative_count > 0
    # It is softplus(log N - p): a sum over positives, for which tiles are walked only where those are many.
    sums = rows.positive_sums(_rest, torch.where(some, rows.negative_logsumexp, 0.0))
    return torch.where(some, sums, 0.0)


def _rest(logits: Tensor) -> Tensor:
    return -logsigmoid(logits)  # exact, where torch's softplus is cut off at 20
