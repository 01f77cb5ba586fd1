"""The Jensen-Shannon estimator of mutual information: DGI's and InfoGraph's objective.

Shapes: A anchors, C candidates, D embedding size.
"""

from typing import ClassVar

from torch import Tensor
from torch.nn.functional import logsigmoid

from kontrast import Loss, Needs, Objective, Pairs, Term, pair_counts, row_sums

__all__ = ["JensenShannon"]


class JensenShannon(Objective):
    """Tell positives from negatives by logistic regression, each kind with its own mean.

    Over all positive pairs (i, p) and all negative pairs (i, n), usually with `Dot` (InfoGraph) or `Bilinear` (DGI)::

        loss = mean over (i, p) of log(1 + e^(-s_ip))  +  mean over (i, n) of log(1 + e^(s_in))

    The negatives of an anchor without positives are pairs like others, and count.

    Source:
        Hjelm et al. 2019, arXiv:1808.06670, eq. 4; Velickovic et al. 2019, arXiv:1809.10341, eq. 1; Sun et al. 2020,
        arXiv:1908.01000, eq. 4. InfoGraph's code adds the constant -2 log 2; DGI's takes one mean over both kinds.
    """

    needs = Needs(negatives=True, weights=True)
    # A term that is a mean over pairs: the negatives of an anchor without positives are pairs like others.
    expected_failures: ClassVar = {"anchors-without-positives": "a mean over pairs, as in the paper, not over anchors"}

    def __init__(self) -> None:
        super().__init__()

    def forward(self, pairs: Pairs) -> Loss:
        """Return the two means, in nats.

        Args:
            pairs: anchors [A, D] against candidates [C, D].
        """
        positives, negatives = pair_counts(pairs)
        return Loss(
            (
                Term(
                    "positive",
                    pairs.weighted(row_sums(pairs, _yes, of="positive")).sum(),
                    pairs.weighted(positives).sum(),
                ),
                Term(
                    "negative",
                    pairs.weighted(row_sums(pairs, _no, of="negative")).sum(),
                    pairs.weighted(negatives).sum(),
                ),
            )
        )


def _yes(logits: Tensor) -> Tensor:
    return -logsigmoid(logits)


def _no(logits: Tensor) -> Tensor:
    return -logsigmoid(-logits)
