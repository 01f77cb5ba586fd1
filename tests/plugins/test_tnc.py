"""TNC: stationarity against statsmodels, windows where they should lie, the loss in plain loops, several processes.

Shapes: B series, T time steps, C channels, K windows near and far of each series.
"""

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import kontrast as kt
from kontrast.adapters import timeseries
from kontrast.adapters.timeseries.stationarity import adf_p_values
from kontrast.cli import main
from kontrast.plugins.objectives import PositiveUnlabelled
from kontrast.plugins.samplers import Neighborhood
from kontrast.plugins.tnc import tnc
from kontrast.testing import check_augmenter, check_method


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def reference(values: Any) -> float:
    tools = pytest.importorskip("statsmodels.tsa.stattools")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(tools.adfuller(values)[1])


@pytest.mark.parametrize("steps", [8, 9, 13, 40, 100, 230])
def test_stationarity_is_statsmodels(steps: int) -> None:
    plain = noise(20, steps, seed=steps)
    walks, waves = plain.cumsum(1), (0.3 * torch.arange(steps)).sin() + 0.2 * plain
    many = torch.cat([plain, walks, 0.3 * walks + plain, waves, 1e4 + 1e-3 * plain])
    found = adf_p_values(many)
    expected = [reference(one.numpy()) for one in many]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-8)
    if steps >= 100:
        assert (found[:20] < 0.01).all()
        assert (found[20:40] > 0.01).double().mean() > 0.8


def test_series_that_cannot_be_tested() -> None:
    assert adf_p_values(torch.full((2, 20), 0.1)).tolist() == [0, 0]
    assert adf_p_values(torch.arange(20.0)[None]).isfinite().all()
    with pytest.raises(kt.InvalidValueError, match=r"8 or more time steps, got \[2, 7\]"):
        adf_p_values(torch.ones(2, 7))
    with pytest.raises(kt.InvalidValueError, match="finite to be tested"):
        adf_p_values(torch.full((1, 9), math.nan))


def mixed(count: int = 12, steps: int = 200) -> Tensor:
    """Noise, random walks, and both one after the other, [B, T, 2]."""
    values = noise(count, steps, 2)
    values[::3] = values[::3].cumsum(1)
    values[1::3, steps // 2 :] = values[1::3, steps // 2 :].cumsum(1)
    return values


def test_a_neighbourhood_ends_where_the_series_is_no_longer_stationary() -> None:
    """The authors' loop: the mean over channels of each stretch's p-value, from narrow to wide."""
    augmenter = timeseries.NeighborWindows(window=12)
    series = mixed()
    begin = torch.linspace(0, 188, 12).long()
    found = augmenter.reach(series, begin)
    for one, start, reach in zip(series.numpy(), begin.tolist(), found.tolist(), strict=True):
        expected = 4
        for width in range(1, 5):
            first = min(max(start + 6 - 12 * width, 0), 200 - 24 * width)
            stretch = one[first : first + 24 * width]
            if np.mean([reference(channel) for channel in stretch.T]) >= 0.01:
                expected = width
                break
        assert reach == expected
    assert found.unique().numel() > 1


def test_windows_lie_near_and_far() -> None:
    series = mixed(300, 400)
    series[5, 60:] = math.nan
    augmenter = timeseries.NeighborWindows(window=10, count=5)
    views = augmenter(kt.Batch(series, torch.arange(300)), kt.Draws(0))
    assert [tuple(view.inputs.shape) for view in views] == [(300, 10, 2), (1500, 10, 2), (1500, 10, 2)]
    for view in views:
        assert view.coords is not None
        torch.testing.assert_close(view.inputs, series[view.ids[:, None], view.coords], equal_nan=True)
        assert not view.inputs.isnan().any()  # windows lie where there is something
    begin, near, far = (view.coords[:, 0].view(300, -1) for view in views if view.coords is not None)
    reach = 10 * augmenter.reach(series, begin[:, 0])[:, None]
    last = torch.full((300, 1), 390)
    last[5] = 50
    assert begin.min() < 10
    assert begin.max() > 380
    distance = (far - begin).abs()
    longer = torch.maximum(begin, last - begin)
    assert (distance >= torch.minimum(5 * reach, longer)).all()
    inner = (begin > 150) & (begin < 240)
    spread = ((near - begin) / reach)[inner[:, 0] & (reach[:, 0] == 10)]
    assert spread.std() == pytest.approx(1, rel=0.15)
    assert near.min() == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"window": 3}, "`window` must be >= 4, got 3"),
        ({"count": 0}, "`count` must be >= 1, got 0"),
        ({"widths": 0}, "`widths` must be >= 1"),
        ({"significance": 1.0}, r"`significance` must be in \[0, 1\), got 1.0"),
    ],
)
def test_parameters_out_of_range_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(kt.InvalidValueError, match=sentence):
        timeseries.NeighborWindows(**options)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(kt.InvalidValueError, match="at least 30 time steps, got 20; take a smaller `window`"):
        timeseries.NeighborWindows(30)(kt.Batch(torch.ones(2, 20, 1), torch.arange(2)), kt.Draws(0))
    with pytest.raises(kt.InvalidValueError, match=r"`positive_prior` must be in \[0, 1\), got 1"):
        PositiveUnlabelled(1)
    views = kt.embedded(*torch.randn(4, 3, 5))
    with pytest.raises(kt.IncompatibleError, match="takes three views"):
        Neighborhood().pairs(views)
    (more,) = kt.embedded(torch.randn(4, 5), ids=torch.tensor([0, 0, 1, 2]))
    with pytest.raises(kt.IncompatibleError, match="more or fewer than others"):
        Neighborhood().pairs([views[0], more, views[1]])


