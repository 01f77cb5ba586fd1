"""Time series from files, frames and recordings that are not as they should be."""

from pathlib import Path

import numpy as np
import pytest
import torch

import kontrast as kt
from kontrast.adapters import timeseries

NAN = float("nan")
HEAD = "@classLabel true up down\n@data\n"


def written(folder: Path, text: str, name: str = "toy.ts") -> Path:
    (folder / name).write_bytes(text.encode("latin-1"))
    return folder / name


def test_the_targets_of_a_regression_are_no_channel(tmp_path: Path) -> None:
    data = timeseries.load(written(tmp_path, "@targetlabel true\n@data\n1,2,3:7.5\n4,5,6:8.5\n")).train
    assert data.inputs[:, :, 0].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert data.inputs.shape == (2, 3, 1)
    assert data.labels is None


def test_the_header_may_be_spaced_and_comments_in_any_encoding(tmp_path: Path) -> None:
    data = timeseries.load(written(tmp_path, "# caf\xe9\n@ClassLabel \t TRUE up down\n@data\n1,2:up\n3,4:down\n")).train
    assert data.inputs.shape == (2, 2, 1)
    assert data.labels is not None
    assert data.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            HEAD + "1,2:up\n1,2:sideways\n",
            "line 4 of toy.ts must hold .* the class 'sideways', which the header does not",
        ),
        (HEAD + "1,2,3:4,5,6\n", "line 3 of toy.ts must hold .* the class '4,5,6'"),
        (HEAD, "toy.ts must hold at least one series, got none"),
        ("@timestamps true\n" + HEAD + "(0,1),(1,2):up\n", "toy.ts says `@timestamps true`"),
    ],
)
def test_lines_without_their_class_and_empty_files_are_refused(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(kt.InvalidValueError, match=sentence):
        timeseries.load(written(tmp_path, text))


def test_one_class_written_in_two_ways_is_one(tmp_path: Path) -> None:
    written(tmp_path, "1\t1\t2\n2\t3\t4\n", "K_TRAIN.tsv")
    written(tmp_path, "2.0\t1\t2\n1.0\t3\t4\n", "K_TEST.tsv")
    splits = timeseries.load("K", tmp_path)
    assert splits.train.labels is not None
    assert splits.test.labels is not None
    assert (splits.train.labels.tolist(), splits.test.labels.tolist()) == ([0, 1], [1, 0])


def test_labels_that_are_no_integers_are_not_lost_in_an_archive(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", X_train=np.eye(2, 5), y_train=np.array(["a", "b"]))
    with pytest.raises(kt.InvalidValueError, match="labels must be integers, got 'a' for series 0"):
        timeseries.load(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", X_train=np.array([["a", "b"]]))
    with pytest.raises(kt.InvalidValueError, match=r"`X_train` in b\.npz must be numbers, got <U1"):
        timeseries.load(tmp_path / "b.npz")


@pytest.mark.parametrize("value", [0.1, 12345.678])
def test_a_constant_channel_is_only_shifted_whatever_its_value(value: float) -> None:
    with pytest.warns(timeseries.ConstantSeriesWarning, match=r"series 0, 1, .* 9 and others of 100 are constant"):
        data = timeseries.series(np.full((100, 137), value))
    found = timeseries.standardized(kt.Splits(data)).train.inputs
    assert found.dtype == torch.float32
    assert found.abs().max() < 1e-6


def test_a_channel_that_training_never_saw_stays_as_it_is() -> None:
    train, test = torch.randn(2, 3, 9, 2, generator=torch.Generator().manual_seed(0))
    train[:, :, 1] = NAN
    splits = timeseries.standardized(kt.Splits(kt.ArrayData(train), kt.ArrayData(test)))
    assert torch.equal(splits.test.inputs[:, :, 1], test[:, :, 1])
    assert splits.train.inputs[:, :, 1].isnan().all()


def test_windows_of_an_infinite_value_are_refused() -> None:
    with pytest.raises(kt.InvalidValueError, match="infinity in recording 3 at step 1"):
        timeseries.windows(np.array([1.0, np.inf, 2, 3]), 2, recording_id=3)


def test_rows_of_no_series_are_refused() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"id": [1, 1, NAN], "t": [0, 1, 0], "v": [1.0, 2, 3]})
    with pytest.raises(kt.InvalidValueError, match="`id` must say the series of every row"):
        timeseries.from_frame(frame, series_id="id", time="t", values=["v"])
