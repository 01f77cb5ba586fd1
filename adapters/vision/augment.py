"""Image augmentation of a whole batch at once, each image with its own random parameters.

Shapes: B images, C channels, H x W pixels.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

import kontrast as kt

__all__ = ["AffineViews"]


class AffineViews(kt.Augmenter):
    """Crop, shift, scale and turn (one resampling, zeros outside), then brightness and contrast.

    Args:
        size: height and width of the views in pixels; 0: those of the images.
        num_views: copies per image.
        crop: smallest area of a crop as a share of the image, in (0, 1]; the crop is resized to the view.
        shift: farthest move, as a share of the side, in [0, 1).
        scale: largest zoom in or out as a factor >= 1; drawn evenly on the logarithm.
        rotation: largest turn either way, in degrees.
        brightness: largest amount added to or taken from all pixels, in [0, 1].
        contrast: largest factor >= 1 of the distance to the image's mean; drawn evenly on the logarithm.

    Raises:
        InvalidValueError: if a parameter is out of range.
    """

    def __init__(
        self,
        size: int = 0,
        *,
        num_views: int = 2,
        crop: float = 1.0,
        shift: float = 0.1,
        scale: float = 1.2,
        rotation: float = 20.0,
        brightness: float = 0.1,
        contrast: float = 1.3,
    ) -> None:
        super().__init__()
        for name, value, rule, holds in (
            ("size", size, ">= 0", size >= 0),
            ("num_views", num_views, ">= 1", num_views >= 1),
            ("crop", crop, "in (0, 1]", 0 < crop <= 1),
            ("shift", shift, "in [0, 1)", 0 <= shift < 1),
            ("scale", scale, ">= 1", scale >= 1),
            ("rotation", rotation, "in [0, 180], in degrees", 0 <= rotation <= 180),
            ("brightness", brightness, "in [0, 1]", 0 <= brightness <= 1),
            ("contrast", contrast, ">= 1", contrast >= 1),
        ):
            if not holds:
                raise kt.InvalidValueError(f"`{name}` must be {rule}, got {value!r}")
        self.size, self.num_views = size, num_views
        self.crop, self.shift, self.scale, self.rotation = crop, shift, scale, rotation
        self.brightness, self.contrast = brightness, contrast

    def forward(self, batch: kt.Batch, draws: kt.Draws) -> list[kt.View]:
        """Return the views of images [B, C, H, W], floating point in 0..1."""
        images = batch.inputs
        if not isinstance(images, Tensor) or images.ndim != 4 or not images.dtype.is_floating_point:
            found = f"{images.dtype} {list(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
            raise kt.InvalidValueError(
                f"images must be floating point [B, C, H, W], got {found}; make them with vision.images"
            )
        return [
            kt.View.of(batch, self._moved(batch.inputs, draws.uniform(batch.ids, 9, view=view)))
            for view in range(self.num_views)
        ]

    def _moved(self, images: Tensor, uniform: Tensor) -> Tensor:
        signed = (2 * uniform - 1).to(images.dtype)
        angle = signed[:, 0] * math.radians(self.rotation)
        zoom = torch.exp(signed[:, 1] * math.log(self.scale))
        # A crop of share a is a zoom by sqrt(a) towards a centre that keeps it inside; sides run from -1 to 1.
        side = torch.sqrt(self.crop + (1 - self.crop) * uniform[:, 2].to(images.dtype))
        centre = signed[:, 3:5] * (1 - side[:, None]) + signed[:, 5:7] * (2 * self.shift)
        cosine, sine = angle.cos() * side * zoom, angle.sin() * side * zoom
        aspect = (
            images.shape[2] / images.shape[3]
        )  # a turn is one in pixels, and sides are -1 to 1 whatever their length
        rotation = torch.stack([torch.stack([cosine, -sine * aspect], 1), torch.stack([sine / aspect, cosine], 1)], 1)
        theta = torch.cat([rotation, centre[:, :, None]], 2)
        shape = [*images.shape[:2], self.size or images.shape[2], self.size or images.shape[3]]
        grid = F.affine_grid(theta, shape, align_corners=False)
        # Zero outside the image, but not faded towards its edge, which would tell where a crop was.
        inside = (grid.abs() <= 1).all(-1)[:, None]
        moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False) * inside
        mean = moved.mean((1, 2, 3), keepdim=True)
        factor = torch.exp(signed[:, 7] * math.log(self.contrast))[:, None, None, None]
        return ((moved - mean) * factor + mean + signed[:, 8, None, None, None] * self.brightness).clamp(0, 1)
