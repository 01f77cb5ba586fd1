"""Aligned sequences compared at every scale: with each other at one time, and with themselves at other times.

Shapes: B series, T time steps of a view, L shared time steps, D embedding size.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from kontrast import Encoded, Gives, IncompatibleError, Pairs, PairSampler, across_ranks

__all__ = ["TimePyramid"]


class TimePyramid(PairSampler):
    """TS2Vec's hierarchy: time steps that two views share, then their maxima in pairs, down to one.

    At each level two Pairs, in both of which a row's positive is the same time of the same series in the other view.
    `instance_0, instance_1, ...`: the negatives are other series of all processes, at the same time.
    `temporal_0, ...`: they are other times of the same series; the last level has but one time and none of these. Each
    weighs the same, all of them one half per level together.

    The encoder must give `dense` embeddings, one per time step; views are aligned by their `coords`, which must rise by
    one from step to step.

    Source:
        Yue et al. 2022, arXiv:2106.10466, section 3.3 and 3.4. Differs from it: steps that are missing are left out.
    """

    @property
    def gives(self) -> Gives:
        """Negatives from two series on."""
        return Gives(min_batch=2)

    def pairs(self, encoded: Sequence[Encoded]) -> list[Pairs]:
        """Return the comparisons of two views, finest level first."""
        if len(encoded) != 2:
            raise IncompatibleError(f"TimePyramid compares two views, and there are {len(encoded)}")
        rows, valid = _aligned(*encoded)  # [2, B, L, D], [2, B, L]
        levels = rows.shape[2].bit_length()
        weight = 0.5 / levels
        pairs = []
        for level in range(levels):
            flat = _flat(rows, valid, encoded[0])
            candidates = across_ranks(flat)
            name = f"instance_{level}"
            pairs.append(Pairs.between(flat, candidates, match="ids", scope="groups", name=name, weight=weight))
            if level + 1 < levels:
                name = f"temporal_{level}"
                pairs.append(Pairs.between(flat, flat, match="groups", scope="ids", name=name, weight=weight))
                rows, valid = _halved(rows, valid)
        return pairs


def _aligned(first: Encoded, second: Encoded) -> tuple[Tensor, Tensor]:
    """Return the embeddings of the time steps that both views hold, and which of them exist."""
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
    rows, valid = [], []
    for view, dense, start in zip((first, second), views, starts, strict=True):
        place = (step + (begin - start)[:, None]).clamp(max=dense.shape[1] - 1)
        rows.append(dense.gather(1, place[:, :, None].expand(-1, -1, dense.shape[2])))
        there = step < count[:, None]
        valid.append(there if view.valid is None else there & view.valid.gather(1, place))
    return torch.stack(rows), torch.stack(valid)


def _halved(rows: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Return the maxima of neighbouring time steps, and which of them exist."""
    steps = rows.shape[2] // 2
    if valid.all():
        # Over a transposed view, a pooling kernel would copy twice.
        return rows[:, :, : 2 * steps].unflatten(2, (steps, 2)).amax(3), valid[:, :, :steps]
    least = rows.masked_fill(~valid[..., None], -torch.inf)[:, :, : 2 * steps].unflatten(2, (steps, 2)).amax(3)
    there = valid[:, :, : 2 * steps].unflatten(2, (steps, 2)).any(3)
    return F.threshold(least, torch.finfo(rows.dtype).min, 0.0), there


def _flat(rows: Tensor, valid: Tensor, view: Encoded) -> Encoded:
    """Return the existing time steps as rows: their id is the series', their group the time."""
    views, series, steps, _ = rows.shape
    number = torch.arange(views * series * steps, device=rows.device)
    time, sample = number % steps, number // steps % series
    copy = view.copies[sample] * (views * steps) + number // (series * steps) * steps + time
    flat = Encoded(rows.flatten(0, 2), view.ids[sample], copy, groups=time, similarity=view.similarity)
    there = valid.flatten()
    if there.all():
        return flat
    kept = there.nonzero().squeeze(1)
    assert flat.rows is not None
    return Encoded(flat.rows[kept], flat.ids[kept], copy[kept], groups=time[kept], similarity=view.similarity)
