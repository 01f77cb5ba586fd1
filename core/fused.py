"""The contrast engine's way over Triton kernels: log-sum-exps of negatives, from rows as they are.

Rows stay in the dtype they come in and are not copied: a cosine's lengths and a temperature are factors of the logits.
Products of half rows are exact and summed up in float32; a slope goes into products as float32, or as two bfloat16. One
call makes the sums; the backward pass makes one tile of slopes at a time and multiplies it. That tile, one chunk of
gradients and O(A + C) numbers is all the memory there is.

Rows against themselves: a tile holds the slopes of both directions, and one product serves both; tiles on the two sides
of the diagonal are made twice, since a shared one would have to be added to from two sides, in an order of chance.

The way is not the default: no card has measured it. ``KONTRAST_TRITON=1`` in the environment switches it on.

Shapes: A anchors, C candidates, D embedding size, P powers, E positive pairs.
"""

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .block import Block
from .cache import tile_entries
from .errors import InvalidValueError
from .exponentials import UNSHIFTED
from .listing import listed_positives
from .optional import optional_import
from .precision import full_precision
from .prepared import Prepared

__all__ = ["FusedSums", "fused_sums", "wanted"]

# Rows, columns and summed entries of a program, by the bytes of a row's number.
BLOCKS = {2: (128, 128, 64), 4: (128, 128, 32)}
# Rows whose gradient is made at once.
ROWS = 4096
# Numbers in a tile of slopes where no card says how large its cache is.
ENTRIES = {"cpu": 1 << 18}
# Positive pairs whose rows are gathered at once.
RUN = 4096
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class FusedSums:
    """What `fused_sums` returns.

    Args:
        log_sums: log of the sum over each anchor's negatives of exp(power x logit), [P, A]; -inf where it has none.
        negatives: how many each has, int64 [A].
        positives: (anchor [E], candidate [E]).
        logits: of the positives, [E].
    """

    log_sums: Tensor
    negatives: Tensor
    positives: tuple[Tensor, Tensor]
    logits: Tensor


def wanted(rows: Tensor) -> bool:
    """Return whether rows [M, D] are to go this way: it is switched on, and can take their device and dtype.

    Raises:
        InvalidValueError: if `KONTRAST_TRITON` is neither 0 nor 1.
    """
    asked = os.environ.get("KONTRAST_TRITON", "0")
    if asked not in ("0", "1"):
        raise InvalidValueError(f"`KONTRAST_TRITON` must be 0 or 1, got {asked!r}; 1 switches the Triton kernels on")
    return asked == "1" and rows.dtype in _DTYPES and (rows.is_cuda or _interpreted())


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def fused_sums(
    block: Block, prepared: Prepared, inverse_temperature: float, powers: tuple[float, ...]
) -> FusedSums | None:
    """Return a block's log-sums and positives, with gradient; None where it is not for this way.

    That is where it is not switched on, where each anchor has candidates of its own, where scopes are compared, and
    where positives are too many to be listed.

    Args:
        block: without log-weights or rules.
        prepared: its similarity's scores are plain products.
        inverse_temperature: what scores are multiplied by.
        powers: one or two, > 0.
    """
    ours, theirs = block.anchor_keys, block.candidate_keys
    scoped = ours.scope is not None and theirs.scope is not None
    if scoped or block.index is not None or not block.negatives or not len(block.anchors) or not len(block.candidates):
        return None
    if not wanted(block.anchors):
        return None
    positives = listed_positives(block)
    if positives is None:
        return None
    similarity = prepared.similarity
    scaling = similarity.scaling()
    anchors, candidates, unit, scale = block.anchors, block.candidates, False, torch.ones(())
    if scaling is None:
        anchors, candidates = prepared.anchors(block), prepared.candidates(block)
    else:
        unit, scale = scaling.unit, torch.as_tensor(scaling.scale)
    scale = scale.to(anchors.device, torch.float32) * inverse_temperature
    bound = similarity.bound
    small = isinstance(bound, float) and max(powers) * bound * inverse_temperature <= UNSHIFTED
    mirrored = block.mirrored and anchors is candidates
    used = tuple(
        getattr(ours, name) is not None and getattr(theirs, name) is not None for name in ("row", "match", "alias")
    )
    first = _stacked(block, used, candidates=False)
    second = first if mirrored else _stacked(block, used, candidates=True)
    way = _Way(used, powers, unit, not small, positives, (first, second))
    log_sums, negatives, logits = _Fused.apply(way, anchors, None if mirrored else candidates, scale)
    return FusedSums(log_sums, negatives, positives, logits)


def _stacked(block: Block, used: tuple[bool, ...], *, candidates: bool) -> Tensor:
    """Return the keys row, match and alias, [3, M], where both sides have one."""
    keys, rows = (block.candidate_keys, block.candidates) if candidates else (block.anchor_keys, block.anchors)
    stacked = torch.full((3, len(rows)), -1, device=rows.device)
    for n, (name, own) in enumerate(zip(("row", "match", "alias"), used, strict=True)):
        if own:
            stacked[n] = getattr(keys, name)
    return stacked


