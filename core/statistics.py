"""Row statistics: the few numbers per anchor that all objectives on pairs reduce to.

Shapes: A anchors, C candidates of a block (or slots, with an index), P positive pairs, k entries of a row.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from .block import Block
from .errors import IncompatibleError, InvalidValueError
from .exponentials import Exponentials, exceptions
from .pairs import Pairs
from .reweighting import reweighted
from .similarity import Similarity
from .walk import Measure, Merge, Scored, Walk, log_add, log_sum_exp

__all__ = ["RowStatistics", "row_statistics", "row_sums"]


@dataclass(frozen=True)
class RowStatistics:
    """What one anchor's positives and negatives amount to; logits are similarity / temperature (+ log-weight).

    Args:
        positive_count: [A].
        negative_count: [A].
        positive_mean: mean logit of the positives, [A]; 0 where there are none.
        positive_logsumexp: log of the sum of exp(logit) over the positives, [A]; -inf where there are none.
        negative_logsumexp: the same over the negatives; where the sampler asks for it, of the hard or debiased estimate
            of that sum.
    """

    positive_count: Tensor
    negative_count: Tensor
    positive_mean: Tensor
    positive_logsumexp: Tensor
    negative_logsumexp: Tensor

    @property
    def logsumexp(self) -> Tensor:
        """Log of the sum of exp(logit) over everything compared, [A]."""
        return log_add(self.positive_logsumexp, self.negative_logsumexp)


def row_statistics(pairs: Pairs, *, temperature: float = 1.0) -> RowStatistics:
    """Return the statistics of every anchor, merged over the blocks, with gradient.

    Memory O(A + C) beside the embeddings. Half-precision embeddings are compared in float32, float64 ones in float64,
    whatever autocast says. An anchor of zero length has zero gradient under a cosine.

    Args:
        pairs: A anchors.
        temperature: what similarities are divided by, > 0.

    Raises:
        InvalidValueError: if `temperature` is not > 0.
        IncompatibleError: if a positive prior comes with a similarity without a bound.
    """
    if not 0 < temperature < math.inf:
        raise InvalidValueError(f"`temperature` must be > 0, got {temperature!r}")
    hardness = float(pairs.hardness)
    powers = (1 + hardness, hardness) if hardness else (1.0,)
    with torch.autocast(pairs.anchors.device.type, enabled=False):
        prepared = _Prepared(pairs.similarity)
        blocks = [_block(block, pairs, prepared, 1 / temperature, powers) for block in pairs.blocks]
        total = blocks[0]
        for other in blocks[1:]:
            total = total + other
        count = total.positive_count
        return RowStatistics(
            positive_count=count,
            negative_count=total.negative_count,
            positive_mean=total.positive_sum / count.clamp(min=1),
            positive_logsumexp=total.positive_logsumexp,
            negative_logsumexp=reweighted(
                pairs, list(total.negative), total.weight, total.positive_logsumexp, count, 1 / temperature
            ),
        )


def row_sums(
    pairs: Pairs,
    function: Callable[[Tensor], Tensor],
    *,
    of: Literal["positive", "negative"],
    temperature: float = 1.0,
    offset: Tensor | None = None,
) -> Tensor:
    """Return for every anchor the sum of ``function(logit - offset)`` over its positives or its negatives, [A].

    For losses that are a sum over pairs: SigLIP's softplus, a margin's hinge, a positive against all negatives. Tiles
    are scored once more in the backward pass; memory O(A + C).

    Args:
        pairs: A anchors; log-weights multiply what they belong to by their exponential.
        function: of a tensor entry by entry, differentiable and finite; it has no parameters.
        of: which of the pairs are summed over.
        temperature: what similarities are divided by, > 0.
        offset: one number per anchor [A], with gradient.

    Raises:
        InvalidValueError: if an argument breaks its rule.
        IncompatibleError: if the sampler asks for hard or debiased negatives, which are no sum over pairs.
    """
    if not 0 < temperature < math.inf:
        raise InvalidValueError(f"`temperature` must be > 0, got {temperature!r}")
    if of not in ("positive", "negative"):
        raise InvalidValueError(f"`of` must be positive or negative, got {of!r}")
    if of == "negative" and (pairs.hardness or pairs.positive_prior):
        raise IncompatibleError(
            "a sum over negatives one by one cannot take hardness or a positive prior, which change their log-sum-exp; "
            "take a softmax-type objective such as InfoNCE, or leave HardNegatives and Debiased out"
        )
    measure = _Sums(function, of, 1 / temperature)
    total: Tensor | None = None
    with torch.autocast(pairs.anchors.device.type, enabled=False):
        prepared = _Prepared(pairs.similarity)
        wide = torch.promote_types(pairs.anchors.dtype, torch.float32)
        offset = None if offset is None else offset.to(wide)
        for block in pairs.blocks:
            if not (block.positives if of == "positive" else block.negatives):
                continue
            slots = _sparse_positives(block) if of == "positive" else None
            if slots is None:
                (part,) = prepared.walk(block).measured(measure, offset)
            else:
                logits = prepared.paired(block, slots) / temperature
                values = function(logits if offset is None else logits - offset[slots[0]])
                part = values.new_zeros(len(block.anchors)).index_add(0, slots[0], values)
            total = part if total is None else total + part
    return torch.zeros(len(pairs.anchors), dtype=wide, device=pairs.anchors.device) if total is None else total


@dataclass(frozen=True)
class _BlockStatistics:
    """A block's part of the statistics; `weight` is the log of the sum of the negatives' weights."""

    positive_count: Tensor
    negative_count: Tensor
    positive_sum: Tensor
    positive_logsumexp: Tensor
    negative: tuple[Tensor, ...]
    weight: Tensor

    def __add__(self, other: "_BlockStatistics") -> "_BlockStatistics":
        return _BlockStatistics(
            self.positive_count + other.positive_count,
            self.negative_count + other.negative_count,
            self.positive_sum + other.positive_sum,
            log_add(self.positive_logsumexp, other.positive_logsumexp),
            tuple(log_add(a, b) for a, b in zip(self.negative, other.negative, strict=True)),
            log_add(self.weight, other.weight),
        )


class _Prepared:
    """Embeddings as a similarity's products want them, each tensor prepared once."""

    def __init__(self, similarity: Similarity) -> None:
        self.similarity = similarity
        self._done: dict[tuple[int, bool], tuple[Tensor, Tensor]] = {}

    def anchors(self, block: Block) -> Tensor:
        return self._prepare(block.anchors, candidate=False)

    def candidates(self, block: Block) -> Tensor:
        return self._prepare(block.candidates, candidate=not self.similarity.symmetric)

    def walk(self, block: Block) -> Walk:
        return Walk(block, self.similarity, self.anchors(block), self.candidates(block))

    def paired(self, block: Block, slots: tuple[Tensor, Tensor]) -> Tensor:
        """Return the scores of (anchor, slot) pairs, [P]."""
        anchor, slot = slots
        candidate = slot if block.index is None else block.index[anchor, slot]
        a, c = self.anchors(block), self.candidates(block)
        if not self.similarity.factors:
            return self.similarity.paired(a[anchor], c[candidate])
        products: Tensor = _PairedProducts.apply(a, None if c is a else c, anchor, candidate)
        return self.similarity.transform(products)

    def _prepare(self, rows: Tensor, *, candidate: bool) -> Tensor:
        slot = (id(rows), candidate)
        if slot not in self._done:
            wide = rows.to(torch.promote_types(rows.dtype, torch.float32))
            if self.similarity.factors:
                prepare = self.similarity.prepare_candidates if candidate else self.similarity.prepare
                wide = prepare(wide)
            self._done[slot] = (rows, wide)  # the rows too: an id is reused once its object is gone
        return self._done[slot][1]


