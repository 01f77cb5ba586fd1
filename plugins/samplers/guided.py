"""Negatives that a guide finds too similar are left out.

Shapes: A anchors, C candidates, M rows of a view, N samples, G size of the guide's embeddings.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from kontrast import (
    Elements,
    Encoded,
    HardestNegatives,
    IncompatibleError,
    InvalidValueError,
    Pairs,
    PairSampler,
    Rule,
    SemiHardNegatives,
    Wrapper,
    across_ranks,
)
from kontrast.similarity import normalize

__all__ = ["GuidedNegatives"]


class GuidedNegatives(Wrapper):
    """Leave out negatives that a frozen guide finds more similar to the anchor than its positive is.

    With g the cosine of the guide's embeddings, a candidate n is no negative of anchor i if ``g_in > g_ip - margin``;
    of several positives the most similar one counts. The guide runs along on the same inputs (`WithGuide`), or its
    embeddings are computed once, before training: ``kt.evaluate.embed(guide, data)``.

    Args:
        inner: whose negatives are judged. Entries of a queue are left as they are.
        guide: the name of the stream in which the encoder gives the guide's embeddings; or those of all samples by id,
            [N, G]; or one such for each view, where views are different things (a question and its answer).
        margin: above, >= 0. With one table for all views g_ip is 1, and the margin alone decides.

    Raises:
        InvalidValueError: if `guide` is neither, or not finite, or `margin` not >= 0.
        IncompatibleError: if `inner` compares something else than the batch's samples, or has chosen negatives already.

    Source:
        Solatorio 2024 (GISTEmbed), arXiv:2402.16829, eq. 4. All comparisons here are of an anchor with its candidates;
        which pairs those are (the paper adds anchor-anchor and positive-positive) is the inner sampler's part.
    """

    def __init__(self, inner: PairSampler, guide: str | Tensor | Sequence[Tensor], margin: float = 0.0) -> None:
        super().__init__(inner)
        for part in self.inside():
            name = type(part).__name__
            if isinstance(part, (HardestNegatives, SemiHardNegatives)):
                raise IncompatibleError(
                    f"GuidedNegatives judges negatives before they are chosen; write {name}(GuidedNegatives(...))"
                )
            if isinstance(part, Elements) or not part.gives.own_rows:
                raise IncompatibleError(
                    f"a guide judges the samples of the batch, and {name} compares something else; take it around "
                    "InBatch"
                )
        self.stream = guide if isinstance(guide, str) else ""
        tables = [] if isinstance(guide, str) else [guide] if isinstance(guide, Tensor) else list(guide)
        if any(not isinstance(table, Tensor) or table.ndim != 2 for table in tables) or not (tables or self.stream):
            raise InvalidValueError(
                f"`guide` must be the name of a stream, embeddings [N, G], or one such for each view, got {guide!r}"
            )
        if not all(bool(table.isfinite().all()) for table in tables):
            raise InvalidValueError("the embeddings of a `guide` must be finite, got nan or inf among them")
        if not margin >= 0:
            raise InvalidValueError(f"`margin` must be >= 0, got {margin!r}; it is how much below the positive counts")
        self.margin = margin
        self.tables = len(tables)
        for view, table in enumerate(tables):
            self.register_buffer(f"guide_{view}", normalize(table.detach()), persistent=False)

    def pairs(self, encoded: Sequence[Encoded]) -> list[Pairs]:
        """Return the inner sampler's pairs with a rule on their negatives."""
        read = {view for side in self.reads(len(encoded)) for view in side}
        gathered = [across_ranks(self._guide(encoded, view)) for view in sorted(read)]
        copies = torch.cat([guide.copies for guide in gathered])
        rows = torch.cat([guide.rows for guide in gathered if guide.rows is not None])
        order = copies.argsort()
        return [self._guided(pairs, copies[order], rows[order]) for pairs in self.inner.pairs(encoded)]

    def _guide(self, encoded: Sequence[Encoded], number: int) -> Encoded:
        """Return the guide's embeddings of a view, of length 1."""
        view = encoded[number]
        if self.stream:
            # A view that is encoded for its target alone has the guide's embeddings beside that.
            found = view.streams.get(self.stream) or view.stream("target").streams.get(self.stream)
            if found is None or found.rows is None or len(found.rows) != len(view.ids):
                known = sorted({name for one in encoded for name in one.streams})
                raise IncompatibleError(
                    f"the guide's embeddings are read from the stream `{self.stream}`, one per row of the view, and "
                    f"the encodings have {known}; wrap the encoder in WithGuide, without joint_forward"
                )
            return Encoded(normalize(found.rows.detach()), view.ids, view.copies)
        if self.tables > 1 and number >= self.tables:
            raise IncompatibleError(f"the guide has tables for {self.tables} views, and there are {len(encoded)}")
        table: Tensor = getattr(self, f"guide_{number if self.tables > 1 else 0}")
        if len(view.ids) and int(view.ids.max()) >= len(table):
            raise InvalidValueError(
                f"the guide has embeddings of {len(table)} samples, got the id {int(view.ids.max())}; "
                "ids are rows of its table"
            )
        return Encoded(table[view.ids], view.ids, view.copies)

    def _guided(self, pairs: Pairs, copies: Tensor, rows: Tensor) -> Pairs:
        def guide_of(keys: Tensor) -> Tensor:
            at = torch.searchsorted(copies, keys).clamp(max=len(copies) - 1)
            if not torch.equal(copies[at], keys):
                raise IncompatibleError(
                    f"a guide judges the rows of the batch, and {type(self.inner).__name__} compares others"
                )
            return rows[at]

        sides: dict[int, tuple[Tensor, Tensor]] = {}
        nearest = rows.new_full((len(pairs.anchors),), -torch.inf)
        for n, block in enumerate(pairs.blocks):
            ours, theirs = block.anchor_keys.row, block.candidate_keys.row
            if ours is None or theirs is None or block.index is not None:  # a queue's entries
                continue
            sides[n] = guide_of(ours), guide_of(theirs)
            anchor, candidate = block.positive_index()
            scores = (sides[n][0][anchor] * sides[n][1][candidate]).sum(1)
            nearest = nearest.scatter_reduce(0, anchor, scores, "amax")
        if not sides:
            raise IncompatibleError(
                f"a guide judges rows by their row keys, and the pairs of {type(self.inner).__name__} have none; make "
                "them with Pairs.between"
            )
        # An anchor without a positive has nothing to be measured by.
        limit = torch.where(nearest > -torch.inf, nearest - self.margin, torch.inf)
        blocks = [
            replace(block, rules=(*block.rules, Rule(_below, (sides[n][0], limit), (sides[n][1],))))
            if n in sides
            else block
            for n, block in enumerate(pairs.blocks)
        ]
        return replace(pairs, blocks=tuple(blocks))


def _below(scores: Tensor, anchors: tuple[Tensor, ...], candidates: tuple[Tensor, ...]) -> Tensor:
    guide, limit = anchors
    similarity = guide @ candidates[0].transpose(-1, -2)
    return torch.where(similarity > limit[..., None], -torch.inf, 0.0)
