"""What an encoder of time series says of the last step, forecasts, anomalies, nearest series, and long recordings.

Shapes: N series, T time steps, C channels, H steps ahead.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import kontrast as kt
from kontrast.adapters import timeseries
from kontrast.adapters.timeseries.evaluate import nearest
from kontrast.adapters.timeseries.last_steps import last_steps


class Past(timeseries.SeriesEncoder):
    """Each step's representation: the values of the last `size` steps; 0 where one is missing or hidden."""

    def __init__(self, size: int) -> None:
        super().__init__(1, 1, size, "max")
        with torch.no_grad():
            self.input.weight.fill_(1.0)
            self.input.bias.zero_()

    def mix(self, steps: Tensor, missing: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(steps[:, :, 0], (self.representation_size - 1, 0))
        return padded.unfold(1, self.representation_size, 1)


def waves(steps: int = 1200) -> Tensor:
    time = torch.arange(steps)
    return (0.21 * time).sin() + 0.5 * (0.047 * time + 1).sin()


@pytest.mark.parametrize("batch_size", [1, 7, 100])
@pytest.mark.parametrize("hide", [False, True])
def test_a_step_is_encoded_from_itself_and_the_steps_before(batch_size: int, hide: bool) -> None:
    torch.manual_seed(0)
    encoder = timeseries.DilatedCNN(2, 5, hidden_size=4, depth=2).train()
    recording = torch.randn(40, 2)
    recording[9, 1] = math.nan
    found = torch.cat(list(last_steps(encoder, recording, 6, hide=hide, batch_size=batch_size)))
    assert encoder.training
    encoder.eval()
    for step in range(40):
        window = torch.full((1, 6, 2), math.nan)
        known = recording[max(0, step - 5) : step + 1]
        window[0, 6 - len(known) :] = known
        hidden = torch.arange(6)[None] == (5 if hide else -1)
        torch.testing.assert_close(found[step], encoder.steps(window, hidden)[0, -1].detach(), rtol=1e-4, atol=1e-5)


def test_what_follows_a_rule_is_forecast_and_noise_is_not() -> None:
    """Two sines are a linear recurrence of four values; of noise the mean is the best guess."""
    near, far = timeseries.forecast(Past(8), waves(), (1, 24), context=8)
    assert (near.horizon, far.horizon) == (1, 24)
    assert near.mse < 2e-3  # of a variance of 0.625; the penalty keeps it from nothing
    assert near.mse < far.mse < 0.1
    assert (near.alpha, far.alpha) == (0.1, 0.1)
    noise = torch.randn(3000, generator=torch.Generator().manual_seed(0))
    (found,) = timeseries.forecast(Past(8), noise, [5], context=8)
    assert found.mse == pytest.approx(1, abs=0.1)
    assert found.mae == pytest.approx(math.sqrt(2 / math.pi), abs=0.05)
    assert found.alpha == 1000


def test_what_is_nearly_dependent_is_fitted_in_double_precision() -> None:
    """Eight values of two sines have rank four: beside their products a penalty of 0.1 is below float32's rounding."""
    recording = 3000 * waves()
    (found,) = timeseries.forecast(Past(8), recording, [1], context=8)
    assert found.alpha == 0.1
    past = torch.nn.functional.pad(recording, (7, 0)).unfold(0, 8, 1).double()
    fitted, ahead = past[:719], recording[1:720].double()
    mean, middle = fitted.mean(0), ahead.mean()
    centred = fitted - mean
    weight = torch.linalg.solve(centred.T @ centred + 0.1 * torch.eye(8), centred.T @ (ahead - middle))
    wrong = (past[960:1199] - mean) @ weight + middle - recording[961:].double()
    assert found.mse == pytest.approx(float(wrong.square().mean()), rel=1e-4)


def test_forecasts_are_the_plain_ridge_regressions() -> None:
    from sklearn.linear_model import Ridge

    recording = waves(300) + 0.3 * torch.randn(300, generator=torch.Generator().manual_seed(1))
    recording[50] = math.nan
    (found,) = timeseries.forecast(Past(4), recording, [3], context=4)
    values, known = recording.numpy(), np.nan_to_num(recording.numpy())

    def pairs(begin: int, end: int) -> tuple[list[list[float]], list[list[float]]]:
        at = [t for t in range(begin, end - 3) if not np.isnan(values[t + 1 : t + 4]).any()]
        past = [[0.0 if t - back < 0 else float(known[t - back]) for back in (3, 2, 1, 0)] for t in at]
        return past, [values[t + 1 : t + 4].tolist() for t in at]

    fitted, chosen, judged = pairs(0, 180), pairs(180, 240), pairs(240, 300)
    best = None
    for alpha in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000):
        model = Ridge(alpha=alpha).fit(*fitted)
        wrong = model.predict(chosen[0]) - np.array(chosen[1])
        score = math.sqrt((wrong**2).mean()) + np.abs(wrong).mean()
        if best is None or score < best[0]:
            best = score, alpha, model
    assert best is not None
    wrong = best[2].predict(judged[0]) - np.array(judged[1])
    assert found.alpha == best[1]
    assert found.mse == pytest.approx((wrong**2).mean(), rel=1e-4)
    assert found.mae == pytest.approx(np.abs(wrong).mean(), rel=1e-4)


