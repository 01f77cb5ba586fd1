import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import kontrast as kt
from kontrast.adapters import vision


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


# --- data


def test_the_digits_are_split_without_overlap() -> None:
    digits = vision.load("digits")
    assert (len(digits.train), len(digits.test)) == (1297, 500)
    assert digits.about == {"in_channels": 1, "size": 16}
    both = torch.cat([digits.train.inputs, digits.test.inputs])
    assert both.shape == (1797, 1, 16, 16)
    assert len(both.flatten(1).unique(dim=0)) == 1797
    assert both.min() == 0
    assert 0.9 < both.max() <= 1
    for part in (digits.train, digits.test):
        assert part.labels is not None
        assert part.labels.unique().tolist() == list(range(10))
    again = vision.load(Path("digits"))
    assert torch.equal(again.train.inputs, digits.train.inputs)


def test_the_digits_keep_their_labels() -> None:
    # Total ink survives enlarging but for its border; it tells a digit from any other.
    raw, classes = load_digits(return_X_y=True)
    digits = vision.load("digits")
    middle = digits.test.inputs[:, 0, 2:14, 2:14]
    halved = torch.nn.functional.interpolate(middle[:, None], size=8, mode="bilinear").flatten(1)
    nearest = torch.cdist(halved.double(), torch.tensor(raw) / 16).argmin(1)
    assert digits.test.labels is not None
    assert torch.equal(torch.tensor(classes)[nearest], digits.test.labels)


GREY, COLOUR = random(5, 4, 6), random(5, 3, 4, 6)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (GREY, GREY[:, None]),
        (GREY.numpy(), GREY[:, None]),
        (GREY.tolist(), GREY[:, None]),
        (GREY[:, None], GREY[:, None]),
        (GREY[..., None], GREY[:, None]),
        (COLOUR, COLOUR),
        (COLOUR.permute(0, 2, 3, 1).contiguous(), COLOUR),
        (COLOUR.permute(0, 2, 3, 1).double().numpy(), COLOUR),
        (COLOUR.half(), COLOUR.half().float()),
        ((COLOUR * 255).to(torch.uint8), (COLOUR * 255).to(torch.uint8) / 255),
        (torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1), torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1)),
    ],
)
def test_images_of_any_usual_form_are_taken(pixels: Any, expected: Tensor) -> None:
    data = vision.images(pixels, np.arange(len(expected), dtype=np.uint8))
    assert data.inputs.dtype == torch.float32
    assert data.inputs.is_contiguous()
    torch.testing.assert_close(data.inputs, expected, rtol=1e-7, atol=1e-7)
    assert data.labels is not None
    assert data.labels.dtype == torch.int64
    assert data.labels.tolist() == list(range(len(expected)))
    assert vision.images(pixels).labels is None


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (torch.ones(4, 4), r"must be \[N, H, W\], .* C 1 or 3, got \[4, 4\]"),
        (torch.ones(2, 4, 4, 2), r"must be .* got \[2, 4, 4, 2\]"),
        (torch.ones(2, 1, 3, 4, 4), r"must be .* got \[2, 1, 3, 4, 4\]"),
        (torch.ones(2, 4, 4, dtype=torch.int64), r"pixels must be uint8 or floating point, got torch\.int64; cast"),
        (torch.ones(2, 4, 4, dtype=torch.bool), r"pixels must be uint8 or floating point, got torch\.bool"),
        (torch.full((2, 4, 4), 255.0), r"floating-point pixels must lie in 0\.\.1, got 255\.\.255; divide by 255\?"),
        (torch.full((2, 4, 4), -0.5), r"must lie in 0\.\.1, got -0\.5\.\.-0\.5"),
        (torch.full((2, 4, 4), torch.nan), r"must lie in 0\.\.1, got nan"),
        (torch.ones(0, 4, 4), "at least one sample, got none"),
    ],
)
def test_images_of_another_kind_are_refused(pixels: Any, message: str) -> None:
    with pytest.raises(kt.InvalidValueError, match=message):
        vision.images(pixels)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.ones(5), r"labels must be integers, got float32; number the classes"),
        (torch.ones(5, dtype=torch.bool), r"labels must be integers, got bool"),
        (np.array(["a", "b", "a", "b", "c"]), "labels must be integers"),
        (torch.arange(4), r"`labels` must be an int64 tensor \[5\], one per sample, got torch\.int64 \[4\]"),
        (torch.zeros(5, 1, dtype=torch.int32), r"`labels` must be an int64 tensor \[5\].*\[5, 1\]"),
    ],
)
def test_labels_of_another_kind_are_refused(labels: Any, message: str) -> None:
    with pytest.raises(kt.InvalidValueError, match=message):
        vision.images(GREY, labels)


def test_a_file_of_arrays_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "mine.npz"
    arrays = {"images": COLOUR.numpy(), "labels": np.arange(5), "test_images": COLOUR[:2].numpy()}
    np.savez(file, **arrays, allow_pickle=False)
    for source in (file, str(file)):
        splits = vision.load(source)
        assert torch.equal(splits.train.inputs, COLOUR)
        assert splits.train.labels is not None
        assert splits.train.labels.tolist() == list(range(5))
        assert torch.equal(splits.test.inputs, COLOUR[:2])
        assert splits.test.labels is None
        assert splits.about["in_channels"] == 3
    np.savez(
        file, images=(GREY * 255).to(torch.uint8).numpy(), test_images=GREY.numpy(), test_labels=np.ones(5, np.int8)
    )
    bare = vision.load(file)
    assert bare.train.labels is None
    assert bare.test.labels is not None
    assert bare.test.labels.tolist() == [1] * 5


