import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import kontrast as kt
from kontrast.adapters.vision import AffineViews

NOTHING: dict[str, Any] = {"shift": 0.0, "scale": 1.0, "rotation": 0.0, "brightness": 0.0, "contrast": 1.0}


class Constant(kt.Draws):
    """Draws whose every number is one and the same: 0 and 1 are the ends of each parameter's range."""

    def __init__(self, value: float) -> None:
        super().__init__(seed=0)
        object.__setattr__(self, "value", value)

    def uniform(self, ids: Tensor, count: int, *, view: int = 0, stream: int = 0) -> Tensor:
        return torch.full((len(ids), count), float(getattr(self, "value")))  # noqa: B009


def pictures(*shape: int, seed: int = 0) -> Tensor:
    # Away from 0 and 1, so that nothing is clamped and zeros are the outside.
    return 0.3 + 0.4 * torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def view(images: Tensor, draws: kt.Draws, size: int = 0, **parameters: Any) -> Tensor:
    batch = kt.Batch(images, torch.arange(len(images)))
    (made,) = AffineViews(size, num_views=1, **{**NOTHING, **parameters})(batch, draws)
    assert isinstance(made.inputs, Tensor)
    return made.inputs


def assert_ends(images: Tensor, expected: tuple[Tensor, Tensor], inside: Any = ..., **parameters: Any) -> None:
    """The two ends of a parameter's range give these two, in either order."""
    ends = [view(images, Constant(value), **parameters)[inside] for value in (0.0, 1.0)]
    want = [other[inside] for other in expected]
    if not torch.allclose(ends[0], want[0], rtol=0, atol=1e-9):
        want.reverse()
    for found, other in zip(ends, want, strict=True):
        torch.testing.assert_close(found, other, rtol=0, atol=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (3, 1, 5, 9)])
def test_nothing_to_do_gives_the_image(shape: tuple[int, ...], value: float) -> None:
    torch.testing.assert_close(view(pictures(*shape), Constant(value)), pictures(*shape), rtol=0, atol=1e-9)


def test_the_middle_of_every_range_is_the_image() -> None:
    everything: dict[str, Any] = {"shift": 0.3, "scale": 2.0, "rotation": 90.0, "brightness": 0.5, "contrast": 2.0}
    images = pictures(2, 3, 8, 8)
    torch.testing.assert_close(view(images, Constant(0.5), **everything), images, rtol=0, atol=1e-9)


def shifted(images: Tensor, rows: int, columns: int) -> Tensor:
    """Move the content, pixel by pixel, with zeros where it came from."""
    height, width = images.shape[2:]
    moved = torch.zeros_like(images)
    for i in range(height):
        for j in range(width):
            if 0 <= i - rows < height and 0 <= j - columns < width:
                moved[:, :, i, j] = images[:, :, i - rows, j - columns]
    return moved


@pytest.mark.parametrize(("height", "width", "share"), [(8, 8, 0.125), (8, 8, 0.375), (8, 16, 0.25), (10, 5, 0.2)])
def test_a_shift_by_whole_pixels_moves_the_content(height: int, width: int, share: float) -> None:
    images = pictures(2, 3, height, width)
    rows, columns = round(share * height), round(share * width)
    assert_ends(images, (shifted(images, rows, columns), shifted(images, -rows, -columns)), shift=share)
    # The oracle is a roll where nothing left the picture.
    inner = (..., slice(rows, -rows), slice(columns, -columns))
    rolled = [images.roll((sign * rows, sign * columns), (2, 3)) for sign in (1, -1)]
    assert_ends(images, (rolled[0], rolled[1]), inner, shift=share)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_quarter_turn_is_rot90(channels: int) -> None:
    images = pictures(2, channels, 7, 7)
    assert_ends(images, (images.rot90(1, (2, 3)), images.rot90(-1, (2, 3))), rotation=90)
    assert_ends(images, (images.rot90(2, (2, 3)), images.rot90(2, (2, 3))), rotation=180)


def test_a_turn_of_a_wide_image_is_a_turn() -> None:
    images = pictures(1, 1, 8, 16)
    middle = images[..., 4:12]

    def turned(times: int) -> Tensor:
        return F.pad(middle.rot90(times, (2, 3)), (4, 4))

    assert_ends(images, (turned(1), turned(-1)), rotation=90)


