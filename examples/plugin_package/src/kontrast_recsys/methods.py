"""LightGCN, SGL and CLRec."""

import kontrast as kt
from kontrast.plugins.objectives import InfoNCE
from kontrast_recsys.objectives import BPR, NodeInfoNCE
from kontrast_recsys.samplers import AllEntities, Clicks, Ranking

__all__ = ["clrec", "lightgcn", "sgl"]


def lightgcn(encoder: kt.Encoder) -> kt.Method:
    """Return LightGCN's training: BPR on dot products, beside the encoder's own term on lengths.

    Args:
        encoder: a `LightGCN`.

    Source:
        He et al. 2020, arXiv:2002.02126, eq. 15. Sums over a batch are means here, all over the same number of samples:
        the paper's loss divided by the batch size, which Adam does not see.
    """
    return kt.Method(encoder=encoder, sampler=Ranking(), objective=BPR(), similarity=kt.Dot())


def sgl(encoder: kt.Encoder, *, temperature: float = 0.2, contrast_weight: float = 0.1) -> kt.Method:
    """Return SGL with edge dropping: LightGCN, and two graphs that lack edges agree on every user and item.

    Args:
        encoder: a `LightGCN`.
        temperature: of the contrast, dimensionless.
        contrast_weight: of the contrast of users, and of that of items.

    Source:
        Wu et al. 2021, arXiv:2010.10783, eq. 10 to 12. Sums over a batch are means here, of all four terms over the
        same number of samples B, so the loss is the authors' divided by B; the weights are theirs. The denominator
        holds all users, or all items, the anchor's own copy included.
    """
    contrast = NodeInfoNCE(temperature)
    return kt.Method(
        encoder=encoder,
        sampler=AllEntities(Ranking(), contrast_weight),
        objective={"ranking": BPR(), "all-users": contrast, "all-items": contrast},
        similarity=kt.Dot(),
    )


def clrec(encoder: kt.Encoder, *, temperature: float = 0.07, queue_size: int = 2560) -> kt.Method:
    """Return CLRec: a user finds the item it chose among those that were chosen lately, whose embeddings are of now.

    A queue of item numbers meets popular items as often as they are chosen, which takes popularity out of the scores.

    Args:
        encoder: a `LightGCN`; the paper has no propagation, `num_layers=0`, and no term on lengths, `l2=0`.
        temperature: of the contrast, dimensionless.
        queue_size: items kept.

    Source:
        Zhou et al. 2021, arXiv:2005.12964, section 3.2. The queue starts empty, not with random items; the user's side
        is an embedding, not a network over the user's history.
    """
    sampler = kt.IdQueue(Clicks(), "all-items", size=queue_size)
    return kt.Method(encoder=encoder, sampler=sampler, objective=InfoNCE(temperature))
