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
            "line 4 of toy.ts, series 1, must hold .* the class 'sideways', which the header does not",
        ),
        (HEAD + "1,2,3:4,5,6\n", "line 3 of toy.ts, series 0, must hold .* the class '4,5,6'"),
        (HEAD, "toy.ts must hold at least one series, got none"),
        (
            HEAD.replace("up", "0.5"),
            "`@classLabel` of toy.ts must list classes, got: the class '0.5', which",
        ),
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


@pytest.mark.parametrize("label", ["1.5", "nan", "-inf"])
def test_a_class_is_a_word_or_an_integer(tmp_path: Path, label: str) -> None:
    sentence = f"series 1, must hold numbers and a class, got: the class '{label}', which is a number but no integer"
    with pytest.raises(kt.InvalidValueError, match=f"line 2 of K_TRAIN.tsv, {sentence}"):
        timeseries.load(written(tmp_path, f"1\t1\t2\n{label}\t3\t4\n", "K_TRAIN.tsv"))
    with pytest.raises(kt.InvalidValueError, match=f"line 4 of toy.ts, {sentence}"):
        timeseries.load(written(tmp_path, f"@classLabel true\n@data\n1,2:1\n3,4:{label}\n"))
    data = timeseries.load(written(tmp_path, "cat\t1\t2\n2.0\t3\t4\n", "L_TRAIN.tsv")).train
    assert data.labels is not None
    assert data.labels.tolist() == [1, 0]


def test_a_set_that_is_not_there_says_how_one_is_given(tmp_path: Path) -> None:
    sentence = "set or file `CBF`. Known: waves; give any other by its path: .* as timeseriesclassification.com has"
    with pytest.raises(kt.UnknownNameError, match=sentence):
        timeseries.load("CBF")
    (tmp_path / "CBF").mkdir()
    written(tmp_path / "CBF", "1\t1\t2\n", "CBF_TRAIN.tsv")
    assert len(timeseries.load(tmp_path / "CBF").train) == 1


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


@pytest.mark.parametrize(
    ("values", "labels", "sentence"),
    [
        ([["a", "b"], [1, 2]], None, "series 0 must be real numbers, got: could not convert string to float: 'a'"),
        (np.array([["a", "b"]]), None, "series must be real numbers, got: could not convert"),
        (np.ones((2, 3), dtype=complex), None, "series must be real numbers, got: complex"),
        (torch.ones(2, 3, dtype=torch.complex64), None, "series must be real numbers, got: complex"),
        (3.0, None, "must be an array or a sequence of arrays, got 3.0"),
        ("abc", None, "must be an array or a sequence of arrays, got 'abc'"),
        (np.zeros((3, 5, 0)), None, r"series must be \[N, T\] or \[N, T, C\], got \[3, 5, 0\]"),
        ({"a": [1, 2]}, None, "must be an array or a sequence of arrays, got {'a'"),
        (np.eye(4, 1), None, "at least 2 time steps, got 1 in all 4; an array is .* time second"),
        ([1.0, 2.0], None, r"series 0 must be \[T\] or \[T, C\], got \[\]; give one array per series"),
        ([[1, 2], [1]], None, "series 1 must have at least 2 time steps, got 1; leave it out"),
        (
            [np.eye(2), np.eye(3)],
            None,
            "series 1 must have 2 channels as series 0 has, got 3; give the channels",
        ),
        (np.eye(4, 5), [0.0, 1.0, 1.5, 2.0], "labels must be integers, got 1.5 for series 2"),
        (np.eye(4, 5), [0, 1, NAN, 2], "labels must be integers, got nan for series 2"),
        (np.eye(4, 5), np.array([0.0, 1, 1, 2]), "labels must be integers, got 0.0 for series 0"),
    ],
)
def test_what_is_no_series_is_refused_by_a_sentence(values: object, labels: object, sentence: str) -> None:
    with pytest.raises(kt.InvalidValueError, match=sentence):
        timeseries.series(values, labels)


def test_a_series_that_cannot_be_taken_is_named_with_its_file(tmp_path: Path) -> None:
    missing = np.eye(3, 5)
    missing[2] = NAN
    np.savez(tmp_path / "a.npz", X_train=np.eye(3, 5), X_test=missing)
    with pytest.raises(kt.InvalidValueError, match=r"X_test of a\.npz: .* series 2 is NaN throughout"):
        timeseries.load(tmp_path / "a.npz")
    written(tmp_path, "1\t1\t2\n", "K_TRAIN.tsv")
    written(tmp_path, "1\tNaN\tNaN\n", "K_TEST.tsv")
    with pytest.raises(kt.InvalidValueError, match=r"K_TEST\.tsv: .* series 0 is NaN throughout"):
        timeseries.load("K", tmp_path)


def test_recordings_of_other_shapes_and_without_a_value_are_refused() -> None:
    with pytest.raises(kt.InvalidValueError, match=r"must be \[T\] or \[T, C\], got \[2, 3, 4\]"):
        timeseries.windows(torch.ones(2, 3, 4), 2)
    with pytest.raises(kt.InvalidValueError, match=r"must be integers >= 2 and >= 1, got 2\.5 and 2\.5"):
        timeseries.windows(torch.ones(9), 2.5)  # type: ignore[arg-type]
    with pytest.raises(kt.InvalidValueError, match="recording 3 is NaN throughout"):
        timeseries.windows(torch.full((9,), NAN), 2, recording_id=3)
    with pytest.raises(kt.InvalidValueError, match="recording 0 must be real numbers"):
        timeseries.windows(["a", "b"], 2)


def test_frames_are_frames_of_numbers() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"id": ["p", "p", "q", "q"], "t": [0, 1, 0, 1], "speed": [1.0, 2, 3, 4]})
    assert timeseries.from_frame(frame, series_id="id", time="t", values="speed").inputs.shape == (2, 2, 1)
    with pytest.raises(kt.InvalidValueError, match=r"series 0 \(p\) must be real numbers"):
        timeseries.from_frame(frame.assign(speed=list("abcd")), series_id="id", time="t", values="speed")
    with pytest.raises(kt.InvalidValueError, match="got a DataFrame; give one of a row per time step to from_frame"):
        timeseries.series(frame)
    with pytest.raises(kt.InvalidValueError, match="`frame` must be a pandas DataFrame, got list"):
        timeseries.from_frame([1, 2], series_id="id", time="t", values="speed")
