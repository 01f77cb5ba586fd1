"""NT-Xent, SimCLR's normalised temperature-scaled cross entropy.

Shapes: A anchors, C candidates, D embedding size.
"""

from kontrast import Loss, Pairs, row_statistics
from kontrast.plugins.objectives.softmax import SoftmaxObjective

__all__ = ["NTXent"]


class NTXent(SoftmaxObjective):
    """Tell the positive from everything else that the anchor is compared with.

    For anchor i with positives P(i)::

        loss_i = mean over p in P(i) of  -s_ip / t + log sum_k exp(s_ik / t),   s = the method's similarity

    where k runs over positives and negatives alike, never over the anchor itself. With one positive it equals
    `InfoNCE`; with several, the others stay in the denominator (as in SupCon's L_out).

    Args:
        temperature: t above, dimensionless, > 0, usually 0.1-0.5. Smaller favours hard negatives.

    Raises:
        InvalidValueError: if `temperature` is not > 0.

    Source:
        Chen et al. 2020, arXiv:2002.05709, eq. 1. Differs from it: any number of positives (their mean).
    """

    def __init__(self, temperature: float = 0.5) -> None:
        super().__init__(temperature)

    def forward(self, pairs: Pairs) -> Loss:
        """Return the loss over anchors that have a positive, in nats.

        Args:
            pairs: anchors [A, D] against candidates [C, D].
        """
        rows = row_statistics(pairs, temperature=self.temperature)
        return Loss.over_rows(
            rows.logsumexp - rows.positive_mean, rows.positive_count > 0, weights=pairs.anchor_weights
        )
