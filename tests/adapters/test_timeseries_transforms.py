"""Augmentations of time series with gaps, and of unequal lengths.

Shapes: B series, T time steps, C channels.
"""

import pytest
import torch
from torch import Tensor

import kontrast as kt
from kontrast.adapters import timeseries

NAN = float("nan")


def view(transform: kt.Augmenter, series: Tensor, seed: int = 0) -> Tensor:
    found: Tensor = transform(kt.Batch(series, torch.arange(len(series))), kt.Draws(seed))[0].inputs
    return found


def padded(count: int = 300, steps: int = 20) -> tuple[Tensor, Tensor]:
    """Rising series [B, T, 1] of 2..T steps, padded, and their lengths [B]."""
    lengths = 2 + torch.arange(count) % (steps - 1)
    series = torch.arange(float(steps))[None, :, None].repeat(count, 1, 1)
    series[torch.arange(steps) >= lengths[:, None]] = NAN
    return series, lengths


@pytest.mark.parametrize("transform", [timeseries.Permutation(), timeseries.TimeWarp(0.5)])
def test_padding_stays_behind_a_series(transform: kt.Augmenter) -> None:
    series, _ = padded()
    assert torch.equal(view(transform, series).isnan(), series.isnan())


@pytest.mark.parametrize(
    "transform", [timeseries.Permutation(), timeseries.TimeWarp(0.5), timeseries.Scaling(), timeseries.MagnitudeWarp()]
)
def test_padding_changes_nothing_of_a_series(transform: kt.Augmenter) -> None:
    short = torch.randn(40, 12, 2, generator=torch.Generator().manual_seed(0))
    longer = torch.nn.functional.pad(short, (0, 0, 0, 9), value=NAN)
    torch.testing.assert_close(view(transform, longer)[:, :12], view(transform, short))


def test_a_short_series_keeps_its_values_begin_and_end() -> None:
    series, lengths = padded()
    moved = view(timeseries.Permutation(), series)
    warped = view(timeseries.TimeWarp(0.5), series)
    orders = 0
    for before, permuted, bent, length in zip(series, moved, warped, lengths.tolist(), strict=True):
        assert torch.equal(permuted[:length].sort(0).values, before[:length])
        orders += not torch.equal(permuted[:length], before[:length])
        assert (bent[:length].diff(dim=0) > 0).all()
        assert float(bent[0]) == 0
        assert float(bent[length - 1]) == pytest.approx(length - 1)
    assert orders > 150


def test_series_and_crops_of_one_step_and_other_channels_are_refused_with_a_remedy() -> None:
    with pytest.raises(kt.InvalidValueError, match="as `min_overlap` says, got 1; take longer series"):
        view(timeseries.OverlappingCrops(), torch.ones(2, 1, 1))
    with pytest.raises(kt.InvalidValueError, match=r"got \[2, 1, 1\]; timeseries.series makes them"):
        view(timeseries.Jitter(), torch.ones(2, 1, 1))
    with pytest.raises(kt.InvalidValueError, match=r"got \[2, 5, 3\]; make the encoder for the channels"):
        timeseries.DilatedCNN(2)(torch.ones(2, 5, 3))


def test_warping_does_not_make_gaps_grow() -> None:
    series = torch.ones(200, 21, 1)
    series[:, 1::2] = NAN
    assert view(timeseries.TimeWarp(0.3), series).isnan().double().mean() == pytest.approx(10 / 21, abs=0.03)
    single = torch.full((100, 20, 1), NAN)
    single[:, 7] = 1.0
    assert (view(timeseries.TimeWarp(0.5), single) == 1).any(1).all()
    first = torch.full((100, 20, 1), NAN)
    first[:, 0] = 1.0
    for transform in (timeseries.TimeWarp(0.5), timeseries.Permutation()):
        torch.testing.assert_close(view(transform, first), first, equal_nan=True)


def test_a_step_that_lacks_one_channel_is_hidden_as_often_as_others() -> None:
    series = torch.ones(2000, 20, 2)
    series[:, ::2, 0] = NAN
    for ratio in (0.0, 0.2):
        hidden = view(timeseries.TimeMasking(ratio), series)[:, :, 1].isnan().double().mean(0)
        torch.testing.assert_close(hidden, torch.full((20,), ratio, dtype=torch.float64), rtol=0, atol=0.05)


def test_the_channel_that_stays_has_values() -> None:
    series = torch.ones(300, 10, 3)
    series[:, :, 0] = NAN
    kept = view(timeseries.ChannelDropping(0.95), series)
    assert (kept == 1).any(2).any(1).all()
    assert kept[:, :, 0].isnan().all()


def test_masked_frequencies_keep_the_mean_of_series_with_gaps_and_do_not_make_them_vary_more() -> None:
    """Values about 1000, where whatever is put into gaps shows: padded series, gaps inside, a channel of nothing."""
    series = 1000 + torch.randn(200, 40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    series[:100, 10:] = NAN
    series[100:, ::3, 0] = NAN
    series[:, :, 2] = NAN
    masked = view(timeseries.FrequencyMasking(0.5), series)
    assert torch.equal(masked.isnan(), series.isnan())
    before, after = series[:, :, :2], masked[:, :, :2]
    torch.testing.assert_close(after.nanmean(1), before.nanmean(1), rtol=1e-12, atol=0)
    variances = [(x - x.nanmean(1, keepdim=True)).square().nanmean(1) for x in (before, after)]
    assert (variances[1] <= variances[0] + 1e-9).all()
    assert (variances[1] > 0.05 * variances[0]).double().mean() > 0.9
    torch.testing.assert_close(view(timeseries.FrequencyMasking(0.0), series), series, equal_nan=True)
