"""Augmentations of time series, whole batches at once; every number is a function of (seed, epoch, series, view).

What is missing (NaN) stays missing, and where time is moved it moves along; what pads a shorter series stays behind it.

Shapes: B series, T time steps, C channels, K knots.
"""

import math
from abc import abstractmethod
from dataclasses import replace

import torch
from torch import Tensor

import kontrast as kt

__all__ = [
    "ChannelDropping",
    "FrequencyMasking",
    "InOrder",
    "Jitter",
    "MagnitudeWarp",
    "Permutation",
    "Scaling",
    "SeriesTransform",
    "SeriesViews",
    "TimeMasking",
    "TimeWarp",
    "simclr_views",
]


class SeriesTransform(kt.Augmenter):
    """One way to change series [B, T, C]; by itself an augmenter that makes `num_views` views.

    Args:
        num_views: copies per series.
    """

    keeps_time = True  # whether step t of the copy is step t of the series

    def __init__(self, num_views: int = 2) -> None:
        super().__init__()
        if num_views < 1:
            raise kt.InvalidValueError(f"`num_views` must be >= 1, got {num_views!r}")
        self.num_views = num_views

    @abstractmethod
    def change(self, series: Tensor, ids: Tensor, draws: kt.Draws, view: int, stream: int) -> Tensor:
        """Return changed series [B, T, C].

        Args:
            series: [B, T, C].
            ids: of the series, int64 [B].
            draws: where random numbers come from.
            view: number of the copy.
            stream: a number of its own, so that transforms of one copy do not draw the same; `stream + 1` is free too.
        """

    def forward(self, batch: kt.Batch, draws: kt.Draws) -> list[kt.View]:
        """Return the views of series [B, T, C]."""
        return [_view(batch, self, draws, number) for number in range(self.num_views)]


class SeriesViews(kt.Augmenter):
    """One view by each of several transforms.

    Args:
        transforms: of the first view, of the second and so on.
    """

    def __init__(self, *transforms: SeriesTransform) -> None:
        super().__init__()
        if not transforms:
            raise kt.InvalidValueError("SeriesViews must be given one transform per view, got none")
        self.transforms = torch.nn.ModuleList(transforms)

    def forward(self, batch: kt.Batch, draws: kt.Draws) -> list[kt.View]:
        """Return the views of series [B, T, C]."""
        views = []
        for number, transform in enumerate(self.transforms):
            assert isinstance(transform, SeriesTransform)
            views.append(_view(batch, transform, draws, number))
        return views


class InOrder(SeriesTransform):
    """Several transforms one after the other.

    Args:
        transforms: first to last.
        num_views: copies per series.
    """

    def __init__(self, *transforms: SeriesTransform, num_views: int = 2) -> None:
        super().__init__(num_views)
        self.transforms = torch.nn.ModuleList(transforms)
        self.keeps_time = all(transform.keeps_time for transform in transforms)

    def change(self, series: Tensor, ids: Tensor, draws: kt.Draws, view: int, stream: int) -> Tensor:
        """Return the series after the last transform."""
        for number, transform in enumerate(self.transforms):
            assert isinstance(transform, SeriesTransform)
            series = transform.change(series, ids, draws, view, (stream << 6) + 2 * number)
        return series


class Jitter(SeriesTransform):
    """Normal noise on every value.

    Args:
        std: standard deviation, in units of the values, >= 0.
        num_views: copies per series.

    Source:
        Um et al. 2017, arXiv:1706.00527.
    """

    def __init__(self, std: float = 0.1, *, num_views: int = 2) -> None:
        super().__init__(num_views)
        self.std = _not_negative(std, "std")

    def change(self, series: Tensor, ids: Tensor, draws: kt.Draws, view: int, stream: int) -> Tensor:
        """Add the noise."""
        noise = _normal(draws, ids, series[0].numel(), view, stream)
        return series + self.std * noise.reshape(series.shape).to(series)


