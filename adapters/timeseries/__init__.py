"""Time series [B, T, C]: batch, time, channel; NaN is what is missing."""

from kontrast.adapters.timeseries.adapter import TimeSeriesAdapter
from kontrast.adapters.timeseries.crops import OverlappingCrops
from kontrast.adapters.timeseries.data import from_frame, series, standardized, windows
from kontrast.adapters.timeseries.encoders import DilatedCNN, InceptionTime, SeriesEncoder, SeriesTransformer
from kontrast.adapters.timeseries.read import load
from kontrast.adapters.timeseries.transforms import (
    ChannelDropping,
    FrequencyMasking,
    InOrder,
    Jitter,
    MagnitudeWarp,
    Permutation,
    Scaling,
    SeriesTransform,
    SeriesViews,
    TimeMasking,
    TimeWarp,
    simclr_views,
)

__all__ = [
    "ChannelDropping",
    "DilatedCNN",
    "FrequencyMasking",
    "InOrder",
    "InceptionTime",
    "Jitter",
    "MagnitudeWarp",
    "OverlappingCrops",
    "Permutation",
    "Scaling",
    "SeriesEncoder",
    "SeriesTransform",
    "SeriesTransformer",
    "SeriesViews",
    "TimeMasking",
    "TimeSeriesAdapter",
    "TimeWarp",
    "from_frame",
    "load",
    "series",
    "simclr_views",
    "standardized",
    "windows",
]
