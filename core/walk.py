"""The general way through a block: tile by tile, any similarity, any measure, tiles made again in the backward pass.

Extra memory is one tile's, O(A + C) in all. The common case, exponentials of products, has a faster way of its own in
`exponentials`; this one takes what is left: labels, slots, rules, log-weights, networks, functions of every score.

Shapes: A anchors, C candidates (or slots), D embedding size; "..." are a tile's groups.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal

import torch
from torch import Tensor

from .block import Block
from .cache import tile_entries
from .keys import relation
from .precision import full_precision, precisely
from .similarity import Similarity
from .tiles import Tile, tiles

__all__ = ["Measure", "Scored", "Walk", "log_add", "log_sum_exp"]

Merge = Literal["count", "sum", "logsumexp"]

# Scores in a tile, by a processor's cache.
ENTRIES = {"cpu": 1 << 18}
# Blocks up to so many scores are kept for the backward pass.
KEPT = {"cpu": 1 << 19, "cuda": 1 << 24}


@dataclass(frozen=True)
class Scored:
    """A tile with its scores.

    Args:
        scores: [..., A, C].
        positive: which are positives, bool, as `relation` has it.
        negative: which are negatives.
        log_weights: added to the logits of all, [..., A, C] or fewer; None: nothing.
        rule_weights: added to those of the negatives.
        offset: one number per anchor, [..., A]; None where the measure has none.
    """

    scores: Tensor
    positive: Tensor
    negative: Tensor
    log_weights: Tensor | None
    rule_weights: Tensor | None
    offset: Tensor | None

    def counted(self) -> tuple[Tensor, Tensor]:
        """Return which pairs count as positives and which as negatives: not those of log-weight -inf."""
        positive, negative = self.positive, self.negative
        if self.log_weights is not None:
            positive = positive & (self.log_weights > -torch.inf)
        weights = self.negative_log_weights()
        return positive, negative if weights is None else negative & (weights > -torch.inf)

    def negative_log_weights(self) -> Tensor | None:
        """Return what is added to the logits of the negatives."""
        if self.log_weights is None or self.rule_weights is None:
            return self.rule_weights if self.log_weights is None else self.log_weights
        return self.log_weights + self.rule_weights


class Measure(ABC):
    """What is taken of each row of a tile, and how a row's parts from several tiles are put together."""

    @property
    @abstractmethod
    def merges(self) -> tuple[Merge, ...]:
        """How each of the measures is merged; a count has no gradient."""

    @abstractmethod
    def __call__(self, tile: Scored) -> tuple[Tensor, ...]:
        """Return the measures of the tile's rows, [..., A] each."""