class Scaling(SeriesTransform):
    """Each channel times a number of its own around 1.

    Args:
        std: standard deviation of that number, >= 0.
        num_views: copies per series.

    Source:
        Um et al. 2017, arXiv:1706.00527.
    """

    def __init__(self, std: float = 0.2, *, num_views: int = 2) -> None:
        super().__init__(num_views)
        self.std = _not_negative(std, "std")

    def change(self, series: Tensor, ids: Tensor, draws: kt.Draws, view: int, stream: int) -> Tensor:
        """Scale the channels."""
        return series * (1 + self.std * _normal(draws, ids, series.shape[2], view, stream)).to(series)[:, None]


class MagnitudeWarp(SeriesTransform):
    """Each channel times a smooth curve around 1.

    Args:
        std: standard deviation of the curve at its knots, >= 0.
        knots: of the curve, >= 2; linear in between.
        num_views: copies per series.

    Source:
        Um et al. 2017, arXiv:1706.00527, with cubic splines there.
    """

    def __init__(self, std: float = 0.2, knots: int = 4, *, num_views: int = 2) -> None:
        super().__init__(num_views)
        self.std, self.knots = _not_negative(std, "std"), _at_least(knots, 2, "knots")

    def change(self, series: Tensor, ids: Tensor, draws: kt.Draws, view: int, stream: int) -> Tensor:
        """Multiply by the curves."""
        b, t, c = series.shape
        at_knots = _normal(draws, ids, c * self.knots, view, stream).reshape(b, c, self.knots)
        curve = torch.nn.functional.interpolate(at_knots, size=t, mode="linear", align_corners=True)
        return series * (1 + self.std * curve).transpose(1, 2).to(series)


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
        self.std, self.knots = _not_negative(std, "std"), _at_least(knots, 2, "knots")

    def change(self, series: Tensor, ids: Tensor, draws: kt.Draws, view: int, stream: int) -> Tensor:
        """Resample the series."""
        steps = series.shape[1]
        last = (_lengths(series) - 1)[:, None]
        time = torch.arange(steps, device=series.device)
        speed = (self.std * _normal(draws, ids, self.knots, view, stream).double()).exp()
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
        self.max_segments = _at_least(max_segments, 2, "max_segments")

    def change(self, series: Tensor, ids: Tensor, draws: kt.Draws, view: int, stream: int) -> Tensor:
        """Reorder the pieces."""
        steps, most = series.shape[1], self.max_segments
        lengths = _lengths(series)[:, None]
        numbers = draws.uniform(ids, 2 * most, view=view, stream=stream).double()
        count = 1 + (numbers[:, :1] * most).long()
        cuts = 1 + (numbers[:, 1:most] * (lengths - 1)).long()
        cuts = torch.where(torch.arange(1, most, device=ids.device) < count, cuts, steps)
        time = torch.arange(steps, device=ids.device)
        piece = (time[None, :, None] >= cuts[:, None]).sum(2)  # [B, T]
        order = numbers[:, most:].gather(1, piece).masked_fill(time >= lengths, torch.inf)
        # Steps sorted by their piece's number; a stable sort keeps those of one piece in order.
        index = order.argsort(dim=1, stable=True)
        return series.gather(1, index[:, :, None].expand_as(series))


class FrequencyMasking(SeriesTransform):
    """A share of the frequencies is taken out; the mean stays.

    Args:
        ratio: chance of each frequency to go, in [0, 1).
        num_views: copies per series.

    Source:
        Chen et al. 2023, arXiv:2302.09292, masks random frequencies for forecasting; here of every channel alike.
    """

    def __init__(self, ratio: float = 0.2, *, num_views: int = 2) -> None:
        super().__init__(num_views)
        self.ratio = _share(ratio)

    def change(self, series: Tensor, ids: Tensor, draws: kt.Draws, view: int, stream: int) -> Tensor:
        """Mask frequencies; what is missing counts as zero."""
        spectrum = torch.fft.rfft(series.nan_to_num(0.0), dim=1)
        kept = draws.uniform(ids, spectrum.shape[1], view=view, stream=stream) >= self.ratio
        kept[:, 0] = True
        masked = torch.fft.irfft(spectrum * kept[:, :, None], n=series.shape[1], dim=1)
        return torch.where(series.isnan(), series, masked)