def test_a_file_too_large_for_a_plain_zip_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Beyond 2 GiB the end of the archive looks different; with a lower limit, so does a small one.
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    np.savez(tmp_path / "large.npz", images=COLOUR.numpy())
    monkeypatch.undo()
    assert b"PK\x06\x06" in (tmp_path / "large.npz").read_bytes()
    assert torch.equal(vision.load(tmp_path / "large.npz").train.inputs, COLOUR)


def test_what_a_file_says_of_itself_keeps_the_shape_of_its_images(tmp_path: Path) -> None:
    np.savez(tmp_path / "wide.npz", images=GREY.numpy())
    splits = vision.load(tmp_path / "wide.npz")
    augmenter = vision.AffineViews(**{name: splits.about[name] for name in ("size",) if name in splits.about})
    assert splits.train.augmented(augmenter, seed=0).inputs.shape == splits.train.inputs.shape


def other_array(file: Path) -> None:
    np.savez(file, pixels=np.ones(3), extra=np.ones(2))


def pickled(file: Path) -> None:
    np.savez(file, images=np.array([None, "x"], dtype=object))


def one_array(file: Path) -> None:
    with file.open("wb") as handle:
        np.save(handle, GREY.numpy())


def cut_off(file: Path) -> None:
    np.savez(file, images=GREY.numpy())
    file.write_bytes(file.read_bytes()[:-40])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (other_array, r"bad\.npz must hold an array `images`, got \['extra', 'pixels'\]"),
        (pickled, r"bad\.npz"),
        (one_array, r"bad\.npz"),
        (cut_off, r"bad\.npz"),
        (lambda file: file.write_text("hello"), r"bad\.npz"),
        (lambda file: file.write_bytes(b""), r"bad\.npz"),
    ],
    ids=["no images", "pickled", "a single array", "cut off", "text", "empty"],
)
def test_a_file_that_holds_no_images_is_refused_by_name(
    tmp_path: Path, write: Callable[[Path], object], message: str
) -> None:
    file = tmp_path / "bad.npz"
    write(file)
    with pytest.raises(kt.InvalidValueError, match=message):
        vision.load(file)


def test_other_files_and_unknown_names_are_refused(tmp_path: Path) -> None:
    (tmp_path / "images.csv").write_text("1,2")
    with pytest.raises(kt.InvalidValueError, match=r"a file of images must be an \.npz, got images\.csv; save arrays"):
        vision.load(tmp_path / "images.csv")
    with pytest.raises(kt.UnknownNameError, match="no vision data set or file `digit`; did you mean `digits`"):
        vision.load("digit")
    with pytest.raises(kt.UnknownNameError, match="no vision data set or file `"):
        vision.load(tmp_path)


def test_the_adapters_defaults_are_registered_for_it() -> None:
    adapter = kt.get_record(kt.AdapterRecord, "vision").load()()
    assert isinstance(adapter, kt.Adapter)
    assert kt.get_record(kt.EncoderRecord, adapter.default_encoder).adapter == "vision"
    assert kt.get_record(kt.AugmenterRecord, adapter.default_augmenter).adapter == "vision"
    assert len(adapter.load(adapter.default_data).train) == 1297


# --- encoders

ENCODERS: dict[str, tuple[Callable[[int], kt.Encoder], int]] = {
    "small-cnn": (lambda channels: vision.SmallCNN(channels, width=3), 12),
    "resnet18": (lambda channels: vision.resnet18(channels), 512),
    "resnet18 small": (lambda channels: vision.resnet18(channels, small_images=True), 512),
}


@pytest.mark.parametrize(("make", "size"), ENCODERS.values(), ids=ENCODERS)
@pytest.mark.parametrize("channels", [1, 3])
def test_encoders_give_one_representation_per_image(
    make: Callable[[int], kt.Encoder], size: int, channels: int
) -> None:
    encoder = make(channels)
    assert encoder.representation_size == size
    images = random(2, channels, 16, 12)
    output = encoder.eval()(images)  # batch statistics of two images of one last pixel would be no test of anything
    assert output.shape == (2, size)
    output.sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())
    found = rf"images must be floating point \[B, {channels}, H, W\], got "
    for wrong, what in (
        (random(2, 4 - channels, 16, 12), rf"torch\.float32 \[2, {4 - channels}, 16, 12\]"),
        (images[0], rf"torch\.float32 \[{channels}, 16, 12\]"),
        (images.to(torch.uint8), r"torch\.uint8"),
    ):
        with pytest.raises(kt.InvalidValueError, match=found + what):
            encoder(wrong)


@pytest.mark.parametrize(("small", "side", "poolings"), [(False, 8, 1), (True, 32, 0)])
def test_the_stem_for_small_images_keeps_their_resolution(small: bool, side: int, poolings: int) -> None:
    encoder = vision.resnet18(3, small_images=small)
    seen: list[torch.Size] = []

    def note(module: nn.Module, inputs: object, output: Tensor) -> None:
        seen.append(output.shape)

    (layer,) = [part for name, part in encoder.named_modules() if name.endswith("layer1")]
    layer.register_forward_hook(note)
    encoder.eval()(random(1, 3, 32, 32))
    assert seen == [(1, 64, side, side)]
    assert sum(isinstance(part, nn.MaxPool2d) for part in encoder.modules()) == poolings


def test_an_encoders_parameters_are_checked_and_its_package_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(kt.InvalidValueError, match="`width` must be >= 1, got 0"):
        vision.SmallCNN(width=0)
    for module in ("torchvision", "torchvision.models"):
        monkeypatch.setitem(sys.modules, module, None)  # Python then says that it is not installed
    with pytest.raises(kt.MissingExtraError, match=r"torchvision.*pip install 'kontrast\[vision\]'"):
        kt.get_record(kt.EncoderRecord, "resnet18").load()()