def _block(
    block: Block, pairs: Pairs, prepared: _Prepared, inverse_temperature: float, powers: tuple[float, ...]
) -> _BlockStatistics:
    similarity = pairs.similarity
    plain = similarity.factors and type(similarity).transform is Similarity.transform
    excepted = None
    if plain and block.index is None and block.log_weights is None and not block.rules:
        scoped = block.anchor_keys.scope is not None and block.candidate_keys.scope is not None
        excepted = None if scoped else exceptions(block)
    slots = _sparse_positives(block) if excepted is not None or not block.negatives else None
    if slots is None or (excepted is None and block.negatives):
        weighted = block.log_weights is not None or bool(block.rules)
        measure = _Logits(inverse_temperature, (*powers, 0.0) if weighted else powers)
        count, negatives, total, positive, *negative = prepared.walk(block).measured(measure)
        weight = negative.pop() if weighted else negatives.to(total.dtype).log()
        return _BlockStatistics(count, negatives, total, positive, tuple(negative), weight)
    anchor, _ = slots
    logits = prepared.paired(block, slots) * inverse_temperature
    if block.log_weights is not None:
        logits = logits + block.positive_log_weights().to(logits.dtype)
    count = torch.bincount(anchor, minlength=len(block.anchors))
    total = logits.new_zeros(len(count)).index_add(0, anchor, logits)
    positive = _scattered_log_sum_exp(logits, anchor, len(count))
    if excepted is None or not block.negatives:
        nothing = torch.full_like(total, -torch.inf)
        return _BlockStatistics(count, torch.zeros_like(count), total, positive, (nothing,) * len(powers), nothing)
    a, c = prepared.anchors(block), prepared.candidates(block)
    mirrored = block.mirrored and a is c
    bound = similarity.bound
    sums = Exponentials(
        a, None if mirrored else c, inverse_temperature, powers, excepted, bound if isinstance(bound, float) else None
    ).log_sums()
    negatives = len(c) - torch.bincount(excepted[0], minlength=len(a))
    return _BlockStatistics(count, negatives, total, positive, tuple(sums.unbind(0)), negatives.to(total.dtype).log())


