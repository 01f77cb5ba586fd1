"""SigLIP's sigmoid loss: every pair is a yes or a no of its own.

Shapes: A anchors, C candidates, D embedding size.
"""

from typing import ClassVar

from torch import Tensor
from torch.nn.functional import logsigmoid

from kontrast import Loss, Needs, Objective, Pairs, row_sums

__all__ = ["SigLIP"]


class SigLIP(Objective):
    """Logistic regression of positive against negative, pair by pair, without a softmax.

    For anchor i with positives P(i) and negatives N(i), on logits l that the method's similarity scales and shifts
    (`LearnedTemperature(initial=0.1, bias=-10.0)`)::

        loss_i = sum over p of log(1 + e^(-l_ip))  +  sum over n of log(1 + e^(l_in))

    The mean over anchors: B pairs give the paper's sum over all B x B pairs divided by B. An anchor without positives
    has its negatives' part still, and is counted.

    Source:
        Zhai et al. 2023, arXiv:2303.15343, algorithm 1. One direction holds every pair already; with
        ``InBatch("forward")`` the texts are the candidates.
    """

    needs = Needs(negatives=True, weights=True)
    # Every pair is a yes or a no of its own: those of an anchor without positives count too.
    expected_failures: ClassVar = {"anchors-without-positives": "a sum over all pairs, as in the paper"}

    def __init__(self) -> None:
        super().__init__()

    def forward(self, pairs: Pairs) -> Loss:
        """Return the loss over all anchors, in nats.

        Args:
            pairs: anchors [A, D] against candidates [C, D].
        """
        sums = row_sums(pairs, _no, of="negative") + row_sums(pairs, _yes, of="positive")
        return Loss.over_rows(sums, weights=pairs.anchor_weights)


def _yes(logits: Tensor) -> Tensor:
    return -logsigmoid(logits)


def _no(logits: Tensor) -> Tensor:
    return -logsigmoid(-logits)
