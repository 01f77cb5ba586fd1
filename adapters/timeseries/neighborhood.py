"""TNC's augmentation: a window of each series, windows near it, and windows far away.

Shapes: B series, T time steps, C channels, K windows near and far of each series.
"""

import torch
from torch import Tensor

import kontrast as kt
from kontrast.adapters.timeseries.stationarity import adf_p_values
from kontrast.adapters.timeseries.transform import at_least, lengths, normal, share

__all__ = ["NeighborWindows"]

PLACE, NEAR, FAR = 44, 45, 46  # streams of random numbers; NEAR draws from two
SHORTEST = 8  # what a test of stationarity takes
APART = 5  # a far window is this many reaches of the neighbourhood away


class NeighborWindows(kt.Augmenter):
    """Three views: one window [B, window, C], `count` near it, and `count` far from it, [B x count, window, C] each.

    A neighbourhood reaches as far as the series is stationary around the window: stretches of one to `widths` windows
    to either side are tested, and the first that is not ends it. Near windows lie around the first by a normal
    distribution with that reach as standard deviation; far ones at least five reaches away, on the longer side, or at
    its end where it is shorter. Windows lie where a series has values; `coords` say where.

    Args:
        window: time steps, >= 4.
        count: windows near and windows far, >= 1 (the paper's code takes 40).
        widths: of the widest neighbourhood, in windows, >= 1.
        significance: of the test, the mean over channels of the p-value below which a stretch is stationary, in [0, 1).

    Raises:
        InvalidValueError: if a parameter is out of range, or series are shorter than a window or 8 steps.

    Source:
        Tonekaboni et al. 2021, arXiv:2106.00750, section 3, with its code's distances. Differs from it: stretches that
        would pass a series' end are moved inside, not cut, so that all are of one length; one that is constant counts
        as stationary; a gap is filled with the channel's mean for the test; the first window may lie anywhere.
    """

    def __init__(self, window: int = 16, count: int = 8, widths: int = 4, significance: float = 0.01) -> None:
        super().__init__()
        self.window, self.count = at_least(window, 4, "window"), at_least(count, 1, "count")
        self.widths, self.significance = at_least(widths, 1, "widths"), share(significance, "significance")

    def forward(self, batch: kt.Batch, draws: kt.Draws) -> list[kt.View]:
        """Return the windows of series [B, T, C]."""
        series: Tensor = batch.inputs
        if series.shape[1] < max(self.window, SHORTEST):
            raise kt.InvalidValueError(
                f"series must have at least {max(self.window, SHORTEST)} time steps, got {series.shape[1]}; "
                "take a smaller `window`"
            )
        last = (lengths(series) - self.window).clamp(min=0)[:, None]  # where a window may begin at most
        begin = (draws.uniform(batch.ids, 1, stream=PLACE).double() * (last + 1)).long()
        reach = self.reach(series, begin[:, 0])[:, None] * self.window
        near = begin + (normal(draws, batch.ids, self.count, 0, NEAR) * reach).round().long()
        low, high = torch.zeros_like(begin), (begin - APART * reach).clamp(min=0)
        forward = begin < last / 2
        low = torch.where(forward, torch.minimum(begin + APART * reach, last), low)
        high = torch.where(forward, last, high)
        number = draws.uniform(batch.ids, self.count, stream=FAR).double()
        far = low + (number * (high - low + 1)).long()
        return [self._view(batch, places) for places in (begin, near.clamp(min=0).minimum(last), far)]

    def reach(self, series: Tensor, begin: Tensor) -> Tensor:
        """Return how far each neighbourhood reaches to either side, in windows, int64 [B].

        Args:
            series: [B, T, C].
            begin: where each window begins, int64 [B].
        """
        whole = lengths(series)
        filled = torch.where(series.isnan(), series.nanmean(1, keepdim=True).nan_to_num(0.0), series)
        rows = torch.arange(len(series), device=series.device)[:, None]
        stationary = []
        for width in range(1, self.widths + 1):
            steps = min(max(2 * width * self.window, SHORTEST), series.shape[1])
            first = begin + self.window // 2 - steps // 2
            first = first.clamp(min=0).minimum((whole - steps).clamp(min=0))
            stretch = filled[rows, first[:, None] + torch.arange(steps, device=series.device)]
            chances = adf_p_values(stretch.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(series), -1))
            stationary.append(chances.mean(1) < self.significance)
        return (1 + torch.stack(stationary, 1).long().cumprod(1).sum(1)).clamp(max=self.widths)

    def _view(self, batch: kt.Batch, begin: Tensor) -> kt.View:
        """Return the windows that begin at given steps, int64 [B, K]."""
        coords = (begin[:, :, None] + torch.arange(self.window, device=begin.device)).flatten(0, 1)
        row = torch.arange(len(begin), device=begin.device).repeat_interleave(begin.shape[1])
        labels, groups = (None if key is None else key[row] for key in (batch.labels, batch.groups))
        return kt.View(batch.inputs[row[:, None], coords], batch.ids[row], labels, groups, coords=coords)