def test_scale_zooms_in_and_out() -> None:
    images = pictures(2, 3, 8, 8)
    out = F.pad(F.avg_pool2d(images, 2), (2, 2, 2, 2))
    closer = F.interpolate(images[:, :, 1:7, 1:7], scale_factor=2, mode="bilinear")[:, :, 2:10, 2:10]
    assert_ends(images, (out, closer), scale=2)


def test_the_smallest_crop_is_a_quadrant_of_the_image() -> None:
    images = pictures(2, 3, 8, 8)
    quadrants = [images[:, :, i : i + 4, j : j + 4] for i in (0, 4) for j in (0, 4)]
    found = view(images, Constant(0.0), size=4, crop=0.25)
    assert sum(torch.allclose(found, quadrant, rtol=0, atol=1e-9) for quadrant in quadrants) == 1
    torch.testing.assert_close(view(images, Constant(1.0), crop=0.25), images, rtol=0, atol=1e-9)


def test_crops_stay_inside_and_their_areas_are_even() -> None:
    crop, side, count = 0.2, 16, 2000
    ramp = ((torch.arange(side, dtype=torch.float64) + 0.5) / side).expand(count, 1, side, side)
    # A point on the edge of the image, half a pixel beyond the last centre, is half zero in either direction.
    assert view(torch.ones(count, 1, side, side), kt.Draws(0), crop=crop).min() > 0.25
    for images in (ramp, ramp.mT):
        slope = view(images, kt.Draws(0), crop=crop).diff(dim=3 if images is ramp else 2)[:, 0, 5:9, 5:9].mean((1, 2))
        areas = (slope * side).square()
        assert crop - 1e-6 <= areas.min() < crop + 0.01
        assert 0.99 < areas.max() <= 1 + 1e-6
        # Five standard errors of the mean of a uniform number.
        assert float(areas.mean()) == pytest.approx((1 + crop) / 2, abs=5 * (1 - crop) / math.sqrt(12 * count))


@pytest.mark.parametrize("parameters", [{"crop": 0.3}, {"shift": 0.3}])
def test_moves_across_and_along_are_unrelated(parameters: dict[str, Any]) -> None:
    side, count = 16, 2000
    ramp = ((torch.arange(side, dtype=torch.float64) + 0.5) / side).expand(count, 1, side, side)
    # What is seen in the middle of a view of a ramp is where the view was taken.
    across, along = (view(images, kt.Draws(0), **parameters)[:, 0, 7:9, 7:9].mean((1, 2)) for images in (ramp, ramp.mT))
    for centre in (across, along):
        assert float(centre.mean()) == pytest.approx(0.5, abs=0.02)
        assert float(centre.std()) > 0.05
    assert abs(float(torch.corrcoef(torch.stack([across, along]))[0, 1])) < 5 / math.sqrt(count)


def test_a_crop_has_no_dark_rim() -> None:
    # A frame where the crop touched the image's edge would tell a method where the crop was.
    white = torch.ones(200, 1, 16, 16)
    torch.testing.assert_close(view(white, kt.Draws(0), crop=0.2), white, rtol=0, atol=1e-5)


def in_loops(images: Tensor, factor: float, amount: float) -> Tensor:
    made = []
    for image in images.flatten(1).tolist():
        mean = sum(image) / len(image)
        made.append([min(1.0, max(0.0, (pixel - mean) * factor + mean + amount)) for pixel in image])
    return torch.tensor(made, dtype=torch.float64).reshape(images.shape)


@pytest.mark.parametrize("strength", [0.0, 0.1, 0.6, 1.0])
def test_brightness_is_added(strength: float) -> None:
    images = pictures(2, 3, 4, 5)
    assert_ends(images, (in_loops(images, 1, strength), in_loops(images, 1, -strength)), brightness=strength)


@pytest.mark.parametrize("factor", [1.0, 1.5, 20.0])
def test_contrast_is_the_distance_to_the_images_mean(factor: float) -> None:
    images = pictures(2, 3, 4, 5)
    assert_ends(images, (in_loops(images, factor, 0), in_loops(images, 1 / factor, 0)), contrast=factor)


