"""LightGCN, SGL and CLRec."""

import kontrast as kt
from kontrast.plugins.objectives import InfoNCE
from kontrast_recsys.objectives import BPR, SquaredLength
from kontrast_recsys.samplers import AllEntities, Clicks, InitialItems, Ranking

__all__ = ["clrec", "lightgcn", "sgl"]


def lightgcn(encoder: kt.Encoder, *, l2: float = 1e-4) -> kt.Method:
    """Return LightGCN's training: BPR on dot products, and the lengths of the rows looked up.

    Args:
        encoder: a `LightGCN`.
        l2: weight of the squared lengths.

    Source:
        He et al. 2020, arXiv:2002.02126, eq. 15. Sums over a batch are means here, all over the same number of samples:
        the paper's loss divided by the batch size, which Adam does not see.
    """
    return kt.Method(
        encoder=encoder,
        sampler=Ranking(l2),
        objective={"ranking": BPR(), "lengths": SquaredLength()},
        similarity=kt.Dot(),
    )


def sgl(encoder: kt.Encoder, *, temperature: float = 0.2, contrast_weight: float = 0.1, l2: float = 1e-4) -> kt.Method:
    """Return SGL with edge dropping: LightGCN, and two graphs that lack edges agree on every user and item.

    Args:
        encoder: a `LightGCN`.
        temperature: of the contrast, dimensionless.
        contrast_weight: of the contrast of users, and of that of items.
        l2: weight of the squared lengths.

    Source:
        Wu et al. 2021, arXiv:2010.10783, eq. 10 to 12. Sums over a batch are means here, of all four terms over the
        same number of samples B, so the loss is the authors' divided by B; the weights are theirs. The denominator
        holds all users, or all items, the anchor's own copy included.
    """
    return kt.Method(
        encoder=encoder,
        sampler=AllEntities(Ranking(l2), contrast_weight),
        objective={
            "ranking": BPR(),
            "lengths": SquaredLength(),
            "all-users": InfoNCE(temperature),
            "all-items": InfoNCE(temperature),
        },
        similarity=kt.Dot(),
    )


def clrec(encoder: kt.Encoder, *, temperature: float = 0.07, queue_size: int = 2560) -> kt.Method:
    """Return CLRec: a user finds the item it chose among those that were chosen lately, whose embeddings are of now.

    A queue of item numbers meets popular items as often as they are chosen, which takes popularity out of the scores.

    Args:
        encoder: a `LightGCN` without layers (`num_layers=0`): a table of users and one of items.
        temperature: of the contrast, dimensionless.
        queue_size: items kept.

    Source:
        Zhou et al. 2021, arXiv:2005.12964, section 3.2. The queue starts empty, not with random items; the user's side
        is an embedding, not a network over the user's history.
    """
    return kt.Method(
        encoder=encoder,
        sampler=kt.IdQueue(Clicks(), InitialItems(encoder), size=queue_size),
        objective=InfoNCE(temperature),
    )
