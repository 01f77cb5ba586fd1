"""InfoNCE: pick the positive out from among the negatives.

Shapes: A anchors, C candidates, D embedding size, P positive pairs.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from kontrast import InvalidValueError, Loss, Needs, Objective, Pairs, Term, row_statistics

__all__ = ["InfoNCE"]


class InfoNCE(Objective):
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

    needs = Needs(negatives=True, softmax=True)

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        if not temperature > 0:
            raise InvalidValueError(f"`temperature` must be > 0, got {temperature!r}")
        self.temperature = temperature

    def forward(self, pairs: Pairs) -> Loss:
        """Return the loss over anchors that have a positive, in nats.

        Args:
            pairs: anchors [A, D] against candidates [C, D].
        """
        rows = row_statistics(pairs, temperature=self.temperature)
        some = rows.negative_count > 0
        # -log(e^p / (e^p + N)) = softplus(log N - p): a sum over positives that walks a tile only where they are many.
        totals = rows.positive_sums(_rest, torch.where(some, rows.negative_logsumexp, 0.0))
        losses = torch.where(some, totals, 0.0)
        loss = Loss.over_rows(losses / rows.positive_count.clamp(min=1), rows.positive_count > 0)
        # log(candidates) - loss bounds the mutual information of anchor and positive from below (ibid., eq. 5).
        bound = rows.positive_count * torch.log1p(rows.negative_count.to(losses.dtype)) - losses.detach()
        return Loss(loss.terms, (Term("mutual_information_bound", bound.sum(), rows.positive_count.sum()),))

    def extra_repr(self) -> str:
        """Show the temperature."""
        return f"temperature={self.temperature}"


def _rest(logits: Tensor) -> Tensor:
    return -logsigmoid(logits)  # exact, where torch's softplus is cut off at 20
