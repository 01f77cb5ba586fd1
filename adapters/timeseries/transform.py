"""The interface of augmentations of time series, and what combines them.

Every number is a function of (seed, epoch, series, view). What is missing (NaN) stays missing, and where time is moved
it moves along; what pads a shorter series stays behind it.

Shapes: B series, T time steps, C channels.
"""

import math
from abc import abstractmethod
from dataclasses import replace

import torch
from torch import Tensor

import kontrast as kt

__all__ = ["InOrder", "SeriesTransform", "SeriesViews", "at_least", "lengths", "normal", "not_negative", "share"]


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


def _view(batch: kt.Batch, transform: SeriesTransform, draws: kt.Draws, number: int) -> kt.View:
    series: Tensor = batch.inputs
    if not isinstance(series, Tensor) or series.ndim != 3 or series.shape[1] < 2:
        found = list(series.shape) if isinstance(series, Tensor) else type(series).__name__
        raise kt.InvalidValueError(
            f"series must be [B, T, C] of 2 or more time steps, got {found}; timeseries.series makes them of arrays"
        )
    view = kt.View.of(batch, transform.change(series, batch.ids, draws, number, 50))
    if not transform.keeps_time:
        return view
    return replace(view, coords=torch.arange(series.shape[1], device=series.device).expand(series.shape[:2]))


def lengths(series: Tensor) -> Tensor:
    """Return up to which step each series has a value, int64 [B], at least 1."""
    there = ~series.isnan().all(2)
    return (there * torch.arange(1, series.shape[1] + 1, device=series.device)).amax(1).clamp(min=1)


def normal(draws: kt.Draws, ids: Tensor, count: int, view: int, stream: int) -> Tensor:
    """Return normal numbers [B, count] (Box and Muller 1958)."""
    radius, angle = draws.uniform(ids, 2 * count, view=view, stream=stream).chunk(2, 1)
    return (-2 * (1 - radius).log()).sqrt() * (2 * math.pi * angle).cos()


def not_negative(value: float, name: str) -> float:
    """Return a number that is >= 0 and finite."""
    if not 0 <= value < math.inf:
        raise kt.InvalidValueError(f"`{name}` must be >= 0 and finite, got {value!r}")
    return value


def at_least(value: int, least: int, name: str) -> int:
    """Return a number that is not below the least."""
    if value < least:
        raise kt.InvalidValueError(f"`{name}` must be >= {least}, got {value!r}")
    return value


def share(value: float, name: str) -> float:
    """Return a share that is in [0, 1)."""
    if not 0 <= value < 1:
        raise kt.InvalidValueError(f"`{name}` must be in [0, 1), got {value!r}")
    return value
