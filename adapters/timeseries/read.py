"""Time series from files: the archives' .ts and .tsv, .npz, and a generated set.

Shapes: N series, T time steps, C channels.
"""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

import kontrast as kt
from kontrast.adapters.timeseries.data import series

__all__ = ["load"]

NAMED = ("waves",)


def load(source: str | Path, root: str | Path | None = None) -> kt.Splits[kt.ArrayData]:
    """Return a data set by name or from files.

    Args:
        source: `"waves"`, a small generated set; an `.npz` file (`X_train`, `y_train`, `X_test`, `y_test`, as the UCR
            sets come, or `series` and `labels`); a `.ts` or `.tsv` file; or the name of a set whose
            `NAME_TRAIN` and `NAME_TEST` files stand in `root` or in `root/NAME`. The numbers that a `.ts` file of a
            regression gives as targets are left out.
        root: a folder of data sets.

    Raises:
        UnknownNameError: if there is none.
        InvalidValueError: if a file is of another kind; names file, line or series.
    """
    if str(source) == "waves" and root is None:
        return _waves()
    name = Path(source).name
    places = [Path(source)] if root is None else [Path(root, source), Path(root, source, name)]
    for place in places:
        for suffix in ("", ".npz"):
            path = place.with_name(place.name + suffix)
            if path.is_file():
                return _from_file(path)
        for folder in (place, place.parent):
            for suffix in (".ts", ".tsv"):
                train, test = (folder / f"{name}_{part}{suffix}" for part in ("TRAIN", "TEST"))
                if train.is_file():
                    return _archive(train, test if test.is_file() else None)
    hint = (
        "; give any other by its path: an .npz, .ts or .tsv file, or a folder NAME that holds NAME_TRAIN.ts or .tsv, "
        "as timeseriesclassification.com has them"
    )
    raise kt.UnknownNameError("time series data set or file", str(source), NAMED, hint=hint)


def _from_file(path: Path) -> kt.Splits[kt.ArrayData]:
    if path.suffix == ".npz":
        return _npz(path)
    if path.suffix in (".ts", ".tsv"):
        twin = path.with_name(path.name.replace("_TRAIN", "_TEST"))
        return _archive(path, twin if twin != path and twin.is_file() else None)
    raise kt.InvalidValueError(f"a file of time series must be .npz, .ts or .tsv, got {path.name}")


def _npz(path: Path) -> kt.Splits[kt.ArrayData]:
    try:
        if not zipfile.is_zipfile(path):
            raise zipfile.BadZipFile("a file of another kind")
        with np.load(path, allow_pickle=False) as arrays:
            found = dict(arrays)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise kt.InvalidValueError(f"{path.name} must be an .npz archive of plain arrays, got: {error}") from error
    for names in (("X_train", "y_train", "X_test", "y_test"), ("series", "labels", "test_series", "test_labels")):
        if names[0] in found:
            train, labels, test, test_labels = (found.get(name) for name in names)
            for name, values in ((names[0], train), (names[2], test)):
                if values is not None and values.dtype.kind not in "iuf":
                    raise kt.InvalidValueError(f"`{name}` in {path.name} must be numbers, got {values.dtype}")
            with _named(f"{names[0]} of {path.name}"):
                data = series(train, labels)
            if test is None:
                return _splits(data, None)
            with _named(f"{names[2]} of {path.name}"):
                return _splits(data, series(test, test_labels))
    raise kt.InvalidValueError(f"{path.name} must hold an array `X_train` or `series`, got {sorted(found)}")


def _archive(train: Path, test: Path | None) -> kt.Splits[kt.ArrayData]:
    """Read an archive's pair of files; classes are numbered in the order of their names, alike in both."""
    paths = [path for path in (train, test) if path is not None]
    parts = [_text(path) for path in paths]
    names = sorted({name for _, given in parts for name in given}, key=lambda name: (_number(name), name))
    numbers = {name: number for number, name in enumerate(names)}
    data = []
    for path, (values, given) in zip(paths, parts, strict=True):
        with _named(path.name):
            data.append(series(values, np.array([numbers[name] for name in given]) if given else None))
    return _splits(data[0], data[1] if len(data) > 1 else None)


@contextmanager
def _named(part: str) -> Iterator[None]:
    """Say in which part of which file a series is that cannot be taken."""
    try:
        yield
    except kt.InvalidValueError as error:
        raise kt.InvalidValueError(f"{part}: {error}") from error


