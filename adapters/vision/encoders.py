"""Image encoders.

Shapes: B images, C channels, H x W pixels.
"""

from torch import Tensor, nn

import kontrast as kt

__all__ = ["SmallCNN", "resnet18"]


class SmallCNN(kt.Encoder):
    """Four 3 x 3 convolutions with batch norm and ReLU, two of them halving, and a mean over positions.

    Args:
        in_channels: C of the images.
        width: channels of the first layer; the last has 4 times as many, which is the representation's size.
    """

    def __init__(self, in_channels: int = 3, width: int = 32) -> None:
        super().__init__()
        if width < 1:
            raise kt.InvalidValueError(f"`width` must be >= 1, got {width!r}")
        widths = [in_channels, width, 2 * width, 2 * width, 4 * width]
        layers: list[nn.Module] = []
        for depth, stride in enumerate((1, 2, 1, 2)):
            layers += [
                nn.Conv2d(widths[depth], widths[depth + 1], 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(widths[depth + 1]),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(*layers)
        self.in_channels = in_channels
        self.representation_size = widths[-1]

    def forward(self, inputs: Tensor) -> Tensor:
        """Return representations [B, 4 x width] of images [B, C, H, W]."""
        _check_images(inputs, self.in_channels)
        features: Tensor = self.layers(inputs)
        return features.mean((2, 3))


class _ResNet(kt.Encoder):
    """A torchvision ResNet without its classifier."""

    def __init__(self, trunk: nn.Module, in_channels: int, representation_size: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.in_channels = in_channels
        self.representation_size = representation_size

    def forward(self, inputs: Tensor) -> Tensor:
        """Return representations [B, 512] of images [B, C, H, W]."""
        _check_images(inputs, self.in_channels)
        features: Tensor = self.trunk(inputs)
        return features


def resnet18(in_channels: int = 3, small_images: bool = False) -> kt.Encoder:
    """Return torchvision's ResNet-18 without its classifier, weights drawn at random.

    Args:
        in_channels: C of the images.
        small_images: a 3 x 3 stem of stride 1 and no max-pooling, for images up to about 64 pixels (CIFAR).

    Source:
        He et al. 2016, arXiv:1512.03385; the stem for small images: Chen et al. 2020, arXiv:2002.05709, appendix B.9.
    """
    models = kt.optional_import("torchvision.models", extra="kontrast[vision]", purpose="the encoder `resnet18`")
    trunk = models.resnet18()
    size: int = trunk.fc.in_features
    trunk.fc = nn.Identity()
    if small_images:
        trunk.conv1 = nn.Conv2d(in_channels, 64, 3, stride=1, padding=1, bias=False)
        trunk.maxpool = nn.Identity()
    elif in_channels != 3:
        trunk.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
    return _ResNet(trunk, in_channels, size)


def _check_images(inputs: Tensor, channels: int) -> None:
    if inputs.ndim != 4 or inputs.shape[1] != channels or not inputs.dtype.is_floating_point:
        raise kt.InvalidValueError(
            f"images must be floating point [B, {channels}, H, W], got {inputs.dtype} {list(inputs.shape)}"
        )
