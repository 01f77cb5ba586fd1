"""The views of SimCLR and the like, of time series."""

import kontrast as kt
from kontrast.adapters.timeseries.magnitude import Jitter, MagnitudeWarp, Scaling
from kontrast.adapters.timeseries.timing import TimeWarp
from kontrast.adapters.timeseries.transform import InOrder

__all__ = ["simclr_views"]


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