def test_a_spike_and_a_fault_stand_out() -> None:
    recording = 1 + 0.1 * waves(600)
    recording[400] += 3
    recording[77] = math.nan
    encoder = Past(8).train()
    assert torch.is_grad_enabled()
    scores = timeseries.anomaly_scores(encoder, recording, context=8)
    assert encoder.training
    assert torch.is_grad_enabled()
    assert int(scores.argmax()) == 400
    assert scores[0] == 0
    assert scores[77] == 0
    # Hidden, the last value is 0 for this encoder: the difference is that value itself.
    there = recording.nan_to_num(0.0).abs()
    for step in (5, 90, 400, 599):
        before = [float(there[t]) for t in range(max(0, step - 21), step) if t != 77]
        mean = sum(before) / len(before)
        assert float(scores[step]) == pytest.approx((float(there[step]) - mean) / mean, rel=1e-3, abs=1e-4)


def labelled(count: int, shift: float, seed: int) -> kt.evaluate.Representations:
    labels = torch.arange(count) % 2
    rows = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed)) + shift * labels[:, None]
    return kt.evaluate.Representations(rows, torch.arange(count), labels)


def test_the_nearest_series_by_each_numbers_own_scale() -> None:
    train, test = labelled(40, 2.0, 0), labelled(60, 2.0, 1)
    mean, std = train.rows.mean(0), train.rows.std(0, correction=0)
    found = torch.cdist((test.rows - mean) / std, (train.rows - mean) / std).argmin(1)
    assert train.labels is not None
    assert test.labels is not None
    expected = 100 * float((train.labels[found] == test.labels).double().mean())
    assert nearest((train, test)) == pytest.approx(expected)
    assert expected > 85
    splits = timeseries.load("waves")
    encoder = timeseries.DilatedCNN(1, 8, hidden_size=4, depth=2)
    assert 0 < nearest(encoder, splits.train, splits.test) <= 100
    with pytest.raises(kt.InvalidValueError, match="give an encoder with training and test series"):
        nearest(encoder)


def test_a_picture_of_nearest_series(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    data = timeseries.load("waves").train
    data.inputs[3, 20:30] = math.nan
    encoder = timeseries.DilatedCNN(1, 8, hidden_size=4, depth=2)
    path = timeseries.neighbor_picture(encoder, data, [0, 3], tmp_path / "new" / "near.svg", neighbors=2)
    rows = kt.evaluate.embed(encoder, data).rows
    near = torch.cdist(rows[:1], rows)[0].topk(3, largest=False).indices
    text = path.read_text(encoding="utf-8")
    for number in near.tolist():  # matplotlib writes a panel's title as a comment
        assert data.labels is not None
        assert f"<!-- {number}, class {int(data.labels[number])}" in text
    for queries, neighbors, sentence in (
        ([], 1, "`queries`"),
        ([120], 1, r"0\.\.119, got \[120\]"),
        ([0], 120, "`neig"),
    ):
        with pytest.raises(kt.InvalidValueError, match=sentence):
            timeseries.neighbor_picture(encoder, data, queries, tmp_path / "x.png", neighbors=neighbors)
    with pytest.raises(kt.InvalidValueError, match=r"`path` must end in \.png, \.svg or \.pdf, got x\.txt"):
        timeseries.neighbor_picture(encoder, data, [0], tmp_path / "x.txt")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"horizons": [0]}, r"`horizons` must be numbers >= 1, got \[0\]"),
        ({"train": 0.9}, "leave a test part, got 0.9 and 0.2"),
        ({"horizons": [300]}, "the validation part must be longer than the horizon 300, got 240 steps"),
        ({"context": 0}, "`context` and `batch_size` must be >= 1"),
    ],
)
def test_forecasts_that_cannot_be_are_refused(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(kt.InvalidValueError, match=sentence):
        timeseries.forecast(Past(2), waves(), **{"horizons": [3], "context": 4, **options})  # type: ignore[arg-type]


def test_recordings_and_encoders_of_another_kind_are_refused() -> None:
    with pytest.raises(kt.InvalidValueError, match="infinity at step 2"):
        timeseries.anomaly_scores(Past(2), torch.tensor([1.0, 2, math.inf]))
    with pytest.raises(kt.InvalidValueError, match=r"must be \[T\] or \[T, C\], got \[1, 2, 3\]"):
        timeseries.anomaly_scores(Past(2), torch.ones(1, 2, 3))
    with pytest.raises(kt.InvalidValueError, match="`memory` must be >= 1, got 0"):
        timeseries.anomaly_scores(Past(2), waves(), memory=0)
    pooled = kt.as_encoder(torch.nn.Flatten(), 4)
    with pytest.raises(kt.IncompatibleError, match="gives pooled ones alone"):
        timeseries.anomaly_scores(pooled, torch.ones(9), context=4)


def _held(name: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024 / 1e6


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is read from Linux' /proc")
def test_a_million_steps_are_embedded_in_bounded_memory() -> None:
    torch.manual_seed(0)
    encoder = timeseries.DilatedCNN(1, 8, hidden_size=4, depth=2)
    recording = torch.randn(1_000_000)
    data = timeseries.windows(recording, 400, 200)
    kt.evaluate.embed(encoder, kt.ArrayData(data.inputs[:100]), batch_size=50)  # what is loaded once
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # begin a new peak
    before = _held("VmRSS")
    rows = kt.evaluate.embed(encoder, data, batch_size=50).rows
    assert rows.shape == (4999, 8)
    # All windows at once would be 2 million steps of 4 channels, several times over: hundreds of megabytes.
    assert _held("VmHWM") - before < 30
    torch.testing.assert_close(rows[17:18], encoder.eval()(recording[None, 3400:3800, None]).detach())