def made() -> kt.Method:
    torch.manual_seed(0)
    return tnc(timeseries.DilatedCNN(2, 6, hidden_size=4, depth=2, dropout=0.0), positive_prior=0.1).double()


def test_the_loss_is_the_papers() -> None:
    method = made()
    batch = kt.ArrayData(mixed(5)).batch(torch.arange(5))
    anchors, near, far = timeseries.NeighborWindows(10, 3)(batch, kt.Draws(0))
    discriminator: Any = method.similarity
    encoder: Any = method.towers["default"].encoder

    def logit(one: Tensor, other: Tensor) -> Tensor:
        pair = encoder(torch.stack([one, other])).detach()
        hidden = discriminator.anchor(pair[0]) + discriminator.candidate(pair[1])
        score: Tensor = discriminator.out(hidden.relu()).squeeze()
        return score

    positives: list[Tensor] = []
    others: list[Tensor] = []
    for i in range(5):
        for view, kind in ((near, positives), (far, others)):
            for row, sample in enumerate(view.ids.tolist()):
                if sample == i:
                    kind.append(torch.sigmoid(logit(anchors.inputs[i], view.inputs[row])))
    assert len(positives) == len(others) == 15
    yes, rest = torch.stack(positives), torch.stack(others)
    expected = -yes.log().mean() - (0.1 * rest.log() + 0.9 * (1 - rest).log()).mean()
    found = method([anchors, near, far])[0].reduced()
    assert float(found.value) == pytest.approx(float(expected.detach()), rel=1e-9)
    assert set(found.terms) == {"positive", "unlabelled"}


@pytest.mark.usefixtures("gloo")
def test_every_check_of_methods_and_augmenters_on_series_on_two_and_three_processes_too() -> None:
    data = kt.ArrayData(mixed(24, 60))
    check_method(made(), data=data, augmenter=timeseries.NeighborWindows(8, 2))
    check_augmenter(timeseries.NeighborWindows(8, 2), data=data)


@pytest.mark.parametrize(
    "arguments",
    [
        ["tnc", "--augmenter=neighbor-windows", "--augmenter.count=2"],
        ["simclr", "--augmenter=series-views"],
        ["simclr", "--method.joint_forward=false"],  # on crops of several lengths
        ["moco-v2", "--augmenter=series-views", "--method.queue_size=64"],
        ["cpc", "--augmenter=identity", "--augmenter.num_views=1", "--encoder.depth=1"],
        ["ts2vec"],
    ],
    ids=lambda arguments: "-".join(arguments[:2]),
)
def test_methods_train_on_series_and_are_judged_from_the_command_line(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = ["--encoder.hidden_size=4", "--encoder.representation_size=8"]
    run = ["--adapter=timeseries", "--steps=2", "--batch_size=8", f"--out={tmp_path / 'run'}"]
    assert main(["train", *arguments, *size, *run]) == 0
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    table = capsys.readouterr().out
    assert "series-svm" in table
    assert "series-nearest" in table
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("\n") == 2


def test_crops_of_several_lengths_are_not_joined() -> None:
    torch.manual_seed(0)
    method = kt.get_record(kt.MethodRecord, "simclr").load()(timeseries.DilatedCNN(1, 8, hidden_size=4, depth=2))
    views = timeseries.OverlappingCrops()(timeseries.load("waves").train.batch(torch.arange(8)), kt.Draws(0, 0, 1))
    with pytest.raises(kt.IncompatibleError, match=r"one shape, got \[\[8, .* whose views are alike"):
        method(views)