@dataclass(frozen=True)
class Walk:
    """A block, what scores its tiles, and the embeddings it is scored from.

    Args:
        block: who is compared with whom.
        similarity: what scores.
        anchors: [A, E], prepared where the similarity factors.
        candidates: [C, E], likewise.
    """

    block: Block
    similarity: Similarity
    anchors: Tensor
    candidates: Tensor

    def measured(self, measure: Measure, offset: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return the measures of every row, [A] each, with gradient to embeddings, offset and the similarity."""
        entries = sum(tile.entries for tile in self.tiles)
        if self.similarity.factors and 0 < entries <= KEPT[self.anchors.device.type]:
            return precisely(partial(self._kept, measure), (self.anchors, self.candidates, offset))
        parameters = () if self.similarity.factors else tuple(self.similarity.parameters())
        result: tuple[Tensor, ...] = _Recomputed.apply(
            self, measure, self.anchors, self.candidates, offset, *parameters
        )
        return result

    def _kept(self, measure: Measure, anchors: Tensor, candidates: Tensor, offset: Tensor | None) -> tuple[Tensor, ...]:
        return replace(self, anchors=anchors, candidates=candidates).merged(measure, offset, keep=True)

    @cached_property
    def tiles(self) -> tuple[Tile, ...]:
        """The tiles, which cover every pair that may be compared."""
        # A network holds many numbers for every score.
        entries = tile_entries(self.anchors, ENTRIES) // (1 if self.similarity.factors else 64)
        return tuple(tiles(self.block, entries))

    def scored(self, tile: Tile, embeddings: tuple[Tensor, Tensor], offset: Tensor | None = None) -> Scored:
        """Return a tile with its scores."""
        anchors, candidates = embeddings
        if self.similarity.factors:
            scores = self.similarity.transform(anchors @ candidates.transpose(-1, -2))
        else:
            scores = self.similarity.scores(anchors, candidates)
        block = self.block
        ours, theirs = tile.keys(block.anchor_keys, block.candidate_keys)
        positive, negative = relation(ours, theirs)
        nothing = torch.zeros((), dtype=torch.bool, device=scores.device)
        log_weights = None
        if block.log_weights is not None:
            log_weights = tile.slots(block.log_weights).detach().to(scores.dtype)[..., None, :]
        rule_weights: Tensor | None = None
        with torch.no_grad():
            for rule in block.rules:
                parts = (
                    tuple(tile.anchors(part) for part in rule.anchors),
                    tuple(tile.candidates(part) for part in rule.candidates),
                )
                found = rule.function(scores.detach(), *parts).to(scores.dtype)
                rule_weights = found if rule_weights is None else rule_weights + found
        return Scored(
            scores,
            positive.to(scores.device) if block.positives else nothing,
            negative.to(scores.device) if block.negatives else nothing,
            log_weights,
            rule_weights,
            offset,
        )

    def measured_tile(
        self, tile: Tile, measure: Measure, embeddings: tuple[Tensor, Tensor], offset: Tensor | None
    ) -> tuple[Tensor, ...]:
        """Return the measures of a tile's rows."""
        return measure(self.scored(tile, embeddings, offset))

    def merged(self, measure: Measure, offset: Tensor | None, *, keep: bool) -> tuple[Tensor, ...]:
        """Return the measures of every row, with gradient of every tile if `keep`."""
        rows = self.anchors
        totals = [
            torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
            if merge == "count"
            else rows.new_full((len(rows),), -torch.inf if merge == "logsumexp" else 0.0)
            for merge in measure.merges
        ]
        for tile in self.tiles:
            embeddings = tile.anchors(self.anchors), tile.candidates(self.candidates)
            measures = self.measured_tile(tile, measure, embeddings, tile_offset(tile, offset))
            for n, (merge, part) in enumerate(zip(measure.merges, measures, strict=True)):
                before = tile.anchors(totals[n])
                if keep:  # autograd wants the value as it was
                    totals[n] = totals[n].clone()
                tile.put(totals[n], log_add(before, part) if merge == "logsumexp" else before + part)
        return tuple(totals)


class _Recomputed(torch.autograd.Function):
    """Measures of every row, whose backward pass scores each tile once more."""

    @staticmethod
    def forward(
        ctx: Any, walk: Walk, measure: Measure, anchors: Tensor, candidates: Tensor, offset: Tensor | None, *_: Tensor
    ) -> tuple[Tensor, ...]:
        totals = walk.merged(measure, offset, keep=False)
        ctx.walk, ctx.measure = walk, measure
        ctx.save_for_backward(anchors, candidates, offset, *totals)
        ctx.mark_non_differentiable(*(t for t, merge in zip(totals, measure.merges, strict=True) if merge == "count"))
        return totals

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        with full_precision(ctx.walk.anchors):
            return _Recomputed._slopes(ctx, gradients)

    @staticmethod
    def _slopes(ctx: Any, gradients: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
        walk: Walk = ctx.walk
        measure: Measure = ctx.measure
        anchors, candidates, offset, *totals = ctx.saved_tensors
        wanted = ctx.needs_input_grad[2:]
        parameters = [] if walk.similarity.factors else list(walk.similarity.parameters())
        results = [
            torch.zeros_like(tensor) if want else None
            for tensor, want in zip((anchors, candidates, offset, *parameters), wanted, strict=True)
        ]
        for tile in walk.tiles:
            read = (tile.anchors(anchors), tile.candidates(candidates), tile_offset(tile, offset))
            leaves = [
                None if tensor is None else tensor.detach().requires_grad_(want)
                for tensor, want in zip(read, wanted, strict=False)
            ]
            with torch.enable_grad():
                assert leaves[0] is not None
                assert leaves[1] is not None
                parts = walk.measured_tile(tile, measure, (leaves[0], leaves[1]), leaves[2])
            outputs, upstream = [], []
            for merge, part, total, gradient in zip(measure.merges, parts, totals, gradients, strict=True):
                if merge == "count" or not part.requires_grad:
                    continue
                outputs.append(part)
                share = tile.anchors(gradient)
                if merge == "logsumexp":  # d total / d part, at most 1
                    whole = tile.anchors(total)
                    share = torch.where(whole > -torch.inf, share * (part.detach() - whole).exp(), 0.0)
                upstream.append(share)
            inputs = [leaf for leaf in (*leaves, *parameters) if leaf is not None and leaf.requires_grad]
            found = iter(_gradients(outputs, inputs, upstream))
            adders = (tile.add_anchors, tile.add_candidates, _add_offset(tile))
            for n, result in enumerate(results):
                leaf = leaves[n] if n < len(leaves) else parameters[n - len(leaves)]
                if leaf is None or not leaf.requires_grad:
                    continue
                part = next(found)
                if result is not None and part is not None:
                    adders[n](result, part) if n < len(adders) else result.add_(part)
        return (None, None, *results)


def _gradients(outputs: Sequence[Tensor], inputs: Sequence[Tensor], upstream: Sequence[Tensor]) -> Sequence[Any]:
    if not outputs:
        return [None] * len(inputs)
    return torch.autograd.grad(outputs, inputs, upstream, allow_unused=True)


def tile_offset(tile: Tile, offset: Tensor | None) -> Tensor | None:
    """Return a tile's part of a number per anchor."""
    return None if offset is None else tile.anchors(offset)


def _add_offset(tile: Tile) -> Any:
    return lambda total, part: tile.add_anchors(total[:, None], part[..., None])


def log_sum_exp(logits: Tensor, mask: Tensor) -> Tensor:
    """Return the log-sum-exp of each row's masked entries; -inf, with zero gradient, where it has none.

    Args:
        logits: [..., A, C].
        mask: bool, broadcast to the logits.
    """
    masked = torch.where(mask, logits, -torch.inf)
    if not masked.shape[-1]:
        return masked.new_full(masked.shape[:-1], -torch.inf)
    some = masked.detach().amax(-1) != -torch.inf  # not-a-number counts as something, and stays visible
    # A row of nothing (or of log-weights -inf) is made finite first: the gradient of log(0) is not a number.
    safe = torch.where(some[..., None], masked, 0.0)
    return torch.where(some, safe.logsumexp(-1), -torch.inf)


def log_add(first: Tensor, second: Tensor) -> Tensor:
    """Return log(exp(first) + exp(second)); -inf, with zero gradient, where both are -inf."""
    result: Tensor = _LogAdd.apply(first, second)
    return result


class _LogAdd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor) -> Tensor:
        total = torch.logaddexp(first, second)
        ctx.save_for_backward(first, second, total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        first, second, total = ctx.saved_tensors
        nothing = total == -torch.inf
        gradient, whole = gradients[0].masked_fill(nothing, 0.0), total.masked_fill(nothing, 0.0)
        return gradient * (first - whole).exp(), gradient * (second - whole).exp()
