"""What is near an element counts as like it; what is far is unlabelled.

Shapes: A anchors of this rank, K others of each.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from kontrast import Block, Cosine, Encoded, Gives, IncompatibleError, Keys, Pairs, PairSampler

__all__ = ["Neighborhood"]


class Neighborhood(PairSampler):
    """Three views of each sample: one part of it, parts near that one (positives), and parts far away (negatives).

    The parts of the second and the third view are compared with the first view's part of their own sample alone; there
    are as many of them for each sample.

    Source:
        Tonekaboni et al. 2021, arXiv:2106.00750, section 3.
    """

    @property
    def gives(self) -> Gives:
        """Negatives, from one sample on; of three views."""
        return Gives(views=3, own_rows=False)

    def reads(self, num_views: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the first view as anchors, the others as candidates."""
        return (0,), tuple(range(1, num_views))

    def pairs(self, encoded: Sequence[Encoded]) -> list[Pairs]:
        """Return the comparisons, of this rank's samples with themselves."""
        if len(encoded) != 3:
            raise IncompatibleError(
                f"Neighborhood takes three views, a part of each sample, parts near and parts far, got {len(encoded)}"
            )
        anchors, near, far = encoded
        similarity = Cosine() if anchors.similarity is None else anchors.similarity
        return [Pairs((_block(anchors, near, positive=True), _block(anchors, far, positive=False)), similarity)]


def _block(anchors: Encoded, others: Encoded, *, positive: bool) -> Block:
    """Return each anchor against the others of its own sample."""
    if anchors.rows is None or others.rows is None:
        raise IncompatibleError("Neighborhood compares pooled rows [M, D], and an encoding here has none")
    index = _own(anchors.ids, others.ids)
    match = others.ids[index] if positive else torch.full_like(index, -1)
    return Block(anchors.rows, others.rows, Keys(match=anchors.ids), Keys(match=match), index=index)


def _own(ids: Tensor, others: Tensor) -> Tensor:
    """Return where in the others each sample's are, int64 [A, K]."""
    each = len(others) // max(1, len(ids))
    order = others.argsort(stable=True)
    start = torch.searchsorted(others[order], ids)
    index = order[(start[:, None] + torch.arange(each, device=ids.device)).clamp(max=max(0, len(others) - 1))]
    if each * len(ids) != len(others) or not (others[index] == ids[:, None]).all():
        raise IncompatibleError(
            "Neighborhood takes views with as many rows of each sample, and a sample here has more or fewer than others"
        )
    return index
