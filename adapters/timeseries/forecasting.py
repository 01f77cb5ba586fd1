"""Forecasts by a linear map of what an encoder says of the last time step.

Shapes: T time steps, C channels, D representation size, N steps from which is forecast, H steps ahead.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

import kontrast as kt
from kontrast.adapters.timeseries.last_steps import as_recording, last_steps

__all__ = ["Forecast", "forecast"]

ALPHAS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


@dataclass(frozen=True)
class Forecast:
    """How well the next steps are told on the test part.

    Args:
        horizon: H, how many steps ahead.
        mse: mean squared error, over steps and channels.
        mae: mean absolute error.
        alpha: strength of the penalty, chosen on the validation part.
    """

    horizon: int
    mse: float
    mae: float
    alpha: float


def forecast(
    encoder: kt.Encoder,
    recording: Tensor,
    horizons: Sequence[int] = (24, 48, 168, 336, 720),
    *,
    context: int = 201,
    train: float = 0.6,
    validation: float = 0.2,
    limit: int = 100_000,
    batch_size: int = 32,
) -> list[Forecast]:
    """Return the errors of ridge regressions from a step's representation to the values of the next H steps.

    The recording is cut into training, validation and test part in order of time; the regression is fitted to the
    first, its penalty chosen on the second, the error measured on the last. Standardise the recording by its training
    part first, as it was for the encoder: errors are in squares of its units.

    Args:
        encoder: gives one representation per time step.
        recording: [T] or [T, C]; steps whose future has a gap are left out.
        horizons: values of H, each >= 1.
        context: steps an encoder sees of the past, the one it speaks of included.
        train: share of the recording, in (0, 1).
        validation: likewise; what is left is the test part.
        limit: training steps the regression is fitted to at most, evenly spaced.
        batch_size: windows encoded at once.

    Raises:
        InvalidValueError: if a parameter is out of range, or a part has no step with H known ones behind it.
        IncompatibleError: if the encoder gives pooled representations alone.
        MissingExtraError: if scikit-learn is not installed.

    Source:
        Yue et al. 2022, arXiv:2106.10466, section 4.2; penalties and their choice (root of the squared plus absolute
        error) as in its code.
    """
    if not 0 < train < 1 or not 0 < validation < 1 - train:
        raise kt.InvalidValueError(
            f"`train` and `validation` must be shares that leave a test part, got {train!r} and {validation!r}"
        )
    if not horizons or min(horizons) < 1:
        raise kt.InvalidValueError(f"`horizons` must be numbers >= 1, got {list(horizons)}")
    values = as_recording(recording)
    rows = torch.cat(list(last_steps(encoder, values, context, batch_size=batch_size)))
    cuts = [0, int(len(values) * train), int(len(values) * (train + validation)), len(values)]
    parts = [(rows[a:b], values[a:b]) for a, b in pairwise(cuts)]
    return [_one(parts, horizon, limit) for horizon in horizons]


def _one(parts: list[tuple[Tensor, Tensor]], horizon: int, limit: int) -> Forecast:
    model = kt.optional_import("sklearn.linear_model", extra="kontrast[timeseries]", purpose="the forecasting probe")
    pairs = []
    for name, (rows, values) in zip(("training", "validation", "test"), parts, strict=True):
        if len(values) <= horizon:
            raise kt.InvalidValueError(
                f"the {name} part must be longer than the horizon {horizon}, got {len(values)} steps; "
                "take a longer recording or a smaller horizon"
            )
        ahead = values[1:].unfold(0, horizon, 1).flatten(1)  # [N, C x H]
        known = ~ahead.isnan().any(1)
        if not known.any():
            raise kt.InvalidValueError(f"the {name} part has no {horizon} steps in a row without a gap")
        pairs.append((rows[: len(ahead)][known].numpy(), ahead[known].numpy()))
    fitted, chosen, judged = pairs
    stride = max(1, math.ceil(len(fitted[0]) / limit))
    fitted = fitted[0][::stride].astype(np.float64), fitted[1][::stride].astype(np.float64)
    models = [model.Ridge(alpha=alpha).fit(*fitted) for alpha in ALPHAS]

    def score(number: int) -> float:
        squared, absolute = _errors(models[number], *chosen)
        return math.sqrt(squared) + absolute

    best = min(range(len(ALPHAS)), key=score)
    return Forecast(horizon, *_errors(models[best], *judged), ALPHAS[best])


def _errors(model: Any, rows: Any, ahead: Any) -> tuple[float, float]:
    wrong = model.predict(rows).reshape(ahead.shape) - ahead  # one number ahead comes back flat
    return float(np.square(wrong).mean()), float(np.abs(wrong).mean())
