"""Loss: sums and counts, what is left out of them, and what one process makes of them."""

import math

import pytest
import torch
from torch import Tensor

import kontrast as kt


def leaf(*values: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype, requires_grad=True)


def gradient(loss: kt.Loss, of: Tensor) -> list[float]:
    loss.reduced().backward.backward()
    assert of.grad is not None
    return of.grad.tolist()


def test_over_rows_is_the_mean() -> None:
    values = leaf(1.0, 2.0, 6.0)
    loss = kt.Loss.over_rows(values, name="info", weight=2.0)
    reduced = loss.reduced()
    assert float(reduced.value) == float(loss) == pytest.approx(6.0)
    assert {name: float(value) for name, value in reduced.terms.items()} == pytest.approx({"info": 3.0})  # unweighted
    assert not reduced.value.requires_grad
    assert gradient(loss, values) == pytest.approx([2 / 3] * 3)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e300])
def test_invalid_rows_do_not_leak(bad: float) -> None:
    values = leaf(1.0, bad, 3.0)
    loss = kt.Loss.over_rows(values, torch.tensor([True, False, True]))
    assert float(loss.reduced().value) == 2.0
    assert gradient(loss, values) == [0.5, 0.0, 0.5]


def test_a_valid_nan_is_seen() -> None:
    assert math.isnan(float(kt.Loss.over_rows(leaf(1.0, math.nan), torch.tensor([True, True])).reduced().value))


@pytest.mark.parametrize("rows", [0, 2])
def test_without_valid_rows_the_loss_is_zero(rows: int) -> None:
    values = leaf(*[5.0] * rows)
    loss = kt.Loss.over_rows(values, torch.zeros(rows, dtype=torch.bool))
    assert float(loss.reduced().value) == 0.0
    assert gradient(loss, values) == [0.0] * rows


def test_no_rows_and_no_mask() -> None:
    assert float(kt.Loss.over_rows(leaf()).reduced().value) == 0.0


def test_over_rows_wants_one_value_per_row() -> None:
    with pytest.raises(kt.InvalidValueError, match=r"one value per row \[A\], got \[2, 3\]"):
        kt.Loss.over_rows(torch.zeros(2, 3))


@pytest.mark.parametrize("shape", [(3, 1), (1, 3), (1,), ()])
def test_over_rows_wants_one_validity_per_row(shape: tuple[int, ...]) -> None:
    # Each of these broadcasts, to a value that is silently another.
    with pytest.raises(kt.InvalidValueError, match=r"`valid` must be"):
        kt.Loss.over_rows(leaf(1.0, 2.0, 3.0), torch.ones(shape, dtype=torch.bool))


def test_half_values_are_summed_in_more_than_half_precision() -> None:
    values = torch.full((40_000,), 3.0, dtype=torch.float16, requires_grad=True)  # their sum is beyond float16
    assert float(kt.Loss.over_rows(values).reduced().value) == pytest.approx(3.0, rel=1e-5)
    assert float(kt.Loss.over_rows(values, values > 0).reduced().value) == pytest.approx(3.0, rel=1e-5)


@pytest.mark.parametrize("tensor_count", [False, True])
def test_terms_add_up_each_with_its_own_count(tensor_count: bool) -> None:
    values = leaf(6.0, 10.0)
    counts = [torch.tensor(3), torch.tensor(4)] if tensor_count else [3, 4.0]
    terms = (kt.Term("a", values[0], counts[0]), kt.Term("b", values[1], counts[1], weight=0.5))
    loss = kt.Loss(terms, metrics=(kt.Term("seen", torch.tensor(8.0), 2.0, weight=100.0),))
    reduced = loss.reduced()
    assert float(reduced.value) == pytest.approx(6 / 3 + 0.5 * 10 / 4)
    shown = {name: float(value) for name, value in reduced.terms.items()}
    assert shown == pytest.approx({"a": 2.0, "b": 2.5, "seen": 4.0})
    assert float(reduced.backward.detach()) == pytest.approx(float(reduced.value))
    assert gradient(loss, values) == pytest.approx([1 / 3, 0.5 / 4])