@dataclass(frozen=True)
class _Way:
    """What a call is to do: keys (row, match, alias) that are read, whether rows are brought to length 1 first."""

    used: tuple[bool, ...]
    powers: tuple[float, ...]
    unit: bool
    shifted: bool
    positives: tuple[Tensor, Tensor]
    keys: tuple[Tensor, Tensor]

    def side(self, rows: Tensor, *, candidates: bool) -> "_Side":
        """Return rows with what the kernels read beside them."""
        lengths = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float32) if self.unit else None
        factor = rows.new_ones(len(rows), dtype=torch.float32)
        if lengths is not None:  # a row of length 0 has product 0 and no gradient
            factor = torch.where(lengths > 0, lengths.reciprocal(), torch.where(lengths == 0, 0.0, lengths))
        # `data`, since Triton's interpreter writes back whatever it was given, and autograd would take it for a change.
        return _Side(rows.data, factor, self.keys[candidates])

    def arguments(self, rows: Tensor) -> dict[str, Any]:
        """Return what every kernel is compiled for."""
        m, n, k = BLOCKS[rows.element_size()]
        old = rows.is_cuda and torch.cuda.get_device_capability(rows.device) < (8, 0)
        return {
            "WIDE": rows.dtype == torch.bfloat16 and (old or not rows.is_cuda),
            "PRECISION": "ieee" if old else "tf32x3",  # three TF32 products have float32's error
            **{"BM": m, "BN": n, "BK": k, "num_warps": 8, "num_stages": 3},
        }

    def related(self, rows: Tensor) -> dict[str, Any]:
        """Return the same of kernels that make logits."""
        row, match, alias = self.used
        even = rows.shape[1] % BLOCKS[rows.element_size()][2] == 0
        flags = {"ROW": row, "MATCH": match, "ALIAS": alias, "POWERS": len(self.powers), "EVEN": even}
        return {**flags, **self.arguments(rows)}


@dataclass(frozen=True)
class _Side:
    """Rows [M, D], the inverse of their lengths [M] (or ones), their keys [3, M], and of their own sums the weights."""

    rows: Tensor
    factor: Tensor
    keys: Tensor
    weights: Tensor | None = None  # [2 P, M]: for each power the weight of its exponentials, and its log-sum

    def part(self, where: slice) -> "_Side":
        weights = None if self.weights is None else self.weights[:, where]
        return _Side(self.rows[where], self.factor[where], self.keys[:, where], weights)


class _Fused(torch.autograd.Function):
    """(way, anchors, candidates, scale) -> (log-sums [P, A], negatives [A], logits of the positives [E])."""

    @staticmethod
    def forward(
        ctx: Any, way: _Way, anchors: Tensor, candidates: Tensor | None, scale: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        anchors = anchors.contiguous()
        candidates = None if candidates is None else candidates.contiguous()
        ours = way.side(anchors, candidates=False)
        theirs = ours if candidates is None else way.side(candidates, candidates=True)
        log_sums, negatives = _row_sums(way, ours, theirs, scale)
        logits = _paired(way, ours, theirs) * scale
        ctx.way = way
        ctx.save_for_backward(anchors, candidates, scale, log_sums)
        ctx.mark_non_differentiable(negatives)
        return log_sums, negatives, logits

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor | None, Tensor | None, Tensor | None]:
        way: _Way = ctx.way
        anchors, candidates, scale, log_sums = ctx.saved_tensors
        some = log_sums != -torch.inf  # a row of nothing has no slope
        weights = torch.where(some, gradients[0] * gradients[0].new_tensor(way.powers)[:, None], 0.0)
        weights = torch.stack([weights, torch.where(some, log_sums, 0.0)], 1).flatten(0, 1)
        ours = way.side(anchors, candidates=False)
        ours = _Side(ours.rows, ours.factor, ours.keys, weights)
        anchor, candidate = way.positives
        slope = gradients[2]
        with full_precision(anchors):
            if candidates is None:
                pairs = torch.cat([anchor, candidate]), torch.cat([candidate, anchor]), slope.repeat(2)
                gradient, along = _gradient(way, ours, ours, pairs, scale)
                return None, gradient, None, along / (2 * scale)
            theirs = way.side(candidates, candidates=True)
            first = second = change = None
            if ctx.needs_input_grad[1] or ctx.needs_input_grad[3]:
                first, along = _gradient(way, ours, theirs, (anchor, candidate, slope), scale)
                change = along / scale
            if ctx.needs_input_grad[2]:
                second, _ = _gradient(way, theirs, ours, (candidate, anchor, slope), scale)
            return None, first, second, change


def _kernels() -> Any:
    return optional_import("kontrast.triton_kernels", extra="triton", purpose="`KONTRAST_TRITON=1`")


