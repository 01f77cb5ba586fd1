"""The two further terms of a recommender's loss.

Shapes: A anchors, C candidates, D embedding size.
"""

import torch

import kontrast as kt
from kontrast.plugins.objectives import SoftTriplet

__all__ = ["BPR", "SquaredLength"]


class BPR(SoftTriplet):
    """Bayesian personalised ranking: an item that the user chose scores above one that it did not.

    The mean over all triplets of an anchor i, a positive p and a negative n::

        loss = -log sigmoid(s_ip - s_in),   s = the method's similarity, a dot product in the papers

    Source:
        Rendle et al. 2009, arXiv:1205.2618, section 4.1; a soft triplet loss under an earlier name. Their sum over
        triplets is a mean here; the lengths that they add are `SquaredLength`.
    """


class SquaredLength(kt.Objective):
    """Half the squared length of the anchors, |a|^2 / 2, whatever they are compared with.

    Source:
        The L2 term of LightGCN, arXiv:2002.02126, eq. 15, on the rows that a batch looks up, as in its code.
    """

    def forward(self, pairs: kt.Pairs) -> kt.Loss:
        """Return the mean over anchors.

        Args:
            pairs: anchors [A, D]; the candidates are not read.
        """
        anchors = pairs.anchors
        anchors = anchors.to(torch.promote_types(anchors.dtype, torch.float32))  # half-precision squares are coarse
        return kt.Loss.over_rows(anchors.square().sum(1) / 2)
