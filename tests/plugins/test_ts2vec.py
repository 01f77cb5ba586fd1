"""TS2Vec: its hierarchy against the paper's formulas in plain loops, on crops, gaps and several processes.

Shapes: B series, T time steps, D embedding size.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import kontrast as kt
from kontrast.adapters import timeseries
from kontrast.plugins.objectives import NTXent
from kontrast.plugins.samplers import TimePyramid
from kontrast.plugins.ts2vec import ts2vec
from kontrast.testing import check_method


def series(count: int = 24, steps: int = 13) -> kt.ArrayData:
    values = torch.randn(count, steps, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values[1, 9:] = float("nan")
    values[2, 4] = float("nan")
    return kt.ArrayData(values, torch.arange(count) % 3)


def small() -> timeseries.DilatedCNN:
    torch.manual_seed(0)
    return timeseries.DilatedCNN(2, 6, hidden_size=4, depth=2, dropout=0.0)


def loop(one: list[dict[int, Tensor]], two: list[dict[int, Tensor]], steps: int) -> float:
    """Equations 1 to 3: one and two hold, for each series, the embedding at each shared time."""
    total, levels = 0.0, 0
    while True:
        parts: dict[str, list[Tensor]] = {"instance": [], "temporal": []}
        rows = [(v, i, t, z) for v, view in enumerate((one, two)) for i, at in enumerate(view) for t, z in at.items()]
        for kind, found in parts.items():
            for v, i, t, z in rows:
                same = [
                    (w, z @ y)
                    for w, j, s, y in rows
                    if (s == t if kind == "instance" else j == i) and (w, j, s) != (v, i, t)
                ]
                own = [z @ y for w, j, s, y in rows if (j, s) == (i, t) and w != v]
                if own:
                    found.append(torch.stack([score for _, score in same]).logsumexp(0) - own[0])
        levels += 1
        total += 0.5 * float(torch.stack(parts["instance"]).mean())
        if steps == 1:
            return total / levels
        total += 0.5 * float(torch.stack(parts["temporal"]).mean())
        steps //= 2
        one, two = ([_halved(at, steps) for at in view] for view in (one, two))


def _halved(at: dict[int, Tensor], steps: int) -> dict[int, Tensor]:
    pooled = {}
    for t in range(steps):
        both = [at[s] for s in (2 * t, 2 * t + 1) if s in at]
        if both:
            pooled[t] = torch.stack(both).amax(0)
    return pooled


@pytest.mark.parametrize("step", range(5))
def test_the_loss_is_the_papers(step: int) -> None:
    method = ts2vec(small()).double()
    views = timeseries.OverlappingCrops(mask_ratio=0.2)(series().batch(torch.arange(5)), kt.Draws(0, 0, step))
    encoder: Any = method.towers["default"].encoder
    one, two = views[0].coords, views[1].coords
    assert one is not None
    assert two is not None
    steps = int(one[0, -1] - two[0, 0]) + 1
    shared: list[list[dict[int, Tensor]]] = [[], []]
    for v, view in enumerate(views):
        assert view.coords is not None
        dense = encoder.steps(view.inputs, view.masked).detach()
        for i in range(5):
            begin = int(two[i, 0])
            shared[v].append(
                {
                    int(c) - begin: dense[i, n]
                    for n, c in enumerate(view.coords[i].tolist())
                    if 0 <= c - begin < steps and not view.inputs[i, n].isnan().any()
                }
            )
    expected = loop(shared[0], shared[1], steps)
    assert float(method(views)[0].reduced().value) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("gaps", [False, True])
def test_gradcheck_of_the_pyramid(gaps: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    one, two = (torch.randn(3, 7, 2, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(2))
    valid = torch.rand(3, 7, generator=generator) > 0.3 if gaps else None
    ids, coords = torch.arange(3), torch.tensor([[0], [2], [1]]) + torch.arange(7)

    def loss(*dense: Tensor) -> Tensor:
        views = [
            kt.Encoded(
                None, ids, ids + 3 * n, dense=z, valid=valid, coords=coords if n else torch.arange(7).expand(3, 7)
            )
            for n, z in enumerate(dense)
        ]
        return ts2vec(small()).double().score(views).reduced().backward

    assert torch.autograd.gradcheck(loss, (one, two))


@pytest.mark.usefixtures("gloo")
def test_every_check_of_methods_on_series_on_two_and_three_processes_too() -> None:
    check_method(ts2vec(small()), data=series(), augmenter=timeseries.OverlappingCrops())


def test_what_comes_out_is_the_mean_of_all_weights() -> None:
    method = ts2vec(small())
    weights: list[Tensor] = []

    class Recorder(kt.Observer):
        """Keeps the weights after every step."""

        def step_ended(self, metrics: Any) -> None:
            weights.append(torch.cat([p.detach().flatten() for p in method.towers.parameters()]))

    data = series()
    kt.Run(
        method,
        kt.ArrayData(data.inputs.float()),
        augmenter=timeseries.OverlappingCrops(),
        epochs=2,
        batch_size=8,
        optimizer=kt.SGD(0.1),
        warmup_epochs=0,
        schedule="constant",
        log_every=1,
        device="cpu",
        observers=(Recorder(),),
    ).fit()
    assert len(weights) == 6
    mean = torch.cat([p.flatten() for p in method.encoder.parameters()])
    torch.testing.assert_close(mean, torch.stack(weights).mean(0))
    assert not torch.equal(mean, weights[-1])


def test_other_methods_run_on_series_unchanged() -> None:
    for name in ("simclr", "moco-v2"):
        torch.manual_seed(0)
        method = kt.get_record(kt.MethodRecord, name).load()(timeseries.DilatedCNN(2, 8, hidden_size=4, depth=2))
        data = kt.ArrayData(series().inputs.float())
        run = kt.Run(
            method,
            data,
            augmenter=timeseries.simclr_views(),
            epochs=3,
            batch_size=8,
            warmup_epochs=0,
            device="cpu",
            observers=(),
        )
        assert torch.tensor(run.fit()["loss"]).isfinite()


def test_any_module_is_trained_on_series_and_judged() -> None:
    torch.manual_seed(0)
    encoder = kt.as_encoder(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(96, 8)), 8)
    method = kt.get_method("simclr")(encoder)
    waves = timeseries.load("waves")
    run = kt.Run(
        method,
        waves.train,
        augmenter=timeseries.simclr_views(),
        steps=2,
        batch_size=60,
        warmup_epochs=0,
        device="cpu",
        observers=(),
    )
    assert torch.tensor(run.fit()["loss"]).isfinite()
    assert kt.evaluate.embed(run.encoder, waves.test).rows.shape == (120, 8)


def test_views_that_cannot_be_compared_are_refused() -> None:
    views = kt.embedded(torch.randn(3, 4), torch.randn(3, 4))
    with pytest.raises(kt.IncompatibleError, match="the encoder gives pooled embeddings alone"):
        TimePyramid().pairs(views)
    with pytest.raises(kt.IncompatibleError, match="compares two views, and there are 3"):
        TimePyramid().pairs([*views, views[0]])
    apart = [
        replace(view, dense=torch.randn(3, 2, 4), coords=torch.tensor([[at, at + 1]] * 3))
        for view, at in zip(views, (0, 5), strict=True)
    ]
    with pytest.raises(kt.IncompatibleError, match="these share none"):
        TimePyramid().pairs(apart)
    single = [replace(view, dense=torch.randn(3, 1, 4)) for view in views]
    (only,) = TimePyramid().pairs(single)
    assert only.name == "instance"
    assert NTXent(1.0)(only).reduced().value.isfinite()
