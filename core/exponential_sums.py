"""The forward pass of `exponentials`: log-sum-exps of a stack, tile by tile.

Shapes: D embedding size, E excepted pairs; of a stack G groups of n rows and m columns.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .stacks import Part, Stack

if TYPE_CHECKING:
    from .exponentials import Exponentials

__all__ = ["summed"]


def summed(
    spec: "Exponentials",
    stack: Stack,
    rows: Tensor,
    columns: Tensor,
    excepted: Tensor,
    weighted: list[Tensor],
    buffer: Tensor | None,
) -> tuple[list[Tensor], list[Tensor], Tensor | float | None]:
    """Return a stack's log-sums [G, n] for each power, its tiles where there is no buffer to reuse, and their shift.

    All is in bits. Tiles are powers of two of the logits less the shift, [G, n, 1] or a number; without it the logits.

    Args:
        spec: of the whole.
        stack: its part.
        rows: [G, n, D].
        columns: [G, m, D].
        excepted: [E], into which the logits of the excepted pairs are written.
        weighted: [G, n, D] for each power, into which candidates are summed by their weights; empty: nowhere.
        buffer: for the tiles, [entries].
    """
    tiles: Iterable[tuple[Part, Tensor]] = spec.tiles(stack, rows, columns, buffer, excepted)
    shift: Tensor | float | None = 0.0 if spec.unshifted else None
    if shift is None and buffer is None and spec.alone(stack):
        tiles = list(tiles)
        shift = _greatest(spec, stack, tiles)
    way = _running if shift is None else _at_once
    sums, top, kept = way(spec, rows, columns, tiles, weighted, shift, keep=buffer is None)
    for slope, part in zip(weighted, sums, strict=False):
        inverse = torch.where(part > 0, part, 1.0).reciprocal_()
        slope.mul_(inverse[..., None])
    return [part.log2() + power * top for power, part in zip(spec.powers, sums, strict=True)], kept, shift


def _greatest(spec: "Exponentials", stack: Stack, tiles: list[tuple[Part, Tensor]]) -> Tensor:
    """Return each row's greatest logit, [G, n, 1]; 0 where it has none."""
    top = tiles[0][1].new_full(stack.rows.shape, -torch.inf)
    for part, logits in tiles:
        for where, dim in _sides_of(spec, part):
            top[:, where] = torch.maximum(top[:, where], logits.amax(dim))
    return torch.where(top == -torch.inf, 0.0, top)[:, :, None]


def _sides_of(spec: "Exponentials", part: Part) -> list[tuple[slice, int]]:
    """Return the rows that a tile serves, and along which of its dimensions they are summed."""
    own = [(part.rows, 2)]
    return own if not spec.mirrored or part.diagonal else [*own, (part.columns, 1)]


def _at_once(
    spec: "Exponentials",
    rows: Tensor,
    columns: Tensor,
    tiles: Iterable[tuple[Part, Tensor]],
    weighted: list[Tensor],
    shift: Tensor | float | None,
    *,
    keep: bool,
) -> tuple[list[Tensor], Tensor | float, list[Tensor]]:
    """Return the sums [G, n] for each power of what has a shift, what was taken off, and the tiles if wanted."""
    assert shift is not None
    sums, kept = [rows.new_zeros(rows.shape[:2]) for _ in spec.powers], []
    for part, logits in tiles:
        raised = spec.raised(logits, shift[:, part.rows] if isinstance(shift, Tensor) else shift)
        for p, tile in enumerate(raised):
            for where, dim in _sides_of(spec, part):
                sums[p][:, where] += tile.sum(dim)
            if weighted:
                weighted[p][:, part.rows].baddbmm_(tile, columns[:, part.columns])
        if keep:
            kept += raised
    return sums, shift[:, :, 0] if isinstance(shift, Tensor) else shift, kept


def _running(
    spec: "Exponentials",
    rows: Tensor,
    columns: Tensor,
    tiles: Iterable[tuple[Part, Tensor]],
    weighted: list[Tensor],
    shift: Tensor | float | None,
    *,
    keep: bool,
) -> tuple[list[Tensor], Tensor, list[Tensor]]:
    """Return the same with each row's greatest logit so far taken off, and the logits."""
    assert shift is None
    sums, kept = [rows.new_zeros(rows.shape[:2]) for _ in spec.powers], []
    top = torch.full_like(sums[0], -torch.inf)
    scratch = rows.new_empty(spec.plan.largest)
    for part, logits in tiles:
        room = scratch[: logits.numel()].view_as(logits)
        for where, dim in _sides_of(spec, part):
            new = torch.maximum(top[:, where], logits.amax(dim))
            shifted = torch.where(new == -torch.inf, 0.0, new)
            raised = spec.raised(torch.sub(logits, shifted.unsqueeze(dim), out=room), 0.0)
            for p, (power, tile) in enumerate(zip(spec.powers, raised, strict=True)):
                fade = (power * (top[:, where] - shifted)).exp2_()
                sums[p][:, where] = sums[p][:, where] * fade + tile.sum(dim)
                if weighted:
                    weighted[p][:, where] *= fade[..., None]
                    weighted[p][:, where].baddbmm_(tile, columns[:, part.columns])
            top[:, where] = new
        if keep:
            kept.append(logits)
    return sums, torch.where(sums[0] > 0, top, 0.0), kept
