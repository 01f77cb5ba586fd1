"""Augmentations of the values: noise, factors, smooth curves.

Shapes: B series, T time steps, C channels.
"""

import torch
from torch import Tensor

import kontrast as kt
from kontrast.adapters.timeseries.transform import SeriesTransform, at_least, lengths, normal, not_negative

__all__ = ["Jitter", "MagnitudeWarp", "Scaling"]


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
        self.std = not_negative(std, "std")

    def change(self, series: Tensor, ids: Tensor, draws: kt.Draws, view: int, stream: int) -> Tensor:
        """Add the noise."""
        noise = normal(draws, ids, series[0].numel(), view, stream)
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
        self.std = not_negative(std, "std")

    def change(self, series: Tensor, ids: Tensor, draws: kt.Draws, view: int, stream: int) -> Tensor:
        """Scale the channels."""
        return series * (1 + self.std * normal(draws, ids, series.shape[2], view, stream)).to(series)[:, None]


class MagnitudeWarp(SeriesTransform):
    """Each channel times a smooth curve around 1.

    Args:
        std: standard deviation of the curve at its knots, >= 0.
        knots: of the curve, >= 2, from a series' begin to its end whatever its length; linear in between.
        num_views: copies per series.

    Source:
        Um et al. 2017, arXiv:1706.00527, with cubic splines there.
    """

    def __init__(self, std: float = 0.2, knots: int = 4, *, num_views: int = 2) -> None:
        super().__init__(num_views)
        self.std, self.knots = not_negative(std, "std"), at_least(knots, 2, "knots")

    def change(self, series: Tensor, ids: Tensor, draws: kt.Draws, view: int, stream: int) -> Tensor:
        """Multiply by the curves."""
        b, t, c = series.shape
        at_knots = normal(draws, ids, c * self.knots, view, stream).reshape(b, c, self.knots).transpose(1, 2)
        last = (lengths(series) - 1).clamp(min=1)[:, None]
        at = torch.arange(t, device=series.device).clamp(max=last) * ((self.knots - 1) / last)
        before = at.floor().long().clamp(max=self.knots - 2)
        rows = torch.arange(b, device=series.device)[:, None]
        curve = torch.lerp(at_knots[rows, before], at_knots[rows, before + 1], (at - before)[:, :, None].to(at_knots))
        return series * (1 + self.std * curve).to(series)
