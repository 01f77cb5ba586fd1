"""Time series: data, augmentations, encoders.

Shapes: B series, T time steps, C channels.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import kontrast as kt
from kontrast.adapters import timeseries
from kontrast.adapters.timeseries.evaluate import svm

DATA = Path(os.environ.get("KONTRAST_DATA", "../shared/data")) / "ucr"
NAN = float("nan")


def batch(count: int = 6, steps: int = 20, channels: int = 2) -> kt.Batch:
    values = torch.randn(count, steps, channels, generator=torch.Generator().manual_seed(0))
    values[1, 15:] = NAN
    values[2, 7, 0] = NAN
    return kt.Batch(values, torch.arange(count))


# --- data


def test_ts_files_with_gaps_channels_and_unequal_lengths(tmp_path: Path) -> None:
    head = "# a comment\n@problemName toy\n@timestamps false\n@classLabel true up down\n@data\n"
    (tmp_path / "Toy_TRAIN.ts").write_text(head + "1,2,?:4,5,6:up\n7,8:9,10:down\n")
    (tmp_path / "Toy_TEST.ts").write_text(head + "1,2,3,4:5,6,7,8:down\n")
    for splits in (timeseries.load("Toy", tmp_path), timeseries.load(tmp_path / "Toy_TRAIN.ts")):
        expected = torch.tensor([[[1, 4], [2, 5], [NAN, 6]], [[7, 9], [8, 10], [NAN, NAN]]])
        torch.testing.assert_close(splits.train.inputs, expected, equal_nan=True)
        assert splits.train.labels is not None
        assert splits.train.labels.tolist() == [1, 0]  # in the order of their names
        assert splits.test.labels is not None
        assert splits.test.labels.tolist() == [0]
        assert splits.about == {"in_channels": 2}


def test_tsv_and_npz_files(tmp_path: Path) -> None:
    (tmp_path / "Toy_TRAIN.tsv").write_text("-1\t1.0\t2.0\tNaN\n10\t3\t4\t5\n2\t0\t0\t1\n")
    train = timeseries.load("Toy", tmp_path).train
    assert train.labels is not None
    assert train.labels.tolist() == [0, 2, 1]  # numbers in the order of numbers
    torch.testing.assert_close(train.inputs[0, :, 0], torch.tensor([1.0, 2.0, NAN]), equal_nan=True)
    np.savez(tmp_path / "x.npz", X_train=np.eye(3, 5), y_train=np.arange(3), X_test=np.eye(2, 5), y_test=[0, 1])
    splits = timeseries.load(tmp_path / "x.npz")
    assert splits.train.inputs.shape == (3, 5, 1)
    assert len(splits.test) == 2
    (tmp_path / "bad.npz").write_text("no archive")
    (tmp_path / "other.npz").write_bytes(b"")
    np.savez(tmp_path / "other.npz", images=np.ones(3))
    (tmp_path / "Bad_TRAIN.tsv").write_text("1\t1\t2\n1\tx\t2\n")
    for name, sentence in (
        ("bad.npz", "must be an .npz archive"),
        ("other.npz", r"`X_train` or `series`, got \['images'\]"),
        ("Bad", "line 2 of Bad_TRAIN.tsv, series 1, must hold numbers"),
    ):
        with pytest.raises(kt.InvalidValueError, match=sentence):
            timeseries.load(name, tmp_path)
    with pytest.raises(kt.UnknownNameError, match="wavs"):
        timeseries.load("wavs")


@pytest.mark.skipif(not DATA.is_dir(), reason="KONTRAST_DATA has no ucr folder")
def test_the_archives_sets() -> None:
    splits = timeseries.load("ECG200", DATA)
    assert splits.train.inputs.shape == (100, 96, 1)
    assert splits.test.inputs.shape == (100, 96, 1)
    train, test = (part.inputs.flatten(1) for part in (splits.train, splits.test))
    assert splits.train.labels is not None
    found = splits.train.labels[torch.cdist(test, train).argmin(1)]
    assert splits.test.labels is not None
    assert (found != splits.test.labels).double().mean() == pytest.approx(0.120)  # as the archive's README says


@pytest.mark.parametrize(
    ("values", "labels", "sentence"),
    [
        (np.full((2, 1), 1.0), None, "at least 2 time steps, got 1"),
        ([np.ones((4, 2)), np.ones((4, 3))], None, "series 1 must have 2 channels as series 0 has, got 3"),
        ([np.ones(4), np.ones(1)], None, "series 1 must have at least 2 time steps"),
        (np.array([[1.0, 2.0], [NAN, NAN]]), None, "series 1 is NaN throughout"),
        (np.array([[1.0, 2.0], [np.inf, 1.0]]), None, "infinity in series 1"),
        (np.eye(2, 3), ["a", "b"], "labels must be integers, got 'a' for series 0"),
        (np.eye(2, 3), [0, 0.5], "got 0.5 for series 1|got 0.0 for series 0"),
        (np.ones(3), None, r"must be \[N, T\] or \[N, T, C\]"),
        ([], None, "at least one series, got none"),
    ],
)
def test_bad_series_are_named(values: Any, labels: Any, sentence: str) -> None:
    with pytest.raises(kt.InvalidValueError, match=sentence):
        timeseries.series(values, labels)


def test_constant_series_are_named_and_stay() -> None:
    with pytest.warns(timeseries.ConstantSeriesWarning, match="series 0, 1, 2 of 3 are constant"):
        data = timeseries.series(np.ones((3, 8)))
    with pytest.warns(timeseries.ConstantSeriesWarning, match=r"series 1 \(b\) of 2 are constant"):
        timeseries.from_frame(frame({"a": [1, 2], "b": [3, 3, NAN]}), series_id="id", time="t", values=["v"])
    scaled = timeseries.standardized(kt.Splits(data))
    assert torch.equal(scaled.train.inputs, torch.zeros(3, 8, 1))


def test_standardizing_takes_the_training_part_alone_and_passes_gaps_over() -> None:
    train = torch.randn(5, 9, 2) * torch.tensor([3.0, 0.1]) + 7
    train[0, 4:] = NAN
    splits = timeseries.standardized(kt.Splits(kt.ArrayData(train), kt.ArrayData(train[:2] + 1)))
    there = splits.train.inputs[~splits.train.inputs.isnan().any(2)]
    torch.testing.assert_close(there.mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(there.std(0, correction=0), torch.ones(2))
    assert splits.test.inputs[1].mean() > 0.1


def frame(values: dict[str, list[float]]) -> Any:
    pandas = pytest.importorskip("pandas")
    rows = [(name, step, value) for name, own in values.items() for step, value in enumerate(own)]
    return pandas.DataFrame(rows, columns=["id", "t", "v"])


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"a": [1, 2], "b": [NAN, NAN]}, r"series 1 \(b\) is NaN throughout"),
        ({"a": [1, 2], "b": [1, np.inf]}, r"infinity in series 1 \(b\)"),
        ({"a": [1, 2], "b": [1]}, r"series 1 \(b\) must have at least 2 time steps"),
    ],
)
def test_bad_series_of_a_frame_are_called_by_their_name(values: dict[str, list[float]], sentence: str) -> None:
    with pytest.raises(kt.InvalidValueError, match=sentence):
        timeseries.from_frame(frame(values), series_id="id", time="t", values=["v"])


def test_frames() -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(
        {"id": [7, 7, 3, 3, 3], "t": [0, 1, 0, 1, 2], "v": [1.0, 2, 3, 4, 5], "y": [1, 1, 0, 0, 0]}
    )
    data = timeseries.from_frame(table, series_id="id", time="t", values=["v"], label="y")
    expected = torch.tensor([[3.0, 4, 5], [1, 2, NAN]])[:, :, None]
    torch.testing.assert_close(data.inputs, expected, equal_nan=True)
    with pytest.raises(kt.InvalidValueError, match=r"must rise within a series, and those of series 0 \(3\)"):
        timeseries.from_frame(table.iloc[[0, 1, 4, 3, 2]], series_id="id", time="t", values=["v"])
    with pytest.raises(kt.UnknownNameError, match="column"):
        timeseries.from_frame(table, series_id="id", time="t", values=["w"])
    with pytest.raises(kt.InvalidValueError, match=r"one label, got 2 for series 0 \(3\)"):
        timeseries.from_frame(table.assign(y=[1, 1, 0, 1, 0]), series_id="id", time="t", values=["v"], label="y")
    with pytest.raises(kt.InvalidValueError, match=r"labels must be integers, got 0\.5 for series 0 \(3\)"):
        timeseries.from_frame(table.assign(y=0.5), series_id="id", time="t", values=["v"], label="y")
    sentence = r"its label in every row, and 1 of the 2 rows of series 1 \(7\) have none; fill these"
    for missing in (NAN, None, pandas.NA):  # in columns of floating numbers, of objects
        labels = pandas.Series([missing, 1, 0, 0, 0])
        with pytest.raises(kt.InvalidValueError, match=sentence):
            timeseries.from_frame(table.assign(y=labels), series_id="id", time="t", values=["v"], label="y")


def test_windows_share_the_recordings_memory() -> None:
    recording = torch.arange(1_000_000.0)
    data = timeseries.windows(recording, 1000, 10)
    assert data.inputs.shape == (99_901, 1000, 1)
    assert data.inputs.untyped_storage().data_ptr() == recording.untyped_storage().data_ptr()
    assert torch.equal(data.batch(torch.tensor([5])).inputs[0, :, 0], recording[50:1050])
    with pytest.raises(kt.InvalidValueError, match="as long as a window, 11, got 10"):
        timeseries.windows(torch.ones(10), 11)


# --- augmentations

TRANSFORMS = {
    "jitter": timeseries.Jitter(),
    "scaling": timeseries.Scaling(),
    "magnitude": timeseries.MagnitudeWarp(),
    "time warp": timeseries.TimeWarp(),
    "permutation": timeseries.Permutation(),
    "frequencies": timeseries.FrequencyMasking(),
    "channels": timeseries.ChannelDropping(0.5),
    "masking": timeseries.TimeMasking(0.5),
    "in order": timeseries.InOrder(timeseries.Jitter(), timeseries.Permutation(), timeseries.Jitter()),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_series_is_changed_alike_in_any_batch(name: str) -> None:
    whole = batch()
    views = TRANSFORMS[name](whole, kt.Draws(3))
    assert not torch.equal(views[0].inputs.nan_to_num(9), views[1].inputs.nan_to_num(9))
    chosen = torch.tensor([4, 1])
    part = TRANSFORMS[name](kt.Batch(whole.inputs[chosen], chosen), kt.Draws(3))
    torch.testing.assert_close(part[1].inputs, views[1].inputs[chosen], equal_nan=True)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_what_is_missing_stays_so(name: str) -> None:
    whole = batch()
    for view in TRANSFORMS[name](whole, kt.Draws(3)):
        lost = view.inputs.isnan().any(2)
        if name in ("jitter", "scaling", "magnitude", "frequencies", "channels"):
            assert torch.equal(lost, whole.inputs.isnan().any(2))
        if name == "permutation":
            assert torch.equal(lost.sum(1), whole.inputs.isnan().any(2).sum(1))
        assert (~lost).any(1).all()
        assert (view.coords is None) == (name in ("time warp", "permutation", "in order"))


def test_closed_forms_of_transforms() -> None:
    flat = kt.Batch(torch.ones(4000, 30, 2), torch.arange(4000))
    noise = timeseries.Jitter(0.3)(flat, kt.Draws(0))[0].inputs - 1
    assert noise.mean() == pytest.approx(0, abs=0.005)
    assert noise.std() == pytest.approx(0.3, rel=0.02)
    scaled = timeseries.Scaling(0.2)(flat, kt.Draws(0))[0].inputs
    assert torch.equal(scaled, scaled[:, :1].expand_as(scaled))
    assert (scaled[:, 0] - 1).std() == pytest.approx(0.2, rel=0.05)
    curve = timeseries.MagnitudeWarp(0.2, knots=4)(flat, kt.Draws(0))[0].inputs[:, :, 0]
    assert curve[:, [0, 29]].std() == pytest.approx(0.2, rel=0.05)
    ramp = torch.arange(30.0)[None, :, None].expand(50, 30, 1)
    warped = timeseries.TimeWarp(0.5)(kt.Batch(ramp, torch.arange(50)), kt.Draws(0))[0].inputs[:, :, 0]
    assert (warped.diff(dim=1) > 0).all()
    torch.testing.assert_close(warped[:, [0, -1]], torch.tensor([0.0, 29.0]).expand(50, 2))
    still = timeseries.TimeWarp(0.0)(kt.Batch(ramp, torch.arange(50)), kt.Draws(0))[0].inputs
    torch.testing.assert_close(still, ramp)
    moved = timeseries.Permutation(4)(kt.Batch(ramp, torch.arange(50)), kt.Draws(0))[0].inputs[:, :, 0]
    assert torch.equal(moved.sort(1).values, ramp[:, :, 0])
    breaks = (moved.diff(dim=1) != 1).sum(1)
    assert breaks.max() == 3
    assert breaks.min() == 0
    wave = (2 * torch.pi * 3 * torch.arange(30) / 30).sin()[None, :, None].expand(400, 30, 1) + 5
    masked = timeseries.FrequencyMasking(0.4)(kt.Batch(wave, torch.arange(400)), kt.Draws(0))[0].inputs
    gone = (masked - 5).abs().amax((1, 2)) < 1e-4
    assert gone.double().mean() == pytest.approx(0.4, abs=0.08)
    torch.testing.assert_close(masked[~gone], wave[~gone])
    dropped = timeseries.ChannelDropping(0.9)(flat, kt.Draws(0))[0].inputs
    assert ((dropped == 1).any(2)).all()
    assert (dropped == 0).double().mean() > 0.4
    hidden = timeseries.TimeMasking(0.4)(flat, kt.Draws(0))[0].inputs.isnan().any(2)
    assert hidden.double().mean() == pytest.approx(0.4, abs=0.02)


def test_parameters_out_of_range_are_refused() -> None:
    for make, sentence in (
        (lambda: timeseries.Jitter(-1), "`std` must be >= 0 and finite, got -1"),
        (lambda: timeseries.TimeWarp(knots=1), "`knots` must be >= 2, got 1"),
        (lambda: timeseries.TimeMasking(1.0), r"`ratio` must be in \[0, 1\), got 1.0"),
        (lambda: timeseries.Jitter(num_views=0), "`num_views` must be >= 1"),
        (lambda: timeseries.SeriesViews(), "one transform per view"),
        (lambda: timeseries.OverlappingCrops(1), "`min_overlap` must be >= 2"),
        (lambda: timeseries.OverlappingCrops(mask_ratio=1.0), "`mask_ratio`"),
        (lambda: timeseries.OverlappingCrops()(kt.Batch(torch.ones(2, 1, 1), torch.arange(2)), kt.Draws(0)), "got 1"),
        (lambda: timeseries.Jitter()(kt.Batch(torch.ones(2, 3), torch.arange(2)), kt.Draws(0)), r"\[B, T, C\]"),
        (lambda: timeseries.DilatedCNN(0), "`in_channels` must be >= 1"),
        (lambda: timeseries.SeriesTransformer(1, 30), "multiple of 2 x `heads`"),
        (lambda: timeseries.InceptionTime(1, kernel_size=3), "`kernel_size` >= 4"),
        (lambda: timeseries.DilatedCNN(2)(torch.ones(1, 5, 3)), r"series must be \[B, T, 2\]"),
    ):
        with pytest.raises(kt.InvalidValueError, match=sentence):
            make()


def test_crops_are_the_papers() -> None:
    """Same lengths for all, first ends where the second's start plus the overlap is, every offset inside the series."""
    ramp = torch.arange(40.0)[None, :, None].expand(300, 40, 1)
    whole = kt.Batch(ramp, torch.arange(300))
    shares = set()
    for step in range(60):
        first, second = timeseries.OverlappingCrops(mask_ratio=0.0)(whole, kt.Draws(1, 0, step))
        for view in (first, second):
            assert view.coords is not None
            assert torch.equal(view.inputs[:, :, 0], view.coords.float())
        one, two = first.coords, second.coords
        assert one is not None
        assert two is not None
        shared = one[:, -1] - two[:, 0] + 1
        assert shared.unique().numel() == 1
        assert int(shared[0]) >= 2
        assert (one[:, 0] <= two[:, 0]).all()
        assert (one[:, -1] <= two[:, -1]).all()
        room = 40 - int(two[0, -1] - one[0, 0] + 1)
        assert one[:, 0].min() == 0
        assert one[:, 0].max() == room
        shares.add(int(shared[0]))
        twin = timeseries.OverlappingCrops(mask_ratio=0.0)(
            kt.Batch(ramp[:7], torch.arange(50, 57)), kt.Draws(1, 0, step)
        )
        assert twin[0].coords is not None
        assert torch.equal(twin[0].coords, one[50:57])  # on another process
    assert len(shares) > 20
    hidden = timeseries.OverlappingCrops(mask_ratio=0.3)(whole, kt.Draws(1))[1].masked
    assert hidden is not None
    assert hidden.double().mean() == pytest.approx(0.3, abs=0.05)


