"""Nearest neighbours as positives (NNCLR).

Shapes: M rows of a view, K entries of the support set, D embedding size.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from kontrast import (
    Block,
    Cosine,
    Encoded,
    Gives,
    InBatch,
    IncompatibleError,
    Keys,
    Pairs,
    PairSampler,
    Queue,
    across_ranks,
    top_negatives,
)

__all__ = ["NearestNeighbors"]


class NearestNeighbors(PairSampler):
    """The positive of a sample is its nearest neighbour among past embeddings, in place of its own other view.

    For each ordered couple of views: the anchors are the neighbours of the first view's projections, without gradient;
    the candidates the second view's predictions, of all processes. The neighbour of sample i has i's prediction as its
    positive and the others' as negatives. Entries of sample i itself are never its neighbours. Until the support set
    holds another sample, the projection stands for its neighbour.

    Args:
        size: of the support set, which takes the projections of all views of past batches, >= 1; 98,304 in the paper.

    Raises:
        InvalidValueError: if `size` is not >= 1.

    Source:
        Dwibedi et al. 2021, arXiv:2104.14548, eq. 2 and 3. The support set starts empty, not random; it takes both
        views, where the paper's pseudo-code takes the first; and a sample's own old embeddings are left out: with a set
        as large as the data they would be the nearest.
    """

    # What stands for a sample is an embedding of another one.
    expected_failures: ClassVar = dict.fromkeys(
        ("positives-match", "no-old-copy-among-negatives", "anchors-stay-local"),
        "the anchor is a sample's neighbour, an old embedding of another sample",
    )

    def __init__(self, size: int = 65536) -> None:
        super().__init__()
        self.support = Queue(InBatch("cross"), size=size)

    @property
    def gives(self) -> Gives:
        """Negatives from two samples on."""
        return Gives(min_batch=2, own_rows=False)

    def pairs(self, encoded: Sequence[Encoded]) -> list[Pairs]:
        """Return neighbours against predictions, for each ordered couple of views."""
        if len(encoded) < 2:
            raise IncompatibleError(
                f"NearestNeighbors pairs views of the same samples, and there is {len(encoded)}; "
                "take an augmenter that makes two or more"
            )
        neighbors = [
            self.neighbors(replace(view.stream("target").detach(), similarity=view.similarity)) for view in encoded
        ]
        predictions = [across_ranks(view) for view in encoded]
        couples = [(i, j) for i in range(len(encoded)) for j in range(len(encoded)) if i != j]
        return [self._between(neighbors[i], predictions[j], 1 / len(couples)) for i, j in couples]

    @torch.no_grad()
    def neighbors(self, view: Encoded) -> Encoded:
        """Return the view with each row [M, D] replaced by its nearest neighbour in the support set."""
        assert view.rows is not None
        entries = self.support.rows[: self.support.fill].to(view.rows.dtype)
        if not len(entries):
            return view
        ids = self.support.keys[: self.support.fill, 0]
        block = Block(view.rows, entries, Keys(alias=view.ids), Keys(alias=ids))
        similarity = Cosine() if view.similarity is None else view.similarity
        nearest = top_negatives(Pairs((block,), similarity), 1).slot[:, 0]
        found: Tensor = entries[nearest.clamp(min=0)]
        return replace(view, rows=torch.where((nearest >= 0)[:, None], found, view.rows))

    def _between(self, neighbors: Encoded, predictions: Encoded, weight: float) -> Pairs:
        assert neighbors.rows is not None
        assert predictions.rows is not None
        block = Block(neighbors.rows, predictions.rows, Keys(match=neighbors.ids), Keys(match=predictions.ids))
        similarity = Cosine() if neighbors.similarity is None else neighbors.similarity
        return Pairs((block,), similarity, weight=weight, rows=neighbors)
