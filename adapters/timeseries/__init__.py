"""Time series [B, T, C]: batch, time, channel; NaN is what is missing."""

from kontrast.adapters.timeseries.adapter import TimeSeriesAdapter
from kontrast.adapters.timeseries.anomalies import anomaly_scores
from kontrast.adapters.timeseries.crops import OverlappingCrops
from kontrast.adapters.timeseries.data import ConstantSeriesWarning, from_frame, series, standardized, windows
from kontrast.adapters.timeseries.encoders import DilatedCNN, InceptionTime, SeriesEncoder, SeriesTransformer
from kontrast.adapters.timeseries.forecasting import Forecast, forecast
from kontrast.adapters.timeseries.magnitude import Jitter, MagnitudeWarp, Scaling
from kontrast.adapters.timeseries.masking import ChannelDropping, FrequencyMasking, TimeMasking
from kontrast.adapters.timeseries.neighborhood import NeighborWindows
from kontrast.adapters.timeseries.picture import neighbor_picture
from kontrast.adapters.timeseries.read import load
from kontrast.adapters.timeseries.simclr import simclr_views
from kontrast.adapters.timeseries.timing import Permutation, TimeWarp
from kontrast.adapters.timeseries.transform import InOrder, SeriesTransform, SeriesViews

__all__ = [
    "ChannelDropping",
    "ConstantSeriesWarning",
    "DilatedCNN",
    "Forecast",
    "FrequencyMasking",
    "InOrder",
    "InceptionTime",
    "Jitter",
    "MagnitudeWarp",
    "NeighborWindows",
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
    "anomaly_scores",
    "forecast",
    "from_frame",
    "load",
    "neighbor_picture",
    "series",
    "simclr_views",
    "standardized",
    "windows",
]
