"""Supervised contrastive loss: every sample of one's class is a positive.

Shapes: A anchors, C candidates, D embedding size.
"""

from typing import Literal

from kontrast import InvalidValueError, Loss, Pairs, row_statistics
from kontrast.plugins.objectives.softmax import SoftmaxObjective

__all__ = ["SupCon"]


class SupCon(SoftmaxObjective):
    """Tell the positives from everything else; with a sampler that matches by labels (`InBatch(match="labels")`).

    For anchor i with positives P(i), and k over positives and negatives alike::

        out:  loss_i = mean over p of  -log( e^(s_ip / t) / sum_k e^(s_ik / t) )
        in:   loss_i = -log( mean over p of  e^(s_ip / t) / sum_k e^(s_ik / t) )

    Args:
        temperature: t above, dimensionless, > 0; 0.1 in the paper.
        form: where the mean over positives stands. `"out"` is the paper's L_out, which trains better; `"in"` its L_in.

    Raises:
        InvalidValueError: if `temperature` is not > 0, or `form` is neither.

    Source:
        Khosla et al. 2020, arXiv:2004.11362, eq. 2 and 3. The code's factor temperature / base temperature is left out:
        it scales the learning rate. An anchor without a positive contributes nothing and is not counted.
    """

    def __init__(self, temperature: float = 0.1, form: Literal["out", "in"] = "out") -> None:
        super().__init__(temperature)
        if form not in ("out", "in"):
            raise InvalidValueError(f"`form` must be out or in, got {form!r}; out is the paper's L_out")
        self.form = form

    def forward(self, pairs: Pairs) -> Loss:
        """Return the loss over anchors that have a positive, in nats.

        Args:
            pairs: anchors [A, D] against candidates [C, D].
        """
        rows = row_statistics(pairs, temperature=self.temperature)
        positive = rows.positive_mean
        if self.form == "in":
            positive = rows.positive_logsumexp - rows.positive_count.clamp(min=1).to(positive.dtype).log()
        return Loss.over_rows(rows.logsumexp - positive, rows.positive_count > 0, weights=pairs.anchor_weights)
