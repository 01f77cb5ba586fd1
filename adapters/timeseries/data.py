"""Time series as a data set: one tensor, in which NaN is what is not there.

Shapes: N series, T time steps of the longest, C channels.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from warnings import warn

import numpy as np
import torch
from torch import Tensor

import kontrast as kt

__all__ = ["ConstantSeriesWarning", "from_frame", "series", "standardized", "windows"]


class ConstantSeriesWarning(UserWarning):
    """A series has one value throughout: nothing but that value tells it from others."""


def series(values: Any, labels: Any = None, groups: Tensor | None = None) -> kt.ArrayData:
    """Return time series as a data set.

    Args:
        values: [N, T] (one channel), [N, T, C], or a sequence of arrays [T_i] or [T_i, C]; shorter ones get NaN at
            their end. NaN stands for a missing value too. A constant series is kept, with a warning.
        labels: classes [N], integers.
        groups: which recording each is from, int64 [N].

    Raises:
        InvalidValueError: names the first series that is no numbers, of fewer than two steps, of other channels than
            the first, without any value, with an infinite one, or whose label is no integer.
    """
    return _series(values, labels, groups)


def _series(values: Any, labels: Any, groups: Tensor | None = None, names: Sequence[Any] = ()) -> kt.ArrayData:
    """Return `series`, which are called by names of their own beside their numbers where they have any."""
    if hasattr(values, "columns"):  # a pandas frame, which yields the names of its columns
        raise kt.InvalidValueError(
            f"series must be an array or a sequence of arrays, got a {type(values).__name__}; give one of a row per "
            "time step to from_frame, and the `to_numpy()` of one of a row per series"
        )
    if isinstance(values, Tensor) or (isinstance(values, np.ndarray) and values.dtype != object):
        whole = _real(values, "series")
        whole = whole[:, :, None] if whole.ndim == 2 else whole
    elif isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise kt.InvalidValueError(f"series must be an array or a sequence of arrays, got {values!r}")
    else:
        whole = _padded(list(values), names)
    if whole.ndim != 3 or not whole.shape[2]:
        raise kt.InvalidValueError(f"series must be [N, T] or [N, T, C], got {list(whole.shape)}")
    if whole.shape[1] < 2:
        raise kt.InvalidValueError(
            f"series must have at least 2 time steps, got {whole.shape[1]} in all {len(whole)}; an array is [N, T] or "
            "[N, T, C], time second, and one long recording is cut by windows"
        )
    _check_values(whole, names)
    return kt.ArrayData(whole.contiguous(), _classes(labels, names), groups)


def from_frame(
    frame: Any, *, series_id: str, time: str, values: str | Sequence[str], label: str | None = None
) -> kt.ArrayData:
    """Return the series of a pandas frame in long form, one row per time step, in order of their ids.

    Args:
        frame: a pandas DataFrame.
        series_id: the column that says to which series a row belongs.
        time: the column of time stamps, which must rise within a series.
        values: the columns of values, one per channel; or the name of one.
        label: the column of integer classes, one value per series.

    Raises:
        InvalidValueError: if a column is missing, or time stamps of a series do not rise; names the series.
    """
    values = [values] if isinstance(values, str) else values
    if not hasattr(frame, "columns"):
        raise kt.InvalidValueError(f"`frame` must be a pandas DataFrame, got {type(frame).__name__}")
    for column in (series_id, time, *values, *([] if label is None else [label])):
        if column not in frame.columns:
            raise kt.UnknownNameError("column", column, [str(name) for name in frame.columns])
    parts, classes = [], []
    names: list[Any] = []
    if frame[series_id].isna().any():  # grouping would leave such rows out
        raise kt.InvalidValueError(
            f"`{series_id}` must say the series of every row, and is missing in some; drop these"
        )
    for number, (name, rows) in enumerate(frame.groupby(series_id, sort=True)):
        stamps = rows[time]
        if not (stamps.is_monotonic_increasing and stamps.is_unique):
            raise kt.InvalidValueError(
                f"time stamps must rise within a series, and those of series {number} ({name}) do not; sort the frame "
                f"by `{time}` and drop what stands there twice"
            )
        names.append(name)
        parts.append(rows[list(values)].to_numpy())
        if label is not None:
            lacking = int(rows[label].isna().sum())
            if lacking:
                raise kt.InvalidValueError(
                    f"a series must have its label in every row, and {lacking} of the {len(rows)} rows "
                    f"of series {number} ({name}) have none; fill these"
                )
            if rows[label].nunique() != 1:
                raise kt.InvalidValueError(
                    f"a series must have one label, got {rows[label].nunique()} for series {number} ({name})"
                )
            classes.append(rows[label].iloc[0])
    return _series(parts, np.asarray(classes) if label is not None else None, names=names)


def windows(recording: Any, length: int, step: int | None = None, *, recording_id: int = 0) -> kt.ArrayData:
    """Cut a long recording into windows; without copying it, so a million steps stay a million.

    Windows that lie in a gap are kept: encoders represent them by zero.

    Args:
        recording: [T] or [T, C]; what is left after the last full window is not used.
        length: steps of a window, >= 2.
        step: from one window's start to the next's; None: `length`, so that windows do not overlap.
        recording_id: the windows' group.

    Raises:
        InvalidValueError: if the recording is shorter than a window, holds an infinite value, or none at all.
    """
    values = _real(recording, f"recording {recording_id}")
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2:
        raise kt.InvalidValueError(f"a recording must be [T] or [T, C], got {list(values.shape)}")
    step = length if step is None else step
    if not (isinstance(length, int) and isinstance(step, int)) or length < 2 or step < 1:
        raise kt.InvalidValueError(f"`length` and `step` must be integers >= 2 and >= 1, got {length!r} and {step!r}")
    if len(values) < length:
        raise kt.InvalidValueError(f"a recording must be as long as a window, {length}, got {len(values)} steps")
    infinite = values.isinf().any(1)
    if infinite.any():
        raise kt.InvalidValueError(
            f"values must be finite or NaN, got infinity in recording {recording_id} "
            f"at step {int(infinite.nonzero()[0])}"
        )
    if values.isnan().all():
        raise kt.InvalidValueError(f"a recording must have a value, and recording {recording_id} is NaN throughout")
    cut = values.unfold(0, length, step).transpose(1, 2)
    return kt.ArrayData(cut, groups=torch.full((len(cut),), recording_id))


def standardized(splits: kt.Splits[kt.ArrayData]) -> kt.Splits[kt.ArrayData]:
    """Return the same data with mean 0 and standard deviation 1 of each channel over the training part.

    Missing values are left out of both; a channel that is constant there is only shifted, and one without any value
    there stays as it is.
    """
    train = splits.train.inputs.double()
    missing = train.isnan()
    mean = train.nanmean((0, 1)).nan_to_num(0.0)
    std = (train - mean).square().nanmean((0, 1)).sqrt()
    # Not by `std > 0`, which rounding can make so.
    varies = train.masked_fill(missing, -torch.inf).amax((0, 1)) > train.masked_fill(missing, torch.inf).amin((0, 1))
    scale = torch.where(varies, std, 1.0)

    def moved(data: kt.ArrayData) -> kt.ArrayData:
        return kt.ArrayData(((data.inputs - mean) / scale).float(), data.labels, data.groups)

    held_out = None if splits.held_out is None else moved(splits.held_out)
    return kt.Splits(moved(splits.train), held_out, splits.about)


def _called(number: int, names: Sequence[Any]) -> str:
    return f"{number} ({names[number]})" if len(names) > number else str(number)


def _real(values: Any, what: str) -> Tensor:
    """Return real numbers as float32; None is NaN."""
    try:
        complex_ = values.is_complex() if isinstance(values, Tensor) else np.iscomplexobj(values)
        if complex_:
            raise TypeError("complex ones")
        return values.float() if isinstance(values, Tensor) else torch.from_numpy(np.array(values, dtype=np.float32))
    except (TypeError, ValueError) as error:
        raise kt.InvalidValueError(f"{what} must be real numbers, got: {error}") from error


def _padded(values: Sequence[Any], names: Sequence[Any]) -> Tensor:
    parts = [_real(part, f"series {_called(number, names)}") for number, part in enumerate(values)]
    if not parts:
        raise kt.InvalidValueError("a data set must hold at least one series, got none")
    parts = [part[:, None] if part.ndim == 1 else part for part in parts]
    for number, part in enumerate(parts):
        if part.ndim != 2:
            raise kt.InvalidValueError(
                f"series {_called(number, names)} must be [T] or [T, C], got {list(part.shape)}; give one array per "
                "series"
            )
        if len(part) < 2:
            raise kt.InvalidValueError(
                f"series {_called(number, names)} must have at least 2 time steps, got {len(part)}; leave it out"
            )
        if part.shape[1] != parts[0].shape[1]:
            raise kt.InvalidValueError(
                f"series {_called(number, names)} must have {parts[0].shape[1]} channels as series "
                f"{_called(0, names)} has, got {part.shape[1]}; give the channels that all have, [T, C], time first"
            )
    return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=torch.nan)


def _check_values(whole: Tensor, names: Sequence[Any]) -> None:
    infinite = whole.isinf().flatten(1).any(1)
    if infinite.any():
        raise kt.InvalidValueError(
            f"values must be finite or NaN, got infinity in series {_called(int(infinite.nonzero()[0]), names)}"
        )
    missing = whole.isnan()
    empty = missing.flatten(1).all(1)
    if empty.any():
        which = _called(int(empty.nonzero()[0]), names)
        raise kt.InvalidValueError(f"a series must have a value, and series {which} is NaN throughout; leave it out")
    most, least = (whole.masked_fill(missing, side).aminmax(dim=1) for side in (-torch.inf, torch.inf))
    constant = (most.max <= least.min).all(1).nonzero()[:, 0].tolist()
    if constant:
        which = ", ".join(_called(number, names) for number in constant[:10])
        warn(
            f"series {which}{' and others' * (len(constant) > 10)} of {len(whole)} are constant: nothing but the value "
            "tells them apart; leave them out if that means nothing",
            ConstantSeriesWarning,
            stacklevel=4,
        )


def _classes(labels: Any, names: Sequence[Any]) -> Tensor | None:
    if labels is None:
        return None
    array = np.asarray(labels)
    if array.dtype.kind not in "iu":
        # Of numbers the one that shows best what is wrong: 1.5, not 1.0 before it.
        floating = array.dtype.kind == "f"
        listed = enumerate(array.tolist())
        wrong = next((n for n, one in listed if not (one.is_integer() if floating else isinstance(one, int))), 0)
        raise kt.InvalidValueError(
            f"labels must be integers, got {array.tolist()[wrong]!r} for series {_called(wrong, names)}; "
            "number the classes"
        )
    return torch.as_tensor(array.astype(np.int64))
