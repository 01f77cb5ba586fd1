"""Image data sets: the embedded digits, arrays, and .npz files.

Shapes: N images, C channels, H x W pixels.
"""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

import kontrast as kt

__all__ = ["images", "load"]

_NAMED = ("digits",)


def load(source: str | Path) -> kt.Splits[kt.ArrayData]:
    """Return a data set by name or from a file.

    Args:
        source: `"digits"` (1,797 handwritten digits that scikit-learn carries, 16 x 16 pixels; 1,297 to train,
            500 to test), or an `.npz` file with arrays `images`, `labels` (and
            `test_images`, `test_labels`) as `images` takes.

    Raises:
        UnknownNameError: if it is neither.
        InvalidValueError: if a file's arrays are not images and labels.
        MissingExtraError: if the digits are asked for and scikit-learn is not installed.
    """
    if str(source) == "digits":
        return _digits()
    path = Path(source)
    if not path.is_file():
        raise kt.UnknownNameError("vision data set or file", str(source), _NAMED)
    if path.suffix != ".npz":
        raise kt.InvalidValueError(f"a file of images must be an .npz, got {path.name}; save arrays with numpy.savez")
    arrays = _arrays(path)
    known = ("images", "labels", "test_images", "test_labels")
    if "images" not in arrays:
        raise kt.InvalidValueError(f"{path.name} must hold an array `images`, got {sorted(arrays)}")
    for name in arrays:
        if name not in known:
            raise kt.UnknownNameError(f"use in {path.name} for the array", name, known)
    train = images(arrays["images"], arrays.get("labels"))
    held_out = None
    if "test_images" in arrays:
        held_out = images(arrays["test_images"], arrays.get("test_labels"))
    return _splits(train, held_out)


def images(pixels: Any, labels: Any = None) -> kt.ArrayData:
    """Return images given as an array, as a data set.

    Args:
        pixels: uint8 in 0..255, or floating point in 0..1; [N, H, W] (grey), [N, H, W, C] or [N, C, H, W], C 1 or 3.
        labels: classes [N], integers.

    Raises:
        InvalidValueError: if shape, dtype or values are of another kind.
    """
    tensor = torch.as_tensor(pixels)
    if tensor.ndim == 3:
        tensor = tensor[:, None]
    elif tensor.ndim == 4 and tensor.shape[1] not in (1, 3) and tensor.shape[3] in (1, 3):
        tensor = tensor.permute(0, 3, 1, 2)
    if tensor.ndim != 4 or tensor.shape[1] not in (1, 3):
        raise kt.InvalidValueError(
            "images must be [N, H, W], [N, H, W, C] or [N, C, H, W] with C 1 or 3, "
            f"got {list(torch.as_tensor(pixels).shape)}"
        )
    if tensor.dtype == torch.uint8:
        tensor = tensor.float() / 255
    elif not tensor.dtype.is_floating_point:
        raise kt.InvalidValueError(f"pixels must be uint8 or floating point, got {tensor.dtype}; cast them")
    tensor = tensor.float().contiguous()
    if len(tensor) and not (tensor.min() >= 0 and tensor.max() <= 1):
        low, high = float(tensor.min()), float(tensor.max())
        raise kt.InvalidValueError(f"floating-point pixels must lie in 0..1, got {low:g}..{high:g}; divide by 255?")
    return kt.ArrayData(tensor, _classes(labels))


def _arrays(path: Path) -> dict[str, Any]:
    try:
        # Asked first, since numpy leaves a file open that turns out to be no archive. Pickled objects are refused.
        if not zipfile.is_zipfile(path):
            raise zipfile.BadZipFile("a file of another kind")
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise kt.InvalidValueError(
            f"{path.name} must be an .npz archive of plain arrays, got: {error}; save it with numpy.savez"
        ) from error


def _classes(labels: Any) -> Tensor | None:
    if labels is None:
        return None
    array = np.asarray(labels)
    if array.dtype.kind not in "iu":
        raise kt.InvalidValueError(f"labels must be integers, got {array.dtype}; number the classes")
    return torch.as_tensor(array.astype(np.int64))


def _digits() -> kt.Splits[kt.ArrayData]:
    datasets = kt.optional_import("sklearn.datasets", extra="kontrast[vision]", purpose="the data set `digits`")
    raw, classes = datasets.load_digits(return_X_y=True)
    # 8 x 8 pixels of 0..16, enlarged, with a margin that leaves room to move.
    enlarged = F.interpolate(torch.tensor(raw / 16).float().reshape(-1, 1, 8, 8), size=12, mode="bilinear")
    pixels, labels = F.pad(enlarged, (2, 2, 2, 2)), torch.tensor(classes)
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))
    train, test = order[:1297], order[1297:]
    return _splits(images(pixels[train], labels[train]), images(pixels[test], labels[test]))


def _splits(train: kt.ArrayData, held_out: kt.ArrayData | None) -> kt.Splits[kt.ArrayData]:
    _, channels, height, width = train.inputs.shape
    if held_out is not None and held_out.inputs.shape[1] != channels:
        raise kt.InvalidValueError(
            f"training and test images must have the same channels, got {channels} and {held_out.inputs.shape[1]}"
        )
    about = {"in_channels": channels, "size": width} if height == width else {"in_channels": channels}
    return kt.Splits(train, held_out, about)
