"""Embeddings as a similarity's products want them, prepared once for all that is asked of a Pairs.

Shapes: A anchors, C candidates, P pairs of an anchor and a candidate.
"""

from typing import Any

import torch
from torch import Tensor

from .block import Block
from .precision import precisely
from .similarity import Similarity
from .walk import Walk

__all__ = ["Prepared"]


class Prepared:
    """A similarity, and the embeddings it has prepared so far, in float32 or float64."""

    def __init__(self, similarity: Similarity) -> None:
        self.similarity = similarity
        self._done: dict[tuple[int, bool], tuple[Tensor, Tensor]] = {}

    def anchors(self, block: Block) -> Tensor:
        """Return the block's anchors [A, E]."""
        return self._prepare(block.anchors, candidate=False)

    def candidates(self, block: Block) -> Tensor:
        """Return the block's candidates [C, E]."""
        return self._prepare(block.candidates, candidate=not self.similarity.symmetric)

    def walk(self, block: Block) -> Walk:
        """Return the general way through the block."""
        return Walk(block, self.similarity, self.anchors(block), self.candidates(block))

    def paired(self, block: Block, slots: tuple[Tensor, Tensor]) -> Tensor:
        """Return the scores of (anchor, slot) pairs, [P]."""
        anchor, slot = slots
        candidate = slot if block.index is None else block.index[anchor, slot]
        a, c = self.anchors(block), self.candidates(block)
        if not self.similarity.factors:
            parts = a[anchor], c[candidate]
            return precisely(lambda *x: (self.similarity.paired(*x),), parts, tuple(self.similarity.parameters()))[0]
        products: Tensor = _PairedProducts.apply(a, None if c is a else c, anchor, candidate)
        return self.similarity.transform(products)

    def _prepare(self, rows: Tensor, *, candidate: bool) -> Tensor:
        slot = (id(rows), candidate)
        if slot not in self._done:
            wide = rows.to(torch.promote_types(rows.dtype, torch.float32))
            if self.similarity.factors:
                prepare = self.similarity.prepare_candidates if candidate else self.similarity.prepare
                parameters = tuple(self.similarity.parameters())
                wide = precisely(lambda x: (prepare(x),), (wide,), parameters)[0] if parameters else prepare(wide)
            self._done[slot] = (rows, wide)  # the rows too: an id is reused once its object is gone
        return self._done[slot][1]


class _PairedProducts(torch.autograd.Function):
    """Products of pairs of rows, a run of pairs at a time, so that no copies of all the rows are held."""

    RUN = 4096

    @staticmethod
    def forward(ctx: Any, anchors: Tensor, candidates: Tensor | None, anchor: Tensor, candidate: Tensor) -> Tensor:
        others = anchors if candidates is None else candidates
        ctx.save_for_backward(anchors, candidates, anchor, candidate)
        products = anchors.new_empty(len(anchor))
        for start in range(0, len(anchor), _PairedProducts.RUN):
            run = slice(start, start + _PairedProducts.RUN)
            products[run] = torch.einsum("pd,pd->p", anchors[anchor[run]], others[candidate[run]])
        return products

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        anchors, candidates, anchor, candidate = ctx.saved_tensors
        others = anchors if candidates is None else candidates
        ours = torch.zeros_like(anchors) if ctx.needs_input_grad[0] else None
        theirs = ours if candidates is None else torch.zeros_like(others) if ctx.needs_input_grad[1] else None
        once = [_all_different(index, len(rows)) for index, rows in ((anchor, anchors), (candidate, others))]
        for start in range(0, len(anchor), _PairedProducts.RUN):
            run = slice(start, start + _PairedProducts.RUN)
            gradient = gradients[0][run, None]
            if ours is not None:
                _add(ours, anchor[run], others[candidate[run]] * gradient, once=once[0])
            if theirs is not None:
                _add(theirs, candidate[run], anchors[anchor[run]] * gradient, once=once[1])
        return ours, None if candidates is None else theirs, None, None


def _all_different(index: Tensor, rows: int) -> bool:
    # A card would be waited for, and adds fast anyway.
    return not index.is_cuda and len(index) <= rows and bool(torch.bincount(index, minlength=1).amax() <= 1)


def _add(total: Tensor, index: Tensor, part: Tensor, *, once: bool) -> None:
    if once:  # several times faster than index_add_
        total[index] += part
    else:
        total.index_add_(0, index, part)
