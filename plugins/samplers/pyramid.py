"""Aligned sequences compared at every scale: with each other at one time, and with themselves at other times.

Shapes: B series, T time steps of a view, L shared time steps, S steps of all levels, D embedding size.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from kontrast import Encoded, Gives, IncompatibleError, Pairs, PairSampler, across_ranks, all_sum, key, rank

__all__ = ["TimePyramid"]


class TimePyramid(PairSampler):
    """TS2Vec's hierarchy: time steps that two views share, then their maxima in pairs, down to one.

    Two Pairs, each of all levels at once, in both of which a row's positive is the same time of the same series in the
    other view. `instance`: the negatives are other series of all processes, at the same time of the same level.
    `temporal`: they are other times of the same series and level; the last level has but one time and none of these.
    Anchors are weighed (`Pairs.anchor_weights`), so that each level counts the same, and each kind one half per level.

    The encoder must give `dense` embeddings, one per time step; views are aligned by their `coords`, which must rise by
    one from step to step.

    Source:
        Yue et al. 2022, arXiv:2106.10466, section 3.3 and 3.4. Differs from it: steps that are missing are left out.
    """

    @property
    def gives(self) -> Gives:
        """Negatives from two series on."""
        return Gives(min_batch=2, own_rows=False)

    def pairs(self, encoded: Sequence[Encoded]) -> list[Pairs]:
        """Return the comparisons of two views."""
        if len(encoded) != 2:
            raise IncompatibleError(f"TimePyramid compares two views, and there are {len(encoded)}")
        first, second = encoded[0], _in_order(encoded[1], encoded[0].ids)
        offsets, valid = _aligned(first, second)
        rows, but_last = _Pyramid.apply(first.dense, second.dense, offsets, valid)
        level, time, exists = _steps(valid)
        weights = _weights(level, exists)

        def spread(values: Tensor) -> Tensor:
            return values.expand(exists.shape).flatten()

        ids, level_of, groups, weight = map(
            spread, (first.ids, *(part[:, None, None] for part in (level, (level << 32) + time, weights)))
        )
        there = exists.flatten()
        flat, weighed = _existing(first, rows, ids, groups, weight, there)
        instance = Pairs.between(flat, across_ranks(flat), match="ids", scope="groups", name="instance", weight=0.5)
        found = [replace(instance, anchor_weights=weighed)]
        levels = len(valid[0, 0]).bit_length()
        if levels > 1:
            keys = key(ids, level_of), groups, weight, there
            flat, weighed = _existing(first, but_last, *(part[: len(but_last)] for part in keys))
            share = 0.5 * (levels - 1) / levels
            temporal = Pairs.between(flat, flat, match="groups", scope="ids", name="temporal", weight=share)
            found.append(replace(temporal, anchor_weights=weighed))
        return found


def _in_order(view: Encoded, ids: Tensor) -> Encoded:
    """Return a view with its series in this order."""
    if torch.equal(view.ids, ids):
        return view
    order = (ids[:, None] == view.ids).long().argmax(1)
    if len(view.ids) != len(ids) or not torch.equal(view.ids[order], ids):
        raise IncompatibleError("TimePyramid compares two copies of each series, and these views are of other series")
    dense, valid, coords = (None if part is None else part[order] for part in (view.dense, view.valid, view.coords))
    return replace(view, ids=ids, dense=dense, valid=valid, coords=coords)


def _aligned(first: Encoded, second: Encoded) -> tuple[Tensor, Tensor]:
    """Return where in each view the time steps begin that both hold, [B, 2], and which of these exist, [B, 2, L]."""
    if first.dense is None or second.dense is None or first.dense.ndim != 3:
        raise IncompatibleError(
            "TimePyramid compares time steps, and the encoder gives pooled embeddings alone; take one whose `encode` "
            "fills `dense` [B, T, D]"
        )
    starts, lengths = [], []
    for view in (first, second):
        assert view.dense is not None
        starts.append(torch.zeros_like(view.ids) if view.coords is None else view.coords[:, 0])
        lengths.append(view.dense.shape[1])
    begin = torch.maximum(*starts)
    count = torch.minimum(*(start + length for start, length in zip(starts, lengths, strict=True))) - begin
    shared = int(count.max())
    if shared < 1:
        raise IncompatibleError("TimePyramid needs views that share time steps, and these share none; see coords")
    step = torch.arange(shared, device=begin.device)
    there = step < count[:, None]
    offsets = torch.stack([begin - start for start in starts], 1)
    valid = []
    for view, offset, length in zip((first, second), offsets.unbind(1), lengths, strict=True):
        place = (offset[:, None] + step).clamp(max=length - 1)
        valid.append(there if view.valid is None else there & view.valid.gather(1, place))
    return offsets, torch.stack(valid, 1)


def _cut(dense: Tensor, offset: Tensor, steps: int) -> tuple[Tensor, Tensor | slice]:
    """Return the steps [B, L, D] from an offset [B] on, and where they lie: a slice, or rows of the flattened view."""
    least, most = offset.aminmax()
    if bool(least == most) and int(least) + steps <= dense.shape[1]:
        at = slice(int(least), int(least) + steps)
        return dense[:, at], at
    place = (offset[:, None] + torch.arange(steps, device=offset.device)).clamp(max=dense.shape[1] - 1)
    rows = (place + torch.arange(len(dense), device=place.device)[:, None] * dense.shape[1]).flatten()
    return dense.flatten(0, 1).index_select(0, rows).view(len(dense), steps, -1), rows


class _Pyramid(torch.autograd.Function):
    """(two views [B, T, D], offsets [B, 2], what exists [B, 2, L]) -> the steps of all levels, and of all but the last.

    As rows [S x 2 x B, D], level after level. So those of one time lie together, and those of one series and level a
    constant distance apart: either comparison reads its rows where they are.
    """

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor, offsets: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        (series, _, steps), levels = valid.shape, _levels(valid.shape[2])
        rows = first.new_empty(levels[-1].stop, 2, series, first.shape[2])
        ctx.views = []
        for v, dense in enumerate((first, second)):
            cut, at = _cut(dense, offsets[:, v], steps)
            rows[:steps, v] = cut.transpose(0, 1)
            ctx.views.append((dense.shape, at))
        if not valid.all():  # what is missing loses against whatever is there
            rows[:steps].masked_fill_(~valid.permute(2, 1, 0)[..., None], torch.finfo(first.dtype).min)
        firsts = []
        for below, above in pairwise(levels):
            one, other = _halves(rows[below])
            torch.maximum(one, other, out=rows[above])
            firsts.append(one >= other)
        ctx.levels = levels
        ctx.save_for_backward(*firsts)
        flat = rows.flatten(0, 2)
        return flat, flat[: 2 * series * levels[-1].start]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        *lower, last = ctx.levels
        series = ctx.views[0][0][0]
        of_all, of_lower = (part.unflatten(0, (-1, 2, series)) for part in gradients)
        total = of_all[last].clone()
        for at, first in reversed(list(zip(lower, ctx.saved_tensors, strict=True))):
            above, total = total, of_all[at] + of_lower[at]
            one, other = _halves(total)
            given = above * first
            one += given
            other += above.sub_(given)
        found: list[Tensor | None] = []
        for v, (shape, at) in enumerate(ctx.views):
            of_view = total[:, v].transpose(0, 1)
            rows = total.new_zeros(shape)
            if isinstance(at, slice):
                rows[:, at] = of_view
            else:
                rows.view(-1, shape[2]).index_add_(0, at, of_view.flatten(0, 1))
            found.append(rows)
        return (*found, None, None)


def _halves(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first and the second of every two steps of [n, 2, B, D]; a last one without a second is in neither."""
    even = rows[: len(rows) // 2 * 2].unflatten(0, (-1, 2))
    return even[:, 0], even[:, 1]


def _levels(steps: int) -> list[slice]:
    """Return which of the steps of all levels each level has."""
    begin, found = 0, []
    while steps:
        found.append(slice(begin, begin + steps))
        begin, steps = begin + steps, steps // 2
    return found


def _steps(valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return of the steps of all levels the level [S], the time [S], and which exist, [S, 2, B]."""
    there, level, time = [valid.permute(2, 1, 0)], [], []
    for number, at in enumerate(_levels(valid.shape[2])):
        n = at.stop - at.start
        if number:
            there.append(there[-1][: 2 * n].unflatten(0, (n, 2)).any(1))
        level.append(torch.full((n,), number, device=valid.device))
        time.append(torch.arange(n, device=valid.device))
    return torch.cat(level), torch.cat(time), torch.cat(there)


def _weights(level: Tensor, exists: Tensor) -> Tensor:
    """Return for each step [S] one over the number of rows of its level that have a positive, over all processes."""
    paired = torch.zeros(64, dtype=torch.float64, device=level.device)
    paired.index_add_(0, level, 2 * exists.all(1).sum(1).double())
    return all_sum(paired).clamp(min=1).reciprocal()[level]


def _existing(
    view: Encoded, rows: Tensor, ids: Tensor, groups: Tensor, weight: Tensor, there: Tensor
) -> tuple[Encoded, Tensor]:
    """Return those of the rows that exist, and their weights."""
    copies = torch.arange(len(rows), device=ids.device) + (rank() << 40)
    if not there.all():
        kept = there.nonzero()[:, 0]
        rows, ids, copies, groups, weight = (part[kept] for part in (rows, ids, copies, groups, weight))
    return Encoded(rows, ids, copies, groups=groups, similarity=view.similarity), weight
