"""Positives against pairs of which some are positive, too: logistic regression with a weight.

Shapes: A anchors, C candidates, D embedding size.
"""

from typing import ClassVar

from torch import Tensor
from torch.nn.functional import softplus

from kontrast import InvalidValueError, Loss, Needs, Objective, Pairs, Term, pair_counts, row_sums

__all__ = ["PositiveUnlabelled"]


class PositiveUnlabelled(Objective):
    """Tell positives from the rest by logistic regression, where the rest holds a share w of positives.

    Over all positive pairs (i, p) and all other pairs (i, u), on the discriminator's logits s::

        loss = mean over (i, p) of log(1 + e^(-s_ip))
             + mean over (i, u) of w log(1 + e^(-s_iu)) + (1 - w) log(1 + e^(s_iu))

    Args:
        positive_prior: w, the chance that a pair that is not known to be positive is so, in [0, 1).

    Raises:
        InvalidValueError: if `positive_prior` is not in [0, 1).

    Source:
        Tonekaboni et al. 2021, arXiv:2106.00750, eq. 2, after Elkan and Noto 2008, doi:10.1145/1401890.1401920. The
        authors' code takes half of it.
    """

    needs = Needs(negatives=True, weights=True)
    # A term that is a mean over pairs: those of an anchor without positives are pairs like others.
    expected_failures: ClassVar = {"anchors-without-positives": "a mean over pairs, as in the paper, not over anchors"}

    def __init__(self, positive_prior: float = 0.05) -> None:
        super().__init__()
        if not 0 <= positive_prior < 1:
            raise InvalidValueError(
                f"`positive_prior` must be in [0, 1), got {positive_prior!r}; it is the chance that an unlabelled pair "
                "is a positive"
            )
        self.positive_prior = positive_prior

    def forward(self, pairs: Pairs) -> Loss:
        """Return the two means, in nats.

        Args:
            pairs: anchors [A, D] against candidates [C, D].
        """
        counts = (pairs.weighted(count).sum() for count in pair_counts(pairs))
        sums = (
            pairs.weighted(row_sums(pairs, _yes, of="positive")).sum(),
            pairs.weighted(row_sums(pairs, self._perhaps, of="negative")).sum(),
        )
        return Loss(tuple(map(Term, ("positive", "unlabelled"), sums, counts)))

    def _perhaps(self, logits: Tensor) -> Tensor:
        # log(1 + e^-s) = log(1 + e^s) - s
        return softplus(logits) - self.positive_prior * logits


def _yes(logits: Tensor) -> Tensor:
    return softplus(-logits)
