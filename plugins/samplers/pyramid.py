"""Aligned sequences compared at every scale: with each other at one time, and with themselves at other times.

Shapes: B series, T time steps of a view, L shared time steps, S steps of all levels, D embedding size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kontrast import Encoded, Gives, IncompatibleError, Pairs, PairSampler, across_ranks, all_sum, key

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
        places, valid = _aligned(*encoded)
        rows: Tensor = _Pyramid.apply(encoded[0].dense, encoded[1].dense, places, valid)
        flat, level, weights = _flat(rows, valid, encoded[0])
        levels = valid.shape[0].bit_length()
        candidates = across_ranks(flat)
        instance = Pairs.between(flat, candidates, match="ids", scope="groups", name="instance", weight=0.5)
        found = [replace(instance, anchor_weights=weights)]
        if levels > 1:
            below = replace(flat, ids=torch.where(level < levels - 1, flat.ids, -1))
            weight = 0.5 * (levels - 1) / levels
            temporal = Pairs.between(below, below, match="groups", scope="ids", name="temporal", weight=weight)
            found.append(replace(temporal, anchor_weights=weights))
        return found


def _aligned(first: Encoded, second: Encoded) -> tuple[Tensor, Tensor]:
    """Return where the time steps that both views hold lie in each one's rows [B x T], and which exist, [L, 2, B]."""
    if first.dense is None or second.dense is None or first.dense.ndim != 3:
        raise IncompatibleError(
            "TimePyramid compares time steps, and the encoder gives pooled embeddings alone; take one whose `encode` "
            "fills `dense` [B, T, D]"
        )
    views, starts = [], []
    for view in (first, second):
        assert view.dense is not None
        length = view.dense.shape[1]
        own = torch.arange(length, device=view.ids.device).expand(view.dense.shape[:2])
        starts.append((own if view.coords is None else view.coords)[:, 0])
        views.append(view.dense)
    begin = torch.maximum(*starts)
    ends = [start + dense.shape[1] for start, dense in zip(starts, views, strict=True)]
    count = torch.minimum(*ends) - begin
    shared = int(count.max())
    if shared < 1:
        raise IncompatibleError("TimePyramid needs views that share time steps, and these share none; see coords")
    step = torch.arange(shared, device=begin.device)
    places, valid = [], []
    for view, dense, start in zip((first, second), views, starts, strict=True):
        place = (step + (begin - start)[:, None]).clamp(max=dense.shape[1] - 1)
        there = step < count[:, None]
        valid.append((there if view.valid is None else there & view.valid.gather(1, place)).t())
        places.append((place + torch.arange(len(dense), device=place.device)[:, None] * dense.shape[1]).t())
    return torch.stack(places, 1), torch.stack(valid, 1)


class _Pyramid(torch.autograd.Function):
    """(two views [B, T, D], places and what exists [L, 2, B]) -> the steps of all levels, [S, 2, B, D]."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor, places: Tensor, valid: Tensor) -> Tensor:
        (steps, _, series), size = places.shape, first.shape[2]
        rows = first.new_empty(sum(n for _, n in _spans(steps)), 2, series, size)
        for v, dense in enumerate((first, second)):
            rows[:steps, v] = dense.flatten(0, 1).index_select(0, places[:, v].flatten()).view(steps, series, size)
        if not valid.all():  # what is missing loses against whatever is there
            rows[:steps].masked_fill_(~valid[..., None], torch.finfo(rows.dtype).min)
        firsts = []
        for begin, n in list(_spans(steps))[:-1]:
            half = n // 2
            one, other = (rows[begin + at : begin + 2 * half : 2] for at in (0, 1))
            torch.maximum(one, other, out=rows[begin + n : begin + n + half])
            firsts.append(one >= other)
        ctx.lengths = [len(dense.flatten(0, 1)) for dense in (first, second)]
        ctx.shapes = first.shape, second.shape
        ctx.save_for_backward(places, *firsts)
        return rows

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        places, *firsts = ctx.saved_tensors
        steps = len(places)
        total = gradients[0].clone()
        for (begin, n), first in reversed(list(zip(_spans(steps), firsts, strict=False))):
            half = n // 2
            given = total[begin + n : begin + n + half]
            part = given * first
            total[begin : begin + 2 * half : 2] += part
            total[begin + 1 : begin + 2 * half : 2] += part.neg_().add_(given)
        found: list[Tensor | None] = []
        for v, shape in enumerate(ctx.shapes):
            rows = total.new_zeros(shape)
            rows.view(-1, shape[2]).index_add_(0, places[:, v].flatten(), total[:steps, v].flatten(0, 1))
            found.append(rows)
        return (*found, None, None)


def _spans(steps: int) -> Iterator[tuple[int, int]]:
    """Yield where each level begins among the steps of all, and how many it has."""
    begin = 0
    while steps:
        yield begin, steps
        begin, steps = begin + steps, steps // 2


def _flat(rows: Tensor, valid: Tensor, view: Encoded) -> tuple[Encoded, Tensor, Tensor]:
    """Return the existing steps of all levels as rows (ids: series and level; groups: level and time), level, weight.

    A row's weight is one over the number of rows of its level that have a positive, over all processes.
    """
    there, level, time = [valid], [], []
    for step, (_, n) in enumerate(_spans(len(valid))):
        if step:
            there.append(there[-1][: 2 * n].unflatten(0, (n, 2)).any(1))
        level.append(torch.full((n,), step, device=rows.device))
        time.append(torch.arange(n, device=rows.device))
    exists, shape = torch.cat(there), rows.shape[:3]

    def spread(values: Tensor) -> Tensor:
        return values.expand(shape).flatten()

    level_of, time_of = (spread(torch.cat(part)[:, None, None]) for part in (level, time))
    number = torch.arange(exists.numel(), device=rows.device)
    flat = Encoded(
        rows.flatten(0, 2),
        key(spread(view.ids), level_of),
        key(spread(view.copies) + 1, number),
        groups=(level_of << 32) + time_of,
        similarity=view.similarity,
    )
    paired = torch.zeros(64, dtype=torch.float64, device=rows.device)
    paired.index_add_(0, torch.cat(level), 2 * exists.all(1).sum(1).double())
    weights = all_sum(paired).clamp(min=1).reciprocal()[level_of]
    if exists.all():
        return flat, level_of, weights
    kept = exists.flatten().nonzero().squeeze(1)
    assert flat.rows is not None
    groups = flat.key("groups")
    some = replace(flat, rows=flat.rows[kept], ids=flat.ids[kept], copies=flat.copies[kept], groups=groups[kept])
    return some, level_of[kept], weights[kept]
