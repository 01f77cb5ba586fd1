"""The domains kontrast brings along. Light: nothing here imports torch."""

import kontrast
from kontrast import AdapterRecord, AugmenterRecord, EncoderRecord


@kontrast.hookimpl
def kontrast_adapters() -> list[AdapterRecord]:
    """Return our domains."""
    return [
        AdapterRecord(
            "vision",
            "kontrast.adapters.vision:VisionAdapter",
            "Images [B, C, H, W]",
            extra="kontrast[vision]",
        )
    ]


@kontrast.hookimpl
def kontrast_encoders() -> list[EncoderRecord]:
    """Return the encoders of our domains."""
    home = "kontrast.adapters.vision"
    return [
        EncoderRecord(
            "small-cnn", f"{home}:SmallCNN", "Four convolutions, for images up to 32 pixels", adapter="vision"
        ),
        EncoderRecord(
            "resnet18",
            f"{home}:resnet18",
            "torchvision's ResNet-18, with a stem for small images if asked",
            "arXiv:1512.03385",
            extra="kontrast[vision]",
            adapter="vision",
        ),
    ]


@kontrast.hookimpl
def kontrast_augmenters() -> list[AugmenterRecord]:
    """Return the augmenters of our domains."""
    return [
        AugmenterRecord(
            "affine-views",
            "kontrast.adapters.vision:AffineViews",
            "Crop, shift, scale, rotation, brightness and contrast, batched",
            adapter="vision",
        )
    ]
