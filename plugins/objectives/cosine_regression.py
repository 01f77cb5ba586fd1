"""Cosine regression: BYOL's and SimSiam's objective.

Shapes: A anchors, P positive pairs.
"""

import torch

from kontrast import Cosine, Loss, Needs, Objective, Pairs

__all__ = ["CosineRegression"]


class CosineRegression(Objective):
    """Bring the prediction to its target: the squared distance of the two, both scaled to length 1.

    For every positive pair (i, p)::

        loss_ip = |a_i / |a_i| - c_p / |c_p||^2 = 2 - 2 s_ip,   s = the method's similarity, a cosine

    By itself it is minimal when everything is embedded alike: use it with a predictor and a target.

    Source:
        Grill et al. 2020, arXiv:2006.07733, eq. 2. The mean over both directions, where the paper sums the two.
        SimSiam's negative cosine (arXiv:2011.10566, eq. 1) is half of it, less 1.
    """

    needs = Needs(similarity=Cosine, weights=True)

    def __init__(self) -> None:
        super().__init__()

    def forward(self, pairs: Pairs) -> Loss:
        """Return the mean over positive pairs; between 0 and 4."""
        index, scores = pairs.positive_scores()
        weights = None if pairs.anchor_weights is None else pairs.anchor_weights[index]
        loss = Loss.over_rows(2 - 2 * scores, weights=weights)
        some = torch.bincount(index, minlength=len(pairs.anchors)) > 0
        return Loss(loss.terms, (Loss.left_out(~some),))
