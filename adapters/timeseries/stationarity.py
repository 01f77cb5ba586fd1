"""The augmented Dickey-Fuller test, for many series at once.

Shapes: N series, T time steps, K regressors, M rows of a regression.
"""

import torch
from torch import Tensor

import kontrast as kt

__all__ = ["adf_p_values"]

# MacKinnon's approximation of the distribution of the statistic, for a regression with a constant: the normal
# distribution at a polynomial in the statistic, one up to STAR and another above it.
STAR, LEAST, MOST = -1.61, -18.83, 2.74
BELOW = (2.1659, 1.4412, 0.038269)
ABOVE = (1.7339, 0.93202, -0.12745, -0.010368)


def adf_p_values(series: Tensor) -> Tensor:
    """Return the chance, for each series, of what it shows if it wandered off (a unit root); small: it is stationary.

    The regression has a constant and as many lagged differences as Akaike's criterion likes best, up to
    12 (T / 100)^(1/4). A constant series is stationary: 0.

    Args:
        series: [N, T], finite, of at least 8 steps.

    Returns:
        float64 [N].

    Raises:
        InvalidValueError: if a series is too short, or not finite.

    Source:
        Dickey and Fuller 1979, doi:10.2307/2286348; lags and their choice as in statsmodels' `adfuller`; MacKinnon
        1994, doi:10.1080/07350015.1994.10510005, table 3.
    """
    if series.ndim != 2 or series.shape[1] < 8:
        raise kt.InvalidValueError(f"series must be [N, T] of 8 or more time steps, got {list(series.shape)}")
    values = series.double()
    if not values.isfinite().all():
        raise kt.InvalidValueError("series must be finite to be tested; fill the gaps")
    spread = values.amax(1) - values.amin(1)
    constant = spread == 0
    # The statistic does not change with mean and scale; products of large numbers would lose digits.
    values = (values - values.mean(1, keepdim=True)) / torch.where(constant, 1.0, spread)[:, None]
    steps = values.shape[1]
    most = min(-int(-12 * (steps / 100) ** 0.25 // 1), steps // 2 - 2)
    lags = _best_lags(values, most)
    statistic = values.new_empty(len(values))
    for lag in range(most + 1):  # each with all the rows that so many lags leave
        chosen = lags == lag
        if chosen.any():
            statistic[chosen] = _statistic(values[chosen], lag)
    return torch.where(constant, 0.0, _p_value(statistic).nan_to_num(1.0))  # a ramp leaves nothing to measure by


def _regression(values: Tensor, lag: int) -> tuple[Tensor, Tensor]:
    """Return the differences [N, M], and [N, M, K]: a constant, the level before, and the `lag` differences before."""
    differences = values.diff(dim=1)
    rows = differences.shape[1] - lag
    columns = [torch.ones_like(values[:, :rows]), values[:, lag : lag + rows]]
    columns += [differences[:, lag - back : lag - back + rows] for back in range(1, lag + 1)]
    return differences[:, lag:], torch.stack(columns, 2)


def _best_lags(values: Tensor, most: int) -> Tensor:
    """Return the number of lags with the least criterion, [N], all compared on the rows that the most of them leave."""
    target, regressors = _regression(values, most)
    rows = target.shape[1]
    # One decomposition serves all: what the first k columns explain is the sum of k squares.
    along = torch.einsum("nmk,nm->nk", torch.linalg.qr(regressors)[0], target)
    left = target.square().sum(1, keepdim=True) - along.square().cumsum(1)
    count = torch.arange(2, most + 3, device=values.device)
    return (rows * left[:, 1:].clamp(min=1e-300).log() + 2 * count).argmin(1)


def _statistic(values: Tensor, lag: int) -> Tensor:
    """Return the level's coefficient over its standard error, [N]."""
    target, regressors = _regression(values, lag)
    level_last = torch.cat([regressors[:, :, :1], regressors[:, :, 2:], regressors[:, :, 1:2]], 2)
    q, r = torch.linalg.qr(level_last)
    along = torch.einsum("nmk,nm->nk", q, target)
    left = (target - torch.einsum("nmk,nk->nm", q, along)).square().sum(1)
    variance = left / (target.shape[1] - level_last.shape[2])
    statistic: Tensor = along[:, -1] * r[:, -1, -1].sign() / variance.sqrt()
    return statistic


def _p_value(statistic: Tensor) -> Tensor:
    low, high = (
        torch.stack([c * statistic**power for power, c in enumerate(table)]).sum(0) for table in (BELOW, ABOVE)
    )
    normal: Tensor = torch.special.ndtr(torch.where(statistic <= STAR, low, high))
    chance: Tensor = torch.where(statistic > MOST, 1.0, torch.where(statistic < LEAST, 0.0, normal))
    return chance