class ChannelDropping(SeriesTransform):
    """A share of the channels becomes zero; of those with a value, one always stays.

    Args:
        ratio: chance of each channel to go, in [0, 1).
        num_views: copies per series.
    """

    def __init__(self, ratio: float = 0.2, *, num_views: int = 2) -> None:
        super().__init__(num_views)
        self.ratio = _share(ratio)

    def change(self, series: Tensor, ids: Tensor, draws: kt.Draws, view: int, stream: int) -> Tensor:
        """Drop channels."""
        number = draws.uniform(ids, series.shape[2], view=view, stream=stream)
        there = torch.where(series.isnan().all(1), -1.0, number)
        kept = (number >= self.ratio) | (there == there.amax(1, keepdim=True))
        return torch.where(kept[:, None] | series.isnan(), series, 0.0)


class TimeMasking(SeriesTransform):
    """A share of the time steps goes missing (NaN); of those with a value, one always stays.

    Args:
        ratio: chance of each time step to go, in [0, 1).
        num_views: copies per series.
    """

    def __init__(self, ratio: float = 0.2, *, num_views: int = 2) -> None:
        super().__init__(num_views)
        self.ratio = _share(ratio)

    def change(self, series: Tensor, ids: Tensor, draws: kt.Draws, view: int, stream: int) -> Tensor:
        """Hide time steps."""
        number = draws.uniform(ids, series.shape[1], view=view, stream=stream)
        number = torch.where(series.isnan().all(2), -1.0, number)
        kept = (number >= self.ratio) | (number == number.amax(1, keepdim=True))
        return series.masked_fill(~kept[:, :, None], torch.nan)


def simclr_views(
    jitter: float = 0.1, scaling: float = 0.2, time_warp: float = 0.2, magnitude_warp: float = 0.2
) -> kt.Augmenter:
    """Return two views for SimCLR, MoCo, BYOL and the like: warped in time and magnitude, scaled, with noise.

    Args:
        jitter: standard deviation of the noise, in units of the values.
        scaling: of the channels' factor.
        time_warp: of the logarithm of the speed.
        magnitude_warp: of the curve that multiplies.

    Raises:
        InvalidValueError: if one is < 0.

    Source:
        The transforms are Um et al. 2017, arXiv:1706.00527; together as in Tang et al. 2020, arXiv:2011.11542.
    """
    return InOrder(TimeWarp(time_warp), MagnitudeWarp(magnitude_warp), Scaling(scaling), Jitter(jitter))


def _view(batch: kt.Batch, transform: SeriesTransform, draws: kt.Draws, number: int) -> kt.View:
    series: Tensor = batch.inputs
    if not isinstance(series, Tensor) or series.ndim != 3 or series.shape[1] < 2:
        found = list(series.shape) if isinstance(series, Tensor) else type(series).__name__
        raise kt.InvalidValueError(f"series must be [B, T, C] of 2 or more time steps, got {found}")
    view = kt.View.of(batch, transform.change(series, batch.ids, draws, number, 50))
    if not transform.keeps_time:
        return view
    return replace(view, coords=torch.arange(series.shape[1], device=series.device).expand(series.shape[:2]))


def _lengths(series: Tensor) -> Tensor:
    """Return up to which step each series has a value, int64 [B], at least 1."""
    there = ~series.isnan().all(2)
    return (there * torch.arange(1, series.shape[1] + 1, device=series.device)).amax(1).clamp(min=1)


def _normal(draws: kt.Draws, ids: Tensor, count: int, view: int, stream: int) -> Tensor:
    """Return normal numbers [B, count] (Box and Muller 1958)."""
    radius, angle = draws.uniform(ids, 2 * count, view=view, stream=stream).chunk(2, 1)
    return (-2 * (1 - radius).log()).sqrt() * (2 * math.pi * angle).cos()


def _not_negative(value: float, name: str) -> float:
    if not 0 <= value < math.inf:
        raise kt.InvalidValueError(f"`{name}` must be >= 0 and finite, got {value!r}")
    return value


def _at_least(value: int, least: int, name: str) -> int:
    if value < least:
        raise kt.InvalidValueError(f"`{name}` must be >= {least}, got {value!r}")
    return value


def _share(value: float) -> float:
    if not 0 <= value < 1:
        raise kt.InvalidValueError(f"`ratio` must be in [0, 1), got {value!r}")
    return value
