"""CPC against its formula in plain loops, with gaps and both kinds of negatives.

Shapes: B series, T time steps.
"""

from typing import Any, Literal

import pytest
import torch

import kontrast as kt
from kontrast.adapters import timeseries
from kontrast.plugins.cpc import cpc
from kontrast.plugins.samplers import FutureSteps
from kontrast.testing import check_method


def series(count: int = 24, steps: int = 9) -> kt.ArrayData:
    values = torch.randn(count, steps, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values[1, 6:] = float("nan")
    values[2, 4] = float("nan")
    return kt.ArrayData(values)


def made(negatives: Literal["any", "sequence"], steps: int = 3) -> kt.Method:
    torch.manual_seed(0)
    encoder = timeseries.DilatedCNN(2, 4, hidden_size=3, depth=1, dropout=0.0)
    return cpc(encoder, hidden_size=5, steps=steps, negatives=negatives).double()


@pytest.mark.parametrize("negatives", ["any", "sequence"])
def test_the_loss_is_the_papers(negatives: Literal["any", "sequence"]) -> None:
    method = made(negatives)
    batch = series().batch(torch.arange(4))
    (view,) = kt.Identity(1)(batch, kt.Draws(0))
    encoder: Any = method.towers["default"].encoder
    maps: Any = method.sampler.maps
    latents = encoder.latents.steps(view.inputs).detach()
    contexts = encoder.recurrent(latents)[0].detach()
    there = [(i, t) for i in range(4) for t in range(9) if not view.inputs[i, t].isnan().any()]
    terms = []
    for step, mapped in enumerate(maps, 1):
        losses = []
        for i, t in there:
            scores = {
                (j, s): mapped(contexts[i, t]).detach() @ latents[j, s]
                for j, s in there
                if negatives == "any" or j == i
            }
            if (i, t + step) in scores:
                losses.append(torch.stack(list(scores.values())).logsumexp(0) - scores[i, t + step])
        terms.append(torch.stack(losses).mean())
    assert float(method([view])[0].reduced().value) == pytest.approx(float(torch.stack(terms).mean()), rel=1e-9)


@pytest.mark.parametrize("negatives", ["any", "sequence"])
@pytest.mark.usefixtures("gloo")
def test_every_check_of_methods_on_series_on_two_and_three_processes_too(negatives: Any) -> None:
    check_method(made(negatives), data=series(), augmenter=kt.Identity(1))


def test_the_row_is_the_last_context_that_exists() -> None:
    method = made("any")
    batch = series().batch(torch.arange(3))
    (view,) = kt.Identity(1)(batch, kt.Draws(0))
    encoded = method.encoder.encode(view, torch.arange(3))
    assert encoded.rows is not None
    assert encoded.dense is not None
    torch.testing.assert_close(encoded.rows, encoded.dense[torch.arange(3), [8, 5, 8]])
    torch.testing.assert_close(method.encoder(batch.inputs), encoded.rows)


def test_parameters_out_of_range_are_refused() -> None:
    with pytest.raises(kt.InvalidValueError, match="`steps` must be >= 1, got 0"):
        FutureSteps(4, 4, 0)
    with pytest.raises(kt.InvalidValueError, match="`negatives` must be any or sequence"):
        FutureSteps(4, 4, negatives="all")  # type: ignore[arg-type]
    pooled = kt.as_encoder(torch.nn.Linear(3, 4), 4)
    with pytest.raises(kt.IncompatibleError, match="one latent per time step"):
        cpc(pooled)([kt.View(torch.ones(2, 3), torch.arange(2))])
