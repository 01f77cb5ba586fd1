"""The two terms of a recommender's loss.

Shapes: A anchors, C candidates, D embedding size.
"""

from dataclasses import replace

import torch
from torch.nn.functional import softplus

import kontrast as kt
from kontrast.plugins.objectives import InfoNCE, SoftTriplet

__all__ = ["BPR", "NodeInfoNCE"]


class BPR(SoftTriplet):
    """Bayesian personalised ranking: an item that the user chose scores above one that it did not.

    The mean over all triplets of an anchor i, a positive p and a negative n::

        loss = -log sigmoid(s_ip - s_in),   s = the method's similarity, a dot product in the papers

    Source:
        Rendle et al. 2009, arXiv:1205.2618, section 4.1; a soft triplet loss under an earlier name. Their sum over
        triplets is a mean here; the lengths that they add are LightGCN's own term.
    """


class NodeInfoNCE(InfoNCE):
    """`InfoNCE` of nodes: one that is an anchor several times is compared once and counted as often.

    The value and the gradient are InfoNCE's, for as much work as there are different nodes.

    Args:
        temperature: as of InfoNCE.
    """

    def forward(self, pairs: kt.Pairs) -> kt.Loss:
        """Return the mean over anchors, in nats.

        Args:
            pairs: one block, anchors [A, D] against candidates [C, D]; anchors of one match key are one embedding, and
                each has one positive.
        """
        (block,) = pairs.blocks
        match = block.anchor_keys.match
        assert match is not None
        nodes, node = torch.unique(match, return_inverse=True)
        one = torch.empty_like(nodes).scatter_(0, node, torch.arange(len(node), device=node.device))
        once = replace(block, anchors=block.anchors[one], anchor_keys=block.anchor_keys.map(lambda key: key[one]))
        rows = kt.row_statistics(replace(pairs, blocks=(once,), rows=None), temperature=self.temperature)
        return kt.Loss.over_rows(softplus(rows.negative_logsumexp - rows.positive_mean)[node])