def test_crops_of_a_short_series_hold_some_of_it() -> None:
    values = torch.randn(50, 30, 1)
    lengths = torch.arange(50) % 29 + 2
    values[torch.arange(30) >= lengths[:, None]] = NAN
    for step in range(40):
        first, second = timeseries.OverlappingCrops()(kt.Batch(values, torch.arange(50)), kt.Draws(0, 0, step))
        assert first.coords is not None
        assert second.coords is not None
        shared = (first.coords >= second.coords[:, :1]) & ~first.inputs.isnan().any(2)
        assert shared.any(1).all()
        inside = ~first.inputs.isnan()
        rows = torch.arange(50)[:, None].expand_as(first.coords)
        assert torch.equal(first.inputs[inside], values[rows, first.coords.clamp(0, 29)][inside])


# --- encoders

ENCODERS: dict[str, Callable[[], timeseries.SeriesEncoder]] = {
    "cnn": lambda: timeseries.DilatedCNN(2, 12, hidden_size=6, depth=4),
    "transformer": lambda: timeseries.SeriesTransformer(2, 16, num_layers=2, heads=2),
    "inception": lambda: timeseries.InceptionTime(2, filters=4, depth=3),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_give_steps_and_their_read_out(name: str) -> None:
    torch.manual_seed(0)
    encoder = ENCODERS[name]().eval()
    whole = batch()
    view = kt.View.of(whole, whole.inputs)
    encoded = encoder.encode(view, torch.arange(6))
    assert encoded.dense is not None
    assert encoded.rows is not None
    assert encoded.valid is not None
    assert encoded.dense.shape == (6, 20, encoder.representation_size)
    assert encoded.dense.isfinite().all()
    assert encoded.valid.sum(1).tolist() == [20, 15, 19, 20, 20, 20]
    for row, steps, valid in zip(encoded.rows, encoded.dense, encoded.valid, strict=True):
        expected = steps[valid].amax(0) if encoder.readout == "max" else steps[valid].mean(0)
        torch.testing.assert_close(row, expected)
    torch.testing.assert_close(encoder(whole.inputs), encoded.rows)
    torch.testing.assert_close(encoder(whole.inputs[3:4])[0], encoded.rows[3], rtol=1e-4, atol=1e-5)
    gone = torch.full((1, 20, 2), NAN)
    assert encoder(gone).isfinite().all()


def test_a_hidden_step_enters_as_nothing() -> None:
    torch.manual_seed(0)
    encoder = timeseries.DilatedCNN(1, 8, hidden_size=4, depth=2, dropout=0.0)
    one, two = torch.randn(2, 1, 12, 1)
    hidden = torch.zeros(1, 12, dtype=torch.bool)
    hidden[0, 5] = True
    two = torch.where(hidden[:, :, None], two, one)
    assert not torch.equal(encoder.steps(one), encoder.steps(two))
    torch.testing.assert_close(encoder.steps(one, hidden), encoder.steps(two, hidden))
    gap = one.masked_fill(hidden[:, :, None], NAN)
    torch.testing.assert_close(encoder.steps(gap), encoder.steps(one, hidden))


def test_the_convolutions_reach_is_the_papers() -> None:
    """Ten blocks and one, two convolutions of width 3 each: 2 (2^11 - 1) steps to either side."""
    encoder = timeseries.DilatedCNN(1, 8, hidden_size=4).eval()
    series = torch.randn(1, 9001, 1).requires_grad_()
    encoder.steps(series)[0, 4500].sum().backward()
    assert series.grad is not None
    touched = series.grad[0, :, 0].nonzero().flatten()
    assert 4500 - int(touched[0]) <= 2 * (2**11 - 1)
    assert int(touched[-1]) - 4500 > 2000


@pytest.mark.parametrize("steps", [1, 2, 3, 8, 9, 40])
def test_the_convolutions_are_the_plain_ones_however_short_a_series_is(steps: int) -> None:
    torch.manual_seed(0)
    encoder = timeseries.DilatedCNN(2, 6, hidden_size=5, depth=3, dropout=0.0).double()
    series = torch.randn(3, steps, 2, dtype=torch.float64)

    def plainly() -> Tensor:
        x: Tensor = encoder.input(series).transpose(1, 2)
        for block in encoder.blocks:
            assert isinstance(block, torch.nn.Module)
            first, second, shortcut = (getattr(block, name) for name in ("first", "second", "shortcut"))
            x = second(F.gelu(first(F.gelu(x)))) + (x if shortcut is None else shortcut(x))
        return x.transpose(1, 2)

    found = []
    for made in (plainly(), encoder.steps(series)):
        encoder.zero_grad()
        made.square().sum().backward()
        found.append([made.detach(), *(p.grad for p in encoder.parameters() if p.grad is not None)])
    assert len(found[0]) == 1 + len(list(encoder.parameters()))
    for plain, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-12)


# --- the protocol


def test_the_protocols_machine_tells_what_can_be_told() -> None:
    def made(count: int, shift: float) -> kt.evaluate.Representations:
        labels = torch.arange(count) % 2
        rows = torch.randn(count, 3, generator=torch.Generator().manual_seed(count)) + shift * labels[:, None]
        return kt.evaluate.Representations(rows, torch.arange(count), labels)

    for count in (20, 80):  # without and with a choice of the cost
        assert svm((made(count, 9.0), made(60, 9.0))) == 100
        assert svm((made(count, 0.0), made(60, 0.0))) < 75
    bare = kt.evaluate.Representations(torch.ones(4, 2), torch.arange(4), None)
    with pytest.raises(kt.IncompatibleError, match="evaluation needs labels"):
        svm((bare, bare))


def test_a_long_recording_is_embedded_window_by_window() -> None:
    encoder = timeseries.DilatedCNN(1, 4, hidden_size=2, depth=1)
    data = timeseries.windows(torch.randn(20_000), 100)
    rows: Tensor = kt.evaluate.embed(encoder, data, batch_size=64).rows
    assert rows.shape == (200, 4)
