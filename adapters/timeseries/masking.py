"""Augmentations that leave something out: frequencies, channels, time steps.

Shapes: B series, T time steps, C channels.
"""

import torch
from torch import Tensor

import kontrast as kt
from kontrast.adapters.timeseries.transform import SeriesTransform, share

__all__ = ["ChannelDropping", "FrequencyMasking", "TimeMasking"]


class FrequencyMasking(SeriesTransform):
    """A share of the frequencies is taken out; each channel's mean stays, and its variance does not grow.

    Both hold of the steps that have a value. Missing ones, padding too, enter as the channel's mean: frequencies are
    those of all T steps, so that something is left of one that is taken out of a series with gaps.

    Args:
        ratio: chance of each frequency to go, in [0, 1).
        num_views: copies per series.

    Source:
        Chen et al. 2023, arXiv:2302.09292, masks random frequencies for forecasting; here of every channel alike.
    """

    def __init__(self, ratio: float = 0.2, *, num_views: int = 2) -> None:
        super().__init__(num_views)
        self.ratio = share(ratio, "ratio")

    def change(self, series: Tensor, ids: Tensor, draws: kt.Draws, view: int, stream: int) -> Tensor:
        """Mask frequencies."""
        mean = series.nanmean(1, keepdim=True)
        spectrum = torch.fft.rfft((series - mean).nan_to_num(0.0), dim=1)
        kept = draws.uniform(ids, spectrum.shape[1], view=view, stream=stream) >= self.ratio
        masked: Tensor = torch.fft.irfft(spectrum * kept[:, :, None], n=series.shape[1], dim=1)
        masked = masked.masked_fill(series.isnan(), torch.nan)
        # With gaps the known steps' mean moves, since a part of what is left lies in the gaps.
        return masked - masked.nanmean(1, keepdim=True) + mean


class ChannelDropping(SeriesTransform):
    """A share of the channels becomes zero; of those with a value, one always stays.

    Args:
        ratio: chance of each channel to go, in [0, 1).
        num_views: copies per series.
    """

    def __init__(self, ratio: float = 0.2, *, num_views: int = 2) -> None:
        super().__init__(num_views)
        self.ratio = share(ratio, "ratio")

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
        self.ratio = share(ratio, "ratio")

    def change(self, series: Tensor, ids: Tensor, draws: kt.Draws, view: int, stream: int) -> Tensor:
        """Hide time steps."""
        number = draws.uniform(ids, series.shape[1], view=view, stream=stream)
        number = torch.where(series.isnan().all(2), -1.0, number)
        kept = (number >= self.ratio) | (number == number.amax(1, keepdim=True))
        return series.masked_fill(~kept[:, :, None], torch.nan)