def _text(path: Path) -> tuple[list[Any], list[str]]:
    """Return the series of a text file, [T, C] each, and the names of their classes."""
    found: list[Any] = []
    labels: list[str] = []
    # Comments of old files are in other encodings; what is not UTF-8 there must not stop a reader of numbers.
    lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    header = {words[0].lower(): words[1:] for line in lines if line.startswith("@") and (words := line.split())}
    given = {name: [word.lower() for word in header.get(name, [])[:1]] for name in ("@classlabel", "@targetlabel")}
    labelled = path.suffix == ".tsv" or given["@classlabel"] == ["true"]
    regression = not labelled and given["@targetlabel"] == ["true"]
    if header.get("@timestamps", ["false"])[0].lower() == "true":
        raise kt.InvalidValueError(
            f"{path.name} says `@timestamps true`, and values with time stamps are not read; write the values alone, "
            "or give a pandas frame to from_frame, whose time stamps are looked at"
        )
    try:
        declared = {_class(name) for name in header.get("@classlabel", [])[1:]}
    except ValueError as error:
        raise kt.InvalidValueError(f"`@classLabel` of {path.name} must list classes, got: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip() or line[0] in "#%@":
            continue
        try:
            if path.suffix == ".tsv":
                label, *values = line.split("\t")
                channels = [_numbers(values)]
            else:
                parts = line.split(":")
                label = parts.pop() if labelled or regression else ""
                channels = [_numbers(part.split(",")) for part in parts]
            label = _class(label) if labelled else ""
            if labelled and declared and label not in declared:
                raise ValueError(f"the class {label!r}, which the header does not have")
            length = max(map(len, channels))
            padded = [np.pad(part, (0, length - len(part)), constant_values=np.nan) for part in channels]
        except ValueError as error:
            raise kt.InvalidValueError(
                f"line {number} of {path.name}, series {len(found)}, must hold numbers and a class, got: {error}"
            ) from error
        found.append(np.stack(padded, 1))
        if labelled:
            labels.append(label)
    if not found:
        raise kt.InvalidValueError(f"{path.name} must hold at least one series, got none")
    if path.suffix == ".tsv":  # an archive pads its shorter series with NaN
        found = [part[: max(2, int((~np.isnan(part[:, 0])).nonzero()[0].max(initial=0)) + 1)] for part in found]
    return found, labels


def _numbers(values: list[str]) -> Any:
    return np.array([np.nan if value.strip() in ("?", "") else float(value) for value in values], dtype=np.float32)


def _class(name: str) -> str:
    """Return the name of a class: a word, or an integer, which is one class however it is written (1, 1.0).

    Raises:
        ValueError: if it is another number, which is no class but a value or a target.
    """
    try:
        number = float(name)
    except ValueError:
        return name.strip()
    if not number.is_integer():
        raise ValueError(f"the class {name.strip()!r}, which is a number but no integer; number or name the classes")
    return str(int(number))


def _number(name: str) -> float:
    try:
        return float(name)
    except ValueError:
        return float("inf")


def _splits(train: kt.ArrayData, held_out: kt.ArrayData | None) -> kt.Splits[kt.ArrayData]:
    channels = train.inputs.shape[2]
    if held_out is not None and held_out.inputs.shape[2] != channels:
        raise kt.InvalidValueError(
            f"training and test series must have the same channels, got {channels} and {held_out.inputs.shape[2]}; "
            "leave out those that one part lacks"
        )
    return kt.Splits(train, held_out, {"in_channels": channels})


def _waves() -> kt.Splits[kt.ArrayData]:
    """Three classes of noisy series: a sine, a square wave, and a sine whose frequency rises; any phase and rate."""
    generator = torch.Generator().manual_seed(0)
    count, length = 240, 96
    labels = torch.arange(count) % 3
    rate, phase, height = torch.rand(3, count, 1, generator=generator)
    time = torch.linspace(0, 1, length)
    turns = (2 + 3 * rate) * time + phase
    rising = (2 + 3 * rate) * time * (0.5 + time) + phase
    shapes = torch.stack(
        [(2 * torch.pi * turns).sin(), (2 * torch.pi * turns).sin().sign(), (2 * torch.pi * rising).sin()]
    )
    clean = shapes[labels, torch.arange(count)] * (0.5 + height)
    values = clean + 0.4 * torch.randn(count, length, generator=generator)
    return _splits(series(values[:120], labels[:120].numpy()), series(values[120:], labels[120:].numpy()))
