"""Embeddings that are not finite are refused by a sentence, wherever they are compared."""

import math

import pytest
import torch

import kontrast as kt
from kontrast.plugins.objectives import InfoNCE, JensenShannon, NTXent, SupCon, Triplet


@pytest.mark.parametrize("objective", [InfoNCE(), NTXent(), SupCon(), Triplet(), JensenShannon()])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_anchor_that_is_not_finite_is_named(objective: kt.Objective, value: float) -> None:
    rows = torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(0))
    rows[0, 5, 1] = value
    (pairs,) = kt.InBatch().pairs(kt.embedded(*rows))
    with pytest.raises(kt.NonFiniteLossError, match=r"nan or inf in \d+ of \d+ anchors, the first in row"):
        objective(pairs)


def test_a_candidate_that_is_not_finite_is_named() -> None:
    rows = torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(0))
    rows[1, 7, 1] = math.nan
    (pairs,) = kt.InBatch("forward").pairs(kt.embedded(*rows))
    with pytest.raises(kt.NonFiniteLossError, match="in 1 of 8 candidates, the first in row 7"):
        InfoNCE()(pairs)


def test_parameters_that_are_not_finite_are_named() -> None:
    similarity = kt.LearnedTemperature()
    with torch.no_grad():
        similarity.log_inverse_temperature.fill_(math.nan)
    rows = torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(0))
    (pairs,) = kt.InBatch().pairs(kt.embedded(*rows))
    with pytest.raises(kt.NonFiniteLossError, match="look at the parameters of LearnedTemperature"):
        InfoNCE(1.0)(kt.Pairs(pairs.blocks, similarity))


def test_nothing_to_compare_is_not_an_error() -> None:
    (pairs,) = kt.InBatch().pairs(kt.embedded(*torch.randn(2, 1, 4)))
    assert float(InfoNCE()(pairs).reduced().value) == 0.0
