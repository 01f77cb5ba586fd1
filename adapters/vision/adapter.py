"""The vision domain as the command line sees it."""

import kontrast as kt
from kontrast.adapters.vision.data import load

__all__ = ["VisionAdapter"]


class VisionAdapter(kt.Adapter):
    """Images [B, C, H, W]."""

    default_data = "digits"
    default_encoder = "small-cnn"
    default_augmenter = "affine-views"

    def load(self, source: str) -> kt.Splits[kt.ArrayData]:
        """Return `kontrast.adapters.vision.load(source)`."""
        return load(source)