def test_a_plain_sum_is_not_divided() -> None:
    values = leaf(6.0)
    loss = kt.Loss((kt.Term("penalty", values[0], None, weight=0.25),))
    reduced = loss.reduced()
    assert float(reduced.value) == 1.5
    assert float(reduced.terms["penalty"]) == 6.0
    assert gradient(loss, values) == [0.25]


def test_a_term_that_counts_nothing_is_zero_beside_others() -> None:
    values = leaf(0.0, 4.0)
    loss = kt.Loss((kt.Term("none", values[0], 0.0), kt.Term("some", values[1], torch.tensor(2))))
    reduced = loss.reduced()
    assert float(reduced.value) == 2.0
    assert {name: float(value) for name, value in reduced.terms.items()} == {"none": 0.0, "some": 2.0}
    assert reduced.backward.isfinite()


def test_sum_of_keeps_counts_apart() -> None:
    losses = [kt.Loss.over_rows(leaf(1.0, 3.0)), kt.Loss.over_rows(leaf(9.0))]
    joined = kt.Loss.sum_of(iter(losses))
    assert [float(term.sum.detach()) for term in joined.terms] == [4.0, 9.0]
    reduced = joined.reduced()
    assert float(reduced.value) == 2.0 + 9.0  # the mean of all three rows would be 13 / 3
    assert float(reduced.terms["loss"]) == (2.0 + 9.0) / 2  # one name: the mean is shown


def test_sum_of_carries_metrics() -> None:
    metric = kt.Term("seen", torch.tensor(1.0), 1.0)
    joined = kt.Loss.sum_of([kt.Loss.over_rows(leaf(1.0)), kt.Loss((), (metric,))])
    assert joined.metrics == (metric,)


def test_scaled_multiplies_weights_and_leaves_metrics() -> None:
    term, metric = kt.Term("a", torch.tensor(6.0), 3.0, weight=2.0), kt.Term("seen", torch.tensor(1.0), 1.0)
    loss = kt.Loss((term,), (metric,))
    scaled = loss.scaled(0.5, prefix="forth/")
    assert float(scaled.reduced().value) == 2.0
    assert [entry.name for entry in (*scaled.terms, *scaled.metrics)] == ["forth/a", "forth/seen"]
    assert scaled.metrics[0].weight == metric.weight
    assert float(loss.reduced().value) == 4.0
    assert [entry.name for entry in loss.scaled(1.0, prefix="p/").terms] == ["p/a"]


def test_scaling_by_zero_keeps_the_term() -> None:
    values = leaf(2.0)
    loss = kt.Loss.over_rows(values).scaled(0.0)
    assert float(loss.reduced().terms["loss"]) == 2.0
    assert gradient(loss, values) == [0.0]


def test_the_sum_of_a_term_must_be_a_scalar() -> None:
    with pytest.raises(
        kt.InvalidValueError, match=r"sum of term `loss` must be a scalar, got \[2\]; sum over the rows"
    ):
        kt.Term("loss", torch.zeros(2), 2.0)


def test_a_loss_of_nothing_is_refused() -> None:
    with pytest.raises(kt.InvalidValueError, match="must have at least one term, got none"):
        kt.Loss.sum_of([]).reduced()


def test_weighted_rows() -> None:
    values = leaf(1.0, math.nan, 3.0, 7.0)
    valid, weights = torch.tensor([True, False, True, True]), torch.tensor([1.0, 5.0, 3.0, 0.0])
    loss = kt.Loss.over_rows(values, valid, weights=weights)
    assert float(loss.reduced().value) == 2.5
    assert gradient(loss, values) == [0.25, 0.0, 0.75, 0.0]
    assert float(kt.Loss.over_rows(leaf(1.0, 4.0), weights=torch.tensor([2.0, 1.0])).reduced().value) == 2.0
    with pytest.raises(kt.InvalidValueError, match=r"`weights` must be \[2\], one per value, got \[3\]"):
        kt.Loss.over_rows(leaf(1.0, 4.0), weights=torch.ones(3))
