"""The fast way through a block: log-sum-exps of the negatives where scores are plain products.

Every anchor meets every candidate but a few: those its keys except are found by sorting and struck from the tiles that
hold them. Where anchors and candidates are one tensor, a tile serves its rows and, turned over, its columns. With M
rows of size D that is 4 M^2 D operations forward and backward, and extra memory for one tile and O(A + C) numbers.

Shapes: A anchors, C candidates, D embedding size, P powers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .precision import full_precision

__all__ = ["Exponentials"]

# Scores in a tile. A tile of float32 and its copy stay in a core's second-level cache.
ENTRIES = {"cpu": 1 << 18, "cuda": 1 << 22}
# Bytes of tiles kept for the backward pass in place of multiplying them again.
KEPT_BYTES = {"cpu": 1 << 24, "cuda": 1 << 28}
# |logit| up to which exp needs no shift: e^40 summed over any row is far from float32's 3e38, and e^-40 from its least.
UNSHIFTED = 40.0


@dataclass(frozen=True)
class Exponentials:
    """For every anchor the log of sum over negatives of exp(power x product x inverse temperature), for each power.

    Args:
        anchors: [A, D], prepared.
        candidates: [C, D], prepared; None: the anchors themselves.
        inverse_temperature: what products are multiplied by, > 0.
        powers: e.g. (1,), or (1 + h, h) for hard negatives.
        excepted: (anchor [E], candidate [E]) that are no negatives.
        bounded: no |product| passes this; None: unknown.
    """

    anchors: Tensor
    candidates: Tensor | None
    inverse_temperature: float
    powers: tuple[float, ...]
    excepted: tuple[Tensor, Tensor]
    bounded: float | None

    def log_sums(self) -> Tensor:
        """Return [P, A], with gradient; -inf where an anchor has no negative."""
        result: Tensor = _LogSums.apply(self, self.anchors, self.candidates)
        return result

    def plan(self) -> "_Plan":
        """Return how the block is cut."""
        columns = self.anchors if self.candidates is None else self.candidates
        return _Plan.of(len(self.anchors), len(columns), self.candidates is None, self.anchors, self.excepted)

    @property
    def unshifted(self) -> bool:
        """Whether exponentials can be taken as they are."""
        return self.bounded is not None and max(self.powers) * self.bounded * self.inverse_temperature <= UNSHIFTED

    def raised(self, logits: Tensor, shift: Tensor | float) -> list[Tensor]:
        """Return exp(power x (logits - shift)) for each power; the logits are overwritten."""
        if not isinstance(shift, float) or shift:
            logits.sub_(shift)
        if self.powers == (2.0, 1.0):
            once = logits.exp_()
            return [once.square(), once]
        *others, last = self.powers
        return [(logits * power).exp_() for power in others] + [(logits.mul_(last) if last != 1 else logits).exp_()]


@dataclass(frozen=True)
class _Part:
    """One tile: rows, columns, the excepted entries by their place in it, and whether it lies on the diagonal."""

    rows: slice
    columns: slice
    excepted: Tensor
    diagonal: bool


@dataclass(frozen=True)
class _Plan:
    parts: tuple[_Part, ...]
    entries: int

    @classmethod
    def of(cls, a: int, c: int, mirrored: bool, like: Tensor, excepted: tuple[Tensor, Tensor]) -> "_Plan":
        entries = ENTRIES[like.device.type]
        side = int(entries**0.5)
        rows = min(a, side) if mirrored or c >= side else min(a, entries // max(c, 1))
        columns = rows if mirrored else min(c, max(side, entries // max(2 * rows, 1)))
        if not a or not c:
            return cls((), 0)
        across = -(-c // columns)
        anchor, candidate = excepted
        tile = anchor // rows * across + candidate // columns
        order = tile.argsort(stable=True)
        width = (c - candidate // columns * columns).clamp(max=columns)
        place = (anchor % rows * width + candidate % columns)[order]
        ends = torch.bincount(tile, minlength=-(-a // rows) * across).cumsum(0).tolist()
        parts = []
        for i in range(-(-a // rows)):
            for j in range(i if mirrored else 0, across):
                n = i * across + j
                here = place[(ends[n - 1] if n else 0) : ends[n]]
                part = slice(i * rows, min(a, (i + 1) * rows)), slice(j * columns, min(c, (j + 1) * columns))
                parts.append(_Part(*part, here, mirrored and i == j))
        return cls(tuple(parts), rows * columns)


class _LogSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, spec: Exponentials, anchors: Tensor, candidates: Tensor | None) -> Tensor:
        mirrored = candidates is None
        others = anchors if candidates is None else candidates
        plan = spec.plan()
        ctx.spec, ctx.plan = spec, plan
        # With candidates that get no gradient, the anchors' can be summed up at once.
        frozen = not mirrored and ctx.needs_input_grad[1] and not ctx.needs_input_grad[2]
        size = sum((p.rows.stop - p.rows.start) * (p.columns.stop - p.columns.start) for p in plan.parts)
        wanted = any(ctx.needs_input_grad) and not frozen
        keep = wanted and size * anchors.element_size() * len(spec.powers) <= KEPT_BYTES[anchors.device.type]
        powers = len(spec.powers)
        sums = anchors.new_zeros(powers, len(anchors))
        top = None if spec.unshifted else anchors.new_full((len(anchors),), -torch.inf)
        weighted = [torch.zeros_like(anchors) for _ in range(powers)] if frozen else []
        kept: list[Tensor] = []
        for part, logits in _tiles(spec, plan, anchors, others, reuse=not keep):
            sides = [(part.rows, 1)]
            if mirrored and not part.diagonal:
                sides.append((part.columns, 0))
            if top is None:
                raised = spec.raised(logits, 0.0)
                for p, tile in enumerate(raised):
                    for where, dim in sides:
                        sums[p, where] += tile.sum(dim)
                    if frozen:
                        weighted[p][part.rows].addmm_(tile, others[part.columns])
                if keep:
                    kept.extend(raised)
                continue
            for where, dim in sides:
                new = torch.maximum(top[where], logits.amax(dim))
                shift = torch.where(new == -torch.inf, 0.0, new)
                raised = spec.raised(logits.clone(), shift.unsqueeze(dim))
                for p, (power, tile) in enumerate(zip(spec.powers, raised, strict=True)):
                    fade = (power * (top[where] - shift)).exp_()
                    sums[p, where] = sums[p, where] * fade + tile.sum(dim)
                    if frozen:
                        weighted[p][where] *= fade[:, None]
                        weighted[p][where].addmm_(tile, others[part.columns])
                top[where] = new
            if keep:
                kept.append(logits)
        result = sums.log()
        if top is not None:
            powers_column = anchors.new_tensor(spec.powers)[:, None]
            result = torch.where(sums > 0, result + powers_column * torch.where(sums[0] > 0, top, 0.0), result)
        if frozen:
            scale = [power * spec.inverse_temperature for power in spec.powers]
            inverse = torch.where(sums > 0, sums, 1.0).reciprocal()
            ctx.save_for_backward(*(w.mul_((inverse[p] * scale[p])[:, None]) for p, w in enumerate(weighted)))
        else:
            ctx.save_for_backward(anchors, *(() if candidates is None else (candidates,)), result, *kept)
        ctx.frozen, ctx.kept = frozen, len(kept)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        with full_precision(gradients[0]):
            return _LogSums._slopes(ctx, gradients[0])

    @staticmethod
    def _slopes(ctx: Any, gradient: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        spec: Exponentials = ctx.spec
        if ctx.frozen:
            slopes = ctx.saved_tensors
            return None, sum((s * g[:, None] for s, g in zip(slopes, gradient, strict=True)), torch.zeros(())), None
        mirrored = spec.candidates is None
        saved = ctx.saved_tensors
        anchors, candidates, result = (saved[0], None, saved[1]) if mirrored else saved[:3]
        kept = list(saved[len(saved) - ctx.kept :]) if ctx.kept else []
        others = anchors if candidates is None else candidates
        want_candidates = mirrored or ctx.needs_input_grad[2]
        # Each row's weight in front of exp(power x logit); a row of nothing has none.
        weights = gradient * anchors.new_tensor(spec.powers)[:, None] * spec.inverse_temperature
        weights = torch.where(result > -torch.inf, weights, 0.0)
        if spec.unshifted:
            weights = torch.where(result > -torch.inf, weights * (-result).exp(), 0.0)
        totals = torch.zeros_like(anchors)
        other_totals = totals if mirrored else torch.zeros_like(others) if want_candidates else None
        buffer = anchors.new_empty(ctx.plan.entries)
        # One power in one direction: a row's weight is a factor of its whole slope, and goes on the rows, not the tile.
        factored = not mirrored and len(spec.powers) == 1 and spec.unshifted
        weighted = anchors * weights[0, :, None] if factored and other_totals is not None else anchors
        tiles: Any = _tiles(spec, ctx.plan, anchors, others, reuse=True)
        if kept:
            tiles = _kept_tiles(spec, ctx.plan, kept)
        for part, held in tiles:
            rows, columns = part.rows, part.columns
            shape = (rows.stop - rows.start, columns.stop - columns.start)
            slope = buffer[: shape[0] * shape[1]].view(shape)
            raised = [] if not spec.unshifted else held if kept else spec.raised(held, 0.0)
            if factored:
                (slope,) = raised
            elif spec.unshifted:
                _slope_unshifted(raised, weights, rows, columns, mirrored, slope)
            else:
                _slope_shifted(spec, held, weights, result, rows, columns, mirrored, slope)
            totals[rows].addmm_(slope, others[columns])
            if other_totals is not None and not part.diagonal:
                other_totals[columns].addmm_(slope.t(), weighted[rows])
        if factored:
            totals.mul_(weights[0, :, None])
        return None, totals if ctx.needs_input_grad[1] else None, None if mirrored else other_totals


def _slope_unshifted(
    raised: list[Tensor], weights: Tensor, rows: slice, columns: slice, both: bool, out: Tensor
) -> None:
    """Write d loss / d product of a tile, from its exponentials."""
    for p, tile in enumerate(raised):
        if p == 0:
            if both:
                torch.add(weights[p, rows, None], weights[p, columns], out=out)
                out.mul_(tile)
            else:
                torch.mul(tile, weights[p, rows, None], out=out)
        else:
            out.addcmul_(tile, weights[p, rows, None])
            if both:
                out.addcmul_(tile, weights[p, columns])


def _slope_shifted(
    spec: Exponentials,
    logits: Tensor,
    weights: Tensor,
    result: Tensor,
    rows: slice,
    columns: slice,
    both: bool,
    out: Tensor,
) -> None:
    """Write d loss / d product of a tile, from its logits; every exponential is at most 1."""
    out.zero_()
    for p, power in enumerate(spec.powers):
        for where, dim in [(rows, 1), (columns, 0)][: 1 + both]:
            whole = result[p, where]
            shift = torch.where(whole > -torch.inf, whole, 0.0).unsqueeze(dim)
            out.addcmul_((logits * power).sub_(shift).exp_(), weights[p, where].unsqueeze(dim))


def _tiles(
    spec: Exponentials, plan: _Plan, anchors: Tensor, others: Tensor, *, reuse: bool
) -> Iterator[tuple[_Part, Tensor]]:
    """Yield each tile's logits, -inf where a pair is excepted; the next tile overwrites them if `reuse`."""
    buffer = anchors.new_empty(plan.entries if reuse else 0)
    scaled, rows = anchors, slice(0, 0)
    for part in plan.parts:
        if part.rows != rows:
            rows = part.rows
            scaled = anchors[rows] * spec.inverse_temperature
        turned = others[part.columns].t()
        shape = (len(scaled), turned.shape[1])
        logits = torch.mm(scaled, turned, out=buffer[: shape[0] * shape[1]].view(shape) if reuse else None)
        if len(part.excepted):
            logits.view(-1).index_fill_(0, part.excepted, -torch.inf)
        yield part, logits


def _kept_tiles(spec: Exponentials, plan: _Plan, kept: list[Tensor]) -> Iterator[tuple[_Part, Any]]:
    """Yield what was kept of each tile: its exponentials, or with a shift its logits."""
    if not spec.unshifted:
        yield from zip(plan.parts, kept, strict=True)
        return
    powers = len(spec.powers)
    for n, part in enumerate(plan.parts):
        yield part, kept[n * powers : (n + 1) * powers]
