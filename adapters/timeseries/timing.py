"""Augmentations of time: its speed, and its order.

Shapes: B series, T time steps, C channels.
"""

import torch
from torch import Tensor

import kontrast as kt
from kontrast.adapters.timeseries.transform import SeriesTransform, at_least, lengths, normal, not_negative

__all__ = ["Permutation", "TimeWarp"]


class TimeWarp(SeriesTransform):
    """Time runs faster here and slower there; begin and end stay.

    Args:
        std: standard deviation of the logarithm of the speed between knots, >= 0.
        knots: stretches of one speed, >= 2.
        num_views: copies per series.

    Source:
        Um et al. 2017, arXiv:1706.00527, with cubic splines there. Values between steps are linear; next to a missing
        one, that of the nearer step, so that gaps do not grow.
    """

    keeps_time = False

    def __init__(self, std: float = 0.2, knots: int = 4, *, num_views: int = 2) -> None:
        super().__init__(num_views)
        self.std, self.knots = not_negative(std, "std"), at_least(knots, 2, "knots")

    def change(self, series: Tensor, ids: Tensor, draws: kt.Draws, view: int, stream: int) -> Tensor:
        """Resample the series."""
        steps = series.shape[1]
        last = (lengths(series) - 1)[:, None]
        time = torch.arange(steps, device=series.device)
        speed = (self.std * normal(draws, ids, self.knots, view, stream).double()).exp()
        stretch = (time[:-1] * self.knots // last.clamp(min=1)).clamp(max=self.knots - 1)
        passed = torch.nn.functional.pad(speed.gather(1, stretch).cumsum(1), (1, 0))
        # A series of one step has no time to warp; beyond a series' end nothing moves.
        whole = passed.gather(1, last)
        at = torch.where(time < last, passed * (last / torch.where(last > 0, whole, 1.0)), time.double())
        before = at.floor().long().clamp(max=steps - 2)
        share = (at - before)[:, :, None].to(series)
        rows = torch.arange(len(series), device=series.device)[:, None]
        first, second = series[rows, before], series[rows, before + 1]
        nearer = torch.where(share < 0.5, first, second)
        return torch.where(first.isnan() | second.isnan(), nearer, (1 - share) * first + share * second)


class Permutation(SeriesTransform):
    """The series is cut at random places, and the pieces come in another order.

    Args:
        max_segments: at most so many pieces, >= 2; each series draws its own number from 1 on.
        num_views: copies per series.

    Source:
        Um et al. 2017, arXiv:1706.00527.
    """

    keeps_time = False

    def __init__(self, max_segments: int = 5, *, num_views: int = 2) -> None:
        super().__init__(num_views)
        self.max_segments = at_least(max_segments, 2, "max_segments")

    def change(self, series: Tensor, ids: Tensor, draws: kt.Draws, view: int, stream: int) -> Tensor:
        """Reorder the pieces."""
        steps, most = series.shape[1], self.max_segments
        last = lengths(series)[:, None]
        numbers = draws.uniform(ids, 2 * most, view=view, stream=stream).double()
        count = 1 + (numbers[:, :1] * most).long()
        cuts = 1 + (numbers[:, 1:most] * (last - 1)).long()
        cuts = torch.where(torch.arange(1, most, device=ids.device) < count, cuts, steps)
        time = torch.arange(steps, device=ids.device)
        piece = (time[None, :, None] >= cuts[:, None]).sum(2)  # [B, T]
        order = numbers[:, most:].gather(1, piece).masked_fill(time >= last, torch.inf)
        # Steps sorted by their piece's number; a stable sort keeps those of one piece in order.
        index = order.argsort(dim=1, stable=True)
        return series.gather(1, index[:, :, None].expand_as(series))