def _sparse_positives(block: Block) -> tuple[Tensor, Tensor] | None:
    """Return the block's positives (anchor [P], slot [P]), or None where they are many."""
    few = 8 * (len(block.anchors) + len(block.candidates))
    if block.index is not None and block.index.numel() > few:
        return None
    if block.index is None and block.matches() > few:
        return None
    return block.positive_slots()


@dataclass(frozen=True)
class _Logits(Measure):
    """Counts, the sum and the log-sum-exp of the positives, and a log-sum-exp of the negatives for each power."""

    inverse_temperature: float
    powers: tuple[float, ...]

    @property
    def merges(self) -> tuple[Merge, ...]:
        merge: Merge = "logsumexp"
        return ("count", "count", "sum", merge, *(merge for _ in self.powers))

    def __call__(self, tile: Scored) -> tuple[Tensor, ...]:
        logits = tile.scores * self.inverse_temperature
        weighted = logits if tile.log_weights is None else logits + tile.log_weights
        weights = tile.negative_log_weights()
        shape = tile.scores.shape
        counted = tile.negative if weights is None else tile.negative & (weights > -torch.inf)
        return (
            tile.positive.expand(shape).sum(-1),
            counted.expand(shape).sum(-1),
            torch.where(tile.positive, weighted, 0.0).sum(-1),
            log_sum_exp(weighted, tile.positive),
            *(
                log_sum_exp(logits * power if weights is None else logits * power + weights, tile.negative)
                for power in self.powers
            ),
        )


@dataclass(frozen=True)
class _Sums(Measure):
    """The sum of a function over a row's positives or negatives."""

    function: Callable[[Tensor], Tensor]
    of: str
    inverse_temperature: float

    @property
    def merges(self) -> tuple[Merge, ...]:
        return ("sum",)

    def __call__(self, tile: Scored) -> tuple[Tensor, ...]:
        logits = tile.scores * self.inverse_temperature
        values = self.function(logits if tile.offset is None else logits - tile.offset[..., None])
        positive = self.of == "positive"
        weights = tile.log_weights if positive else tile.negative_log_weights()
        if weights is not None:
            values = values * weights.exp()
        return (torch.where(tile.positive if positive else tile.negative, values, 0.0).sum(-1),)


def _scattered_log_sum_exp(logits: Tensor, row: Tensor, count: int) -> Tensor:
    """Return the log-sum-exp of the logits [P] of each row [A]; -inf, with zero gradient, where it has none."""
    top = logits.detach().new_full((count,), -torch.inf).scatter_reduce(0, row, logits.detach(), "amax")
    shift = torch.where(top == -torch.inf, 0.0, top)
    sums = torch.zeros_like(top).index_add(0, row, (logits - shift[row]).exp())
    some = sums != 0  # not-a-number stays visible
    return torch.where(some, torch.where(some, sums, 1.0).log() + shift, -torch.inf)


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
        for start in range(0, len(anchor), _PairedProducts.RUN):
            run = slice(start, start + _PairedProducts.RUN)
            gradient = gradients[0][run, None]
            if ours is not None:
                ours.index_add_(0, anchor[run], others[candidate[run]] * gradient)
            if theirs is not None:
                theirs.index_add_(0, candidate[run], anchors[anchor[run]] * gradient)
        return ours, None if candidates is None else theirs, None, None
