"""Who is compared with whom among users and items. All read the streams of `LightGCN.encode`.

Shapes: B samples, U users, I items, D embedding size.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

import kontrast as kt

__all__ = ["AllEntities", "Clicks", "Ranking"]


class Ranking(kt.PairSampler):
    """Each user of the batch against the item that it chose and the one that was drawn.

    View 0 alone is read, and nothing is gathered: a sample's items are on its process.
    """

    def reads(self, num_views: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return view 0."""
        return (0,), (0,)

    def pairs(self, encoded: Sequence[kt.Encoded]) -> list[kt.Pairs]:
        """Return one Pairs, `ranking`: one positive and one negative for each sample.

        Raises:
            IncompatibleError: if no negatives were drawn.
        """
        view = encoded[0]
        (users, _), (positives, chosen) = _rows(view), _rows(_stream(view, "positives"))
        negatives, drawn = _rows(_stream(view, "negatives"))
        own = torch.arange(len(users), device=users.device)
        block = kt.Block(
            users,
            torch.cat([positives, negatives]),
            kt.Keys(match=chosen),
            kt.Keys(match=torch.stack([chosen, drawn], dim=1)),
            index=torch.stack([own, own + len(own)], dim=1),
        )
        return [kt.Pairs((block,), name="ranking")]


class AllEntities(kt.Wrapper):
    """Add the contrast of two graphs: a node of view 1 against all nodes of its kind in view 2.

    Makes two further Pairs, `all-users` and `all-items`: the batch's users, or chosen items, of one graph against all
    users, or all items, of the other; a node's other copy is its positive. All nodes are embedded on every process, so
    nothing is gathered. The rows are scaled to length 1 here, and the method's similarity, the dot product that `inner`
    wants, is then their cosine.

    Args:
        inner: the sampler whose pairs are added to.
        weight: of each of the two, > 0.

    Raises:
        InvalidValueError: if `weight` is not > 0.

    Source:
        Wu et al. 2021, arXiv:2010.10783, eq. 10; as in the authors' code a node is an anchor as often as it is in the
        batch.
    """

    def __init__(self, inner: kt.PairSampler, weight: float = 0.1) -> None:
        super().__init__(inner)
        if not weight > 0:
            raise kt.InvalidValueError(f"`weight` must be > 0, got {weight!r}; leave AllEntities out instead")
        self.weight = weight

    def reads(self, num_views: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return what the inner sampler reads, and views 1 and 2."""
        anchors, candidates = self.inner.reads(num_views)
        return tuple(sorted({*anchors, 1})), tuple(sorted({*candidates, 2}))

    def pairs(self, encoded: Sequence[kt.Encoded]) -> list[kt.Pairs]:
        """Return the inner sampler's pairs, and the two of the contrast.

        Raises:
            IncompatibleError: if there are fewer than three views.
        """
        found = self.inner.pairs(encoded)
        if len(encoded) < 3:
            raise kt.IncompatibleError(
                f"AllEntities contrasts views 1 and 2, two graphs, and there are {len(encoded)} views; take SGLViews"
            )
        first, second = encoded[1], encoded[2]
        for name, anchors in (
            ("users", replace(first, ids=first.key("groups"), streams={})),
            ("items", _stream(first, "positives")),
        ):
            table = _unit(_stream(second, f"all-{name}"))
            found.append(kt.Pairs.between(_unit(anchors), table, name=f"all-{name}", weight=self.weight))
        return found


class Clicks(kt.PairSampler):
    """Each user of the batch against the items that the batch's users chose; the same item is a positive.

    What is compared, and so what a queue around it keeps, goes by the number of the item: `IdQueue(Clicks(), ...)`
    remembers items, and `IdQueue(Clicks(), "all-items")` meets them as they are now. View 0 alone is read.
    """

    @property
    def gives(self) -> kt.Gives:
        """Negatives from two samples on."""
        return kt.Gives(min_batch=2)

    def reads(self, num_views: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return view 0."""
        return (0,), (0,)

    def compared(self, encoded: Sequence[kt.Encoded]) -> list[kt.Encoded]:
        """Return the chosen items."""
        return [_stream(encoded[0], "positives")]

    def pairs(self, encoded: Sequence[kt.Encoded]) -> list[kt.Pairs]:
        """Return one Pairs: this process's users, under the numbers of their items, against the items of all."""
        (items,) = self.compared(encoded)
        users = replace(encoded[0], ids=items.ids, streams={})
        return [kt.Pairs.between(users, kt.across_ranks(items))]


def _stream(encoded: kt.Encoded, name: str) -> kt.Encoded:
    if name not in encoded.streams:
        raise kt.IncompatibleError(
            f"this sampler reads the stream `{name}`, and there are {sorted(encoded.streams)}; take the encoder "
            "LightGCN and the augmenter SGLViews"
        )
    return encoded.streams[name]


def _rows(encoded: kt.Encoded) -> tuple[Tensor, Tensor]:
    """Return the rows, which must be there, and their ids."""
    if encoded.rows is None:
        raise kt.IncompatibleError("this sampler compares pooled rows [B, D], and an encoding here has none")
    return encoded.rows, encoded.ids


def _unit(encoded: kt.Encoded) -> kt.Encoded:
    return replace(encoded, rows=normalize(_rows(encoded)[0]))
