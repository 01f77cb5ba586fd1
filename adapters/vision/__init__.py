"""Vision: images as tensors [B, C, H, W], values in [0, 1]."""

from kontrast.adapters.vision.adapter import VisionAdapter
from kontrast.adapters.vision.augment import AffineViews
from kontrast.adapters.vision.data import images, load
from kontrast.adapters.vision.encoders import SmallCNN, resnet18

__all__ = ["AffineViews", "SmallCNN", "VisionAdapter", "images", "load", "resnet18"]
