"""The backward pass of `exponentials`: slopes of log-sum-exps, tile by tile, and the gradients they add up to.

Shapes: A anchors, C candidates, D embedding size, P powers, E excepted pairs; of a stack G groups of n rows.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .stacks import Part, Stack

if TYPE_CHECKING:
    from .exponentials import Exponentials

__all__ = ["slopes"]


def slopes(
    spec: "Exponentials",
    anchors: Tensor,
    candidates: Tensor | None,
    result: Tensor,
    weights: Tensor,
    excepted: Tensor,
    shifts: Sequence[Tensor | float | None],
    kept: Iterator[Tensor] | None,
    of_candidates: bool,
) -> tuple[Tensor, Tensor | None]:
    """Return the gradients of anchors and candidates; the log-sums `result` and the shifts are in bits.

    A row of nothing has weight 0, and a finite log-sum.
    """
    mirrored = candidates is None
    others = anchors if candidates is None else candidates
    written = _once_each(spec, len(anchors))
    total = torch.empty_like(anchors) if written else torch.zeros_like(anchors)
    other_total = torch.zeros_like(others) if of_candidates and not mirrored else None
    scratch, room = anchors.new_empty(2, spec.plan.largest)
    buffer = torch.empty_like(scratch) if kept is None else None
    powers = len(spec.powers)
    for stack, shift in zip(spec.plan.stacks, shifts, strict=True):
        rows, columns = spec.read(stack, anchors, others)
        own = stack.rows.opened(total)
        other = own if mirrored else None if other_total is None else stack.columns.opened(other_total)
        weight, whole = (_live(stack, [stack.rows.read(part) for part in part_of]) for part_of in (weights, result))
        if shift is not None:
            weight = _shifted(spec, weight, whole, shift)
        tiles: Any = ((part, None) for part in stack.parts)
        if kept is None:
            tiles = spec.tiles(stack, rows, columns, buffer, None)
        for part, logits in tiles:
            shape = part.shape(stack)
            slope = scratch[: shape[0] * shape[1] * shape[2]].view(shape)
            if shift is not None:
                raised = spec.raised(logits, shift) if kept is None else [next(kept) for _ in range(powers)]
                of_rows = not isinstance(shift, float) and spec.alone(stack)
                _slope_at_once(raised, weight, part, mirrored and not of_rows, slope)
                if mirrored and of_rows:  # what the columns get from their own exponentials
                    slope = torch.add(slope, slope.transpose(1, 2), out=room[: slope.numel()].view(shape))
            else:
                logits = logits if kept is None else next(kept)
                _slope_each(spec, logits, weight, whole, part, mirrored, slope, room[: slope.numel()].view(shape))
            if len(part.number):
                given = excepted[part.number]
                slope.view(-1).index_add_(0, part.place, given)
                if part.diagonal:
                    slope.view(-1).index_add_(0, part.turned, given)
            own[:, part.rows].baddbmm_(slope, columns[:, part.columns], beta=0 if written else 1)
            if other is not None and not part.diagonal:
                other[:, part.columns].baddbmm_(slope.transpose(1, 2), rows[:, part.rows])
        stack.rows.close(total, own)
        if other_total is not None and other is not None:
            stack.columns.close(other_total, other)
    return total, other_total


def _once_each(spec: "Exponentials", rows: int) -> bool:
    """Return whether every row is in one tile alone, and where it lies is written to at once."""
    stacks = spec.plan.stacks
    plain = all(
        len(stack.parts) == 1 and stack.rows.lattice is not None and stack.rows.live is None for stack in stacks
    )
    return plain and sum(stack.rows.shape[0] * stack.rows.shape[1] for stack in stacks) == rows


def _live(stack: Stack, values: list[Tensor]) -> list[Tensor]:
    """Return numbers per row [G, n], 0 in the padding, which is read as some row."""
    live = stack.rows.live
    return values if live is None else [part.masked_fill(~live, 0.0) for part in values]


def _shifted(spec: "Exponentials", weights: list[Tensor], whole: list[Tensor], shift: Tensor | float) -> list[Tensor]:
    """Return each row's weight in front of 2^(power x (logit - shift)), [G, n]."""
    off = shift[:, :, 0] if isinstance(shift, Tensor) else shift
    return [
        weight * (power * off - log_sum).exp2_()
        for power, weight, log_sum in zip(spec.powers, weights, whole, strict=True)
    ]


def _slope_at_once(raised: list[Tensor], weights: list[Tensor], part: Part, both: bool, out: Tensor) -> None:
    """Write d loss / d product of a tile, from its exponentials."""
    for p, tile in enumerate(raised):
        of_rows = weights[p][:, part.rows, None]
        of_columns = weights[p][:, None, part.columns] if both else None
        if p == 0:
            if of_columns is not None:
                torch.add(of_rows, of_columns, out=out)
                out.mul_(tile)
            else:
                torch.mul(tile, of_rows, out=out)
        else:
            out.addcmul_(tile, of_rows)
            if of_columns is not None:
                out.addcmul_(tile, of_columns)


def _slope_each(
    spec: "Exponentials",
    logits: Tensor,
    weights: list[Tensor],
    whole: list[Tensor],
    part: Part,
    both: bool,
    out: Tensor,
    room: Tensor,
) -> None:
    """Write d loss / d product of a tile, from its logits; every exponential is at most 1."""
    first = True
    for p, power in enumerate(spec.powers):
        for where, dim in [(part.rows, 2), (part.columns, 1)][: 1 + both]:
            shift = whole[p][:, where].unsqueeze(dim)
            weight = weights[p][:, where].unsqueeze(dim)
            scaled = logits if power == 1 else torch.mul(logits, power, out=room)
            raised = torch.sub(scaled, shift, out=room).exp2_()
            if first:
                torch.mul(raised, weight, out=out)
            else:
                out.addcmul_(raised, weight)
            first = False