STRONG: dict[str, Any] = {
    "crop": 0.3,
    "shift": 0.4,
    "scale": 1.5,
    "rotation": 180.0,
    "brightness": 0.2,
    "contrast": 10.0,
}


@pytest.mark.parametrize("name", STRONG)
def test_each_image_is_changed_in_its_own_way(name: str) -> None:
    images = pictures(1, 1, 9, 9).float().expand(20, -1, -1, -1)
    made = view(images, kt.Draws(0), **{name: STRONG[name]})
    assert len(made.flatten(1).unique(dim=0)) == 20


def test_views_epochs_and_seeds_differ_and_are_repeated_exactly() -> None:
    batch = kt.Batch(pictures(6, 3, 8, 8), torch.arange(6), labels=torch.arange(6))
    augmenter = AffineViews(num_views=3)
    made = [augmenter(batch, draws) for draws in (kt.Draws(0), kt.Draws(0, 1), kt.Draws(1))]
    tensors = [one.inputs for views in made for one in views]
    for i, first in enumerate(tensors):
        for second in tensors[i + 1 :]:
            assert (first != second).flatten(1).any(1).all()
    again = augmenter(batch, kt.Draws(0))
    for one, other in zip(made[0], again, strict=True):
        assert torch.equal(one.inputs, other.inputs)
        assert (one.ids is batch.ids, one.labels is batch.labels) == (True, True)


@pytest.mark.parametrize("size", [0, 6])
def test_a_samples_copies_do_not_depend_on_its_batch(size: int) -> None:
    images, ids = pictures(8, 3, 8, 8), torch.arange(8) * 7 + 3
    augmenter, draws = AffineViews(size, crop=0.5), kt.Draws(5, 2)
    whole = augmenter(kt.Batch(images, ids), draws)
    for chosen in ([3], [7, 0, 2], [5, 5]):
        some = augmenter(kt.Batch(images[chosen], ids[chosen]), draws)
        for one, other in zip(whole, some, strict=True):
            torch.testing.assert_close(other.inputs, one.inputs[chosen], rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("size", "shape"), [(0, (4, 3, 7, 9)), (5, (4, 3, 5, 5)), (12, (4, 3, 12, 12))])
def test_views_have_the_asked_size_stay_in_range_and_leave_the_images(
    size: int, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    images = torch.rand(4, 3, 7, 9, generator=torch.Generator().manual_seed(0)).to(dtype)
    before = images.clone()
    made = view(images, kt.Draws(0), size=size, **STRONG)
    assert (made.shape, made.dtype) == (shape, dtype)
    assert 0 <= made.min() < made.max() <= 1
    assert torch.equal(images, before)


def test_a_data_set_is_augmented_once_and_for_all() -> None:
    data = kt.ArrayData(pictures(6, 1, 8, 8), labels=torch.arange(6))
    first, second, other = (data.augmented(AffineViews(), seed=seed) for seed in (0, 0, 1))
    assert first.labels is data.labels
    assert torch.equal(first.inputs, second.inputs)
    assert not torch.equal(first.inputs, other.inputs)
    assert not torch.equal(first.inputs, data.inputs)


@pytest.mark.parametrize(
    ("name", "rule", "values"),
    [
        ("size", ">= 0", [-1]),
        ("num_views", ">= 1", [0]),
        ("crop", r"in \(0, 1\]", [0.0, 1.1, math.nan]),
        ("shift", r"in \[0, 1\)", [-0.1, 1.0, math.nan]),
        ("scale", ">= 1", [0.9, math.nan]),
        ("rotation", r"in \[0, 180\], in degrees", [-1.0, 181.0]),
        ("brightness", r"in \[0, 1\]", [-0.1, 1.1]),
        ("contrast", ">= 1", [0.5]),
    ],
)
def test_parameters_out_of_range_are_refused(name: str, rule: str, values: list[float]) -> None:
    for value in values:
        wrong: dict[str, Any] = {name: value}
        with pytest.raises(kt.InvalidValueError, match=rf"`{name}` must be {rule}, got {value!r}"):
            AffineViews(**wrong)
