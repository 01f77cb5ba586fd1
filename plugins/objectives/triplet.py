"""Triplet losses: a positive closer than a negative, by a margin or softly.

Shapes: A anchors, C candidates, D embedding size, P positive pairs.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from kontrast import InvalidValueError, Loss, Needs, Objective, Pairs, Term, pair_counts, row_sums

__all__ = ["SoftTriplet", "Triplet"]


class Triplet(Objective):
    """Push every negative further away than the positive, by a margin.

    The mean over all triplets of an anchor i, a positive p and a negative n::

        loss = max(0, s_in - s_ip + margin),   s = the method's similarity

    With `NegativeSquaredDistance` on unit vectors it is FaceNet's; a cosine is half of that, less 1, and so wants half
    the margin. All triplets are many and mostly easy: `SemiHardNegatives` or `HardestNegatives` choose among them.

    Args:
        margin: above, > 0; 0.2 in FaceNet.

    Raises:
        InvalidValueError: if `margin` is not > 0.

    Source:
        Schroff et al. 2015, arXiv:1503.03832, eq. 2. The mean is over all triplets, those at zero included. Memory is
        [P, D], one row for each positive pair.
    """

    needs = Needs(negatives=True, weights=True)

    def __init__(self, margin: float = 0.2) -> None:
        super().__init__()
        if not 0 < margin < math.inf:
            raise InvalidValueError(
                f"`margin` must be > 0, got {margin!r}; it is by how much a positive must be closer than a negative"
            )
        self.margin = margin

    def forward(self, pairs: Pairs) -> Loss:
        """Return the mean over triplets.

        Args:
            pairs: anchors [A, D] against candidates [C, D].
        """
        return _over_triplets(pairs, torch.relu, self.margin)


class SoftTriplet(Objective):
    """`Triplet` without a margin: log(1 + e^(s_in - s_ip)), which never stops pulling.

    Source:
        Hermans et al. 2017, arXiv:1703.07737, section 2 ("soft-margin").
    """

    needs = Needs(negatives=True, weights=True)

    def __init__(self) -> None:
        super().__init__()

    def forward(self, pairs: Pairs) -> Loss:
        """Return the mean over triplets, in nats.

        Args:
            pairs: anchors [A, D] against candidates [C, D].
        """
        return _over_triplets(pairs, _softplus, 0.0)


def _over_triplets(pairs: Pairs, function: Callable[[Tensor], Tensor], margin: float) -> Loss:
    rows = pairs.per_positive()
    _, positive = rows.positive_scores()
    _, triplets = pair_counts(rows)
    sums = row_sums(rows, function, of="negative", offset=positive - margin)
    # Without a single triplet there is nothing to sum over, and still a gradient, of zeros, that DDP waits for.
    total = rows.weighted(sums).sum() + 0.0 * positive.sum()
    anchor = torch.cat([block.positive_slots()[0] for block in pairs.blocks])  # of each of the rows
    some = torch.bincount(anchor[triplets > 0], minlength=len(pairs.anchors)) > 0
    return Loss((Term("loss", total, rows.weighted(triplets).sum()),), (Loss.left_out(~some),))


def _softplus(values: Tensor) -> Tensor:
    return -logsigmoid(-values)
