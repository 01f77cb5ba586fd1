"""Negatives that a guide finds too similar are left out.

Shapes: A anchors, C candidates, N samples, V views, G size of the guide's embeddings.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from kontrast import Encoded, InvalidValueError, Pairs, PairSampler, Rule, Wrapper, across_ranks
from kontrast.similarity import normalize

__all__ = ["GuidedNegatives"]


class GuidedNegatives(Wrapper):
    """Leave out negatives that a frozen guide finds more similar to the anchor than its positive is.

    With g the cosine of the guide's embeddings, a candidate n is no negative of anchor i if ``g_in > g_ip - margin``.
    The guide's embeddings are computed once, before training: ``kt.evaluate.embed(guide, data)``.

    Args:
        inner: whose negatives are judged. Entries of a queue are left as they are.
        guide: embeddings of all samples by id, [N, G]; or one such for each view, where views are different things
            (a question and its answer).
        margin: above, >= 0. With one table for all views g_ip is 1, and the margin alone decides.

    Raises:
        InvalidValueError: if `guide` is no table, or `margin` not >= 0.

    Source:
        Solatorio 2024 (GISTEmbed), arXiv:2402.16829, eq. 4. All comparisons here are of an anchor with its candidates;
        which pairs those are (the paper adds anchor-anchor and positive-positive) is the inner sampler's part.
    """

    def __init__(self, inner: PairSampler, guide: Tensor | Sequence[Tensor], margin: float = 0.0) -> None:
        super().__init__(inner)
        tables = [guide] if isinstance(guide, Tensor) else list(guide)
        if not tables or any(not isinstance(table, Tensor) or table.ndim != 2 for table in tables):
            raise InvalidValueError(f"`guide` must be embeddings [N, G], or one such for each view, got {guide!r}")
        if not margin >= 0:
            raise InvalidValueError(f"`margin` must be >= 0, got {margin!r}; it is how much below the positive counts")
        self.margin = margin
        self.views = len(tables)
        for view, table in enumerate(tables):
            self.register_buffer(f"guide_{view}", normalize(table.detach()), persistent=False)

    def pairs(self, encoded: Sequence[Encoded]) -> list[Pairs]:
        """Return the inner sampler's pairs with a rule on their negatives."""
        guides = []
        for view, one in enumerate(encoded):
            table: Tensor = getattr(self, f"guide_{view if self.views > 1 else 0}")
            if len(one.ids) and int(one.ids.max()) >= len(table):
                raise InvalidValueError(
                    f"the guide has embeddings of {len(table)} samples, got the id {int(one.ids.max())}; "
                    "ids are rows of its table"
                )
            guides.append(Encoded(table[one.ids], one.ids, one.copies))
        gathered = [across_ranks(guide) for guide in guides]
        copies = torch.cat([guide.copies for guide in gathered])
        rows = torch.cat([guide.rows for guide in gathered if guide.rows is not None])
        order = copies.argsort()
        return [self._guided(pairs, copies[order], rows[order]) for pairs in self.inner.pairs(encoded)]

    def _guided(self, pairs: Pairs, copies: Tensor, rows: Tensor) -> Pairs:
        def guide_of(keys: Tensor) -> Tensor:
            return rows[torch.searchsorted(copies, keys)]

        judged = [n for n, block in enumerate(pairs.blocks) if block.candidate_keys.row is not None]
        sides: dict[int, tuple[Tensor, Tensor]] = {}
        nearest = rows.new_full((len(pairs.anchors),), -torch.inf)
        for n in judged:
            block = pairs.blocks[n]
            ours, theirs = block.anchor_keys.row, block.candidate_keys.row
            if ours is None or theirs is None or block.index is not None:
                continue
            sides[n] = guide_of(ours), guide_of(theirs)
            anchor, candidate = block.positive_index()
            scores = (sides[n][0][anchor] * sides[n][1][candidate]).sum(1)
            nearest = nearest.scatter_reduce(0, anchor, scores, "amax")
        # An anchor without a positive has nothing to be measured by.
        limit = torch.where(nearest > -torch.inf, nearest - self.margin, torch.inf)
        blocks = [
            replace(block, rules=(*block.rules, Rule(_below, (sides[n][0], limit), (sides[n][1],))))
            if n in sides
            else block
            for n, block in enumerate(pairs.blocks)
        ]
        return replace(pairs, blocks=tuple(blocks))

    def extra_repr(self) -> str:
        """Show the margin."""
        return f"margin={self.margin}"


def _below(scores: Tensor, anchors: tuple[Tensor, ...], candidates: tuple[Tensor, ...]) -> Tensor:
    guide, limit = anchors
    similarity = guide @ candidates[0].transpose(-1, -2)
    return torch.where(similarity > limit[..., None], -torch.inf, 0.0)