def _row_sums(way: _Way, ours: _Side, theirs: _Side, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Return [P, A] and [A]; candidates are split over programs where anchors are too few to keep a card busy."""
    a, c, powers = len(ours.rows), len(theirs.rows), len(way.powers)
    m, n, _ = BLOCKS[ours.rows.element_size()]
    busy = 4 * torch.cuda.get_device_properties(ours.rows.device).multi_processor_count if ours.rows.is_cuda else 4
    down, across = -(-a // m), -(-c // n)
    span = n * -(-across // min(across, max(1, busy // down)))
    splits = -(-c // span)
    log_sums = ours.factor.new_empty(splits, powers, a)
    counts = torch.empty(splits, a, dtype=torch.int32, device=ours.rows.device)
    with torch.cuda.device_of(ours.rows):
        _kernels().row_sums[down, splits](
            *(ours.rows, theirs.rows, ours.factor * scale, theirs.factor, ours.keys, theirs.keys, log_sums, counts),
            *(a, c, ours.rows.shape[1], span, way.powers[0], way.powers[-1]),
            SHIFTED=way.shifted,
            **way.related(ours.rows),
        )
    return log_sums.logsumexp(0) if splits > 1 else log_sums[0], counts.sum(0)


def _paired(way: _Way, ours: _Side, theirs: _Side) -> Tensor:
    """Return the scores of the positives, [E], before they are scaled."""
    anchor, candidate = way.positives
    found = ours.factor.new_empty(len(anchor))
    for start in range(0, len(anchor), RUN):
        run = slice(start, start + RUN)
        first, second = ours.rows[anchor[run]].float(), theirs.rows[candidate[run]].float()
        found[run] = torch.einsum("pd,pd->p", first, second)
    return found * ours.factor[anchor] * theirs.factor[candidate]


def _gradient(
    way: _Way, ours: _Side, theirs: _Side, pairs: tuple[Tensor, Tensor, Tensor], scale: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradient of our rows [M, D], and the sum of slope x logit over all pairs.

    Args:
        ours: with weights, if our sums have slopes.
        theirs: likewise.
        pairs: (our row [E], their row [E], slope [E]).
        scale: of the logits.
    """
    place, other, slope = pairs
    order = place.argsort()
    place, other, slope = place[order], other[order], slope[order]
    chunks = [slice(start, min(start + ROWS, len(ours.rows))) for start in range(0, len(ours.rows), ROWS)]
    ends = [len(place)]
    if len(chunks) > 1:
        ends = torch.searchsorted(place, place.new_tensor([chunk.stop for chunk in chunks])).tolist()
    result = torch.empty_like(ours.rows)
    along = torch.zeros_like(scale)
    tile = ours.factor.new_empty(min(ROWS, len(ours.rows)), min(_columns(ours.rows), len(theirs.rows)))
    begin = 0
    for chunk, end in zip(chunks, ends, strict=True):
        part = ours.part(chunk)
        total = _slope_rows(way, part, theirs, scale, tile)
        for start in range(begin, end, RUN):
            run = slice(start, min(start + RUN, end))
            weight = slope[run] * theirs.factor[other[run]]
            total.index_add_(0, place[run] - chunk.start, theirs.rows[other[run]].float() * weight[:, None])
        begin = end
        total.mul_(scale)
        unit = part.rows * part.factor[:, None]
        radial = torch.einsum("md,md->m", total, unit)
        along += radial.sum()
        if way.unit:
            total.addcmul_(unit, radial[:, None], value=-1).mul_(part.factor[:, None])
        result[chunk] = total
    return result, along


def _columns(rows: Tensor) -> int:
    """Return how many columns a tile of slopes has: the tile is as large as the card's cache."""
    # `tile_entries` are a quarter of the cache, counted in float32.
    entries = 4 * tile_entries(rows.new_empty(0, dtype=torch.float32), ENTRIES)
    return max(512, entries // ROWS // 128 * 128)


def _slope_rows(way: _Way, ours: _Side, theirs: _Side, scale: Tensor, tile: Tensor) -> Tensor:
    """Return the sum over their rows of slope x factor x row, for every row of ours, float32 [M, D]."""
    rows, count, size = ours.rows, len(ours.rows), ours.rows.shape[1]
    m, n, _ = BLOCKS[rows.element_size()]
    total = torch.zeros(count, size, dtype=torch.float32, device=rows.device)
    factor, width = ours.factor * scale, tile.shape[1]
    kernels = _kernels()
    for start in range(0, len(theirs.rows), width):
        part = theirs.part(slice(start, start + width))
        columns = len(part.rows)
        with torch.cuda.device_of(rows):
            kernels.slopes[-(-count // m), -(-columns // n)](
                *(rows, part.rows, factor, part.factor, ours.keys, part.keys, ours.weights, part.weights, tile),
                *(count, columns, size, ours.keys.stride(0), part.keys.stride(0), tile.stride(0)),
                *(way.powers[0], way.powers[-1]),
                OURS=ours.weights is not None,
                THEIRS=part.weights is not None,
                **way.related(rows),
            )
            kernels.slope_rows[-(-count // m), -(-size // n)](
                *(tile, part.rows, total, count, columns, size, tile.stride(0)),
                HALVED=rows.dtype == torch.bfloat16,
                **way.arguments(rows),
            )
    return total
