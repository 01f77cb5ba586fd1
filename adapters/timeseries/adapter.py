"""The time series domain as the command line sees it."""

import kontrast as kt
from kontrast.adapters.timeseries.read import load

__all__ = ["TimeSeriesAdapter"]


class TimeSeriesAdapter(kt.Adapter):
    """Time series [B, T, C]; NaN is what is missing."""

    default_data = "waves"
    default_encoder = "dilated-cnn"
    default_augmenter = "series-views"
    default_probe = "series-svm,series-nearest"

    def load(self, source: str) -> kt.Splits[kt.ArrayData]:
        """Return `kontrast.adapters.timeseries.load(source)`."""
        return load(source)
