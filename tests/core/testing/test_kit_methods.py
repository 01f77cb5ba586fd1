"""The kit finds the fault in methods that are broken on purpose."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from kit_faults import caught_by, faults
from torch import Tensor, nn

import kontrast as kt
import kontrast.registry
from kontrast.adapters import vision
from kontrast.plugins.objectives import CosineRegression, InfoNCE
from kontrast.testing import method_checks, run_checks


def right(encoder: kt.Encoder) -> kt.Method:
    return kt.Method(
        encoder,
        projector=kt.mlp(encoder.representation_size, 6),
        predictor=kt.mlp(6, 6),
        target=kt.Momentum(0.9),
        sampler=kt.Queue(kt.InBatch("cross"), size=9),
        objective=InfoNCE(0.2),
    )


class MeanLoss(InfoNCE):
    def forward(self, pairs: kt.Pairs) -> kt.Loss:
        (term,) = super().forward(pairs).terms
        return kt.Loss((kt.Term("loss", term.sum / max(float(term.count or 0), 1), 1.0),))


class Downhill(CosineRegression):
    def forward(self, pairs: kt.Pairs) -> kt.Loss:
        (term,) = super().forward(pairs).terms
        return kt.Loss((replace(term, sum=-term.sum.detach() * 2 + term.sum),))


class NotANumber(InfoNCE):
    def forward(self, pairs: kt.Pairs) -> kt.Loss:
        (term,) = super().forward(pairs).terms
        return kt.Loss((replace(term, sum=term.sum * torch.nan),))


class ForgetfulQueue(kt.Queue):
    def get_extra_state(self) -> dict[str, int]:
        return {**super().get_extra_state(), "pointer": 0, "fill": 0}


def with_objective(objective: Callable[[], kt.Objective]) -> Callable[[kt.Encoder], kt.Method]:
    return lambda encoder: kt.Method(encoder, sampler=kt.InBatch("cross"), objective=objective())


def forgetful(encoder: kt.Encoder) -> kt.Method:
    return kt.Method(encoder, sampler=ForgetfulQueue(kt.InBatch(), size=9), objective=InfoNCE())


def unused(encoder: kt.Encoder) -> kt.Method:
    method = right(encoder)
    method.more = nn.Linear(2, 2)
    return method


class Trains(kt.Method):
    def represent(self, inputs: Any, tower: str = "") -> Tensor:
        rows: Tensor = self.encoder(inputs)
        return rows


def trains(encoder: kt.Encoder) -> kt.Method:
    return Trains(encoder, sampler=kt.InBatch(), objective=InfoNCE())


class Noisy(kt.Method):
    def encode(self, views: Sequence[kt.View], *, with_target: bool = True) -> list[kt.Encoded]:
        for view in views:
            view.inputs.add_(1.0)
        return super().encode(views, with_target=with_target)


def noisy(encoder: kt.Encoder) -> kt.Method:
    return Noisy(encoder, sampler=kt.InBatch(), objective=InfoNCE())


class Calls(kt.Method):
    number = 0

    def score(self, encoded: Sequence[kt.Encoded]) -> kt.Loss:
        Calls.number += 1
        return super().score(encoded).scaled(1 + 0.1 * Calls.number)


def calls(encoder: kt.Encoder) -> kt.Method:
    return Calls(encoder, sampler=kt.InBatch(), objective=InfoNCE())


class Losing(kt.Method):
    """Scores the pairs and forgets what the encoder adds."""

    def score(self, encoded: Sequence[kt.Encoded]) -> kt.Loss:
        return super().score([replace(view, auxiliary=None) for view in encoded])


def losing(encoder: kt.Encoder) -> kt.Method:
    return Losing(encoder, sampler=kt.InBatch(), objective=InfoNCE())


class Twice(kt.Method):
    def score(self, encoded: Sequence[kt.Encoded]) -> kt.Loss:
        added = [view.auxiliary for view in encoded if view.auxiliary is not None]
        return kt.Loss.sum_of([super().score(encoded), *added])


def twice(encoder: kt.Encoder) -> kt.Method:
    return Twice(encoder, sampler=kt.InBatch(), objective=InfoNCE())


class CountsInPairs(kt.InBatch):
    """Gets harder with every call of pairs(), not with every step."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def pairs(self, encoded: Sequence[kt.Encoded]) -> list[kt.Pairs]:
        self.calls += 1
        return [replace(pairs, weight=1 + float(self.calls)) for pairs in super().pairs(encoded)]


class CountsInSilence(CountsInPairs):
    def pairs(self, encoded: Sequence[kt.Encoded]) -> list[kt.Pairs]:
        return [replace(pairs, weight=1.0) for pairs in super().pairs(encoded)]


class OwnRank(kt.PairSampler):
    """Forgets the other processes' candidates."""

    def pairs(self, encoded: Sequence[kt.Encoded]) -> list[kt.Pairs]:
        rows = kt.stack(encoded)
        return [kt.Pairs.between(rows, rows, match="ids")]


class ByPlace(kt.PairSampler):
    """The i-th row of one view belongs to the i-th of the other."""

    def pairs(self, encoded: Sequence[kt.Encoded]) -> list[kt.Pairs]:
        first, second = encoded
        assert first.rows is not None
        assert second.rows is not None
        places = kt.Keys(match=torch.arange(len(first.rows)))
        return [kt.Pairs((kt.Block(first.rows, second.rows, places, places),), rows=first, match="ids")]


def with_sampler(sampler: Callable[[], kt.PairSampler]) -> Callable[[kt.Encoder], kt.Method]:
    return lambda encoder: kt.Method(encoder, sampler=sampler(), objective=InfoNCE())


class Stops(nn.Module):
    def forward(self, rows: Tensor) -> Tensor:
        return rows.detach()


def stops(encoder: kt.Encoder) -> kt.Method:
    return kt.Method(encoder, projector=nn.Sequential(Stops(), kt.mlp(8, 6)), sampler=kt.InBatch(), objective=InfoNCE())


class HiddenCentre(kt.Method):
    """Its loss counts steps in a number that no state dict holds."""

    steps = 0.0

    def score(self, encoded: Sequence[kt.Encoded]) -> kt.Loss:
        return super().score(encoded).scaled(1 + self.steps)

    def after_step(self, encoded: Sequence[kt.Encoded], progress: float) -> None:
        super().after_step(encoded, progress)
        self.steps += 1.0


def hidden_centre(encoder: kt.Encoder) -> kt.Method:
    return HiddenCentre(encoder, sampler=kt.InBatch(), objective=InfoNCE())


class OneEncoding(kt.Method):
    def encode(self, views: Sequence[kt.View], *, with_target: bool = True) -> list[kt.Encoded]:
        return [kt.stack(super().encode(views, with_target=with_target))]


def one_encoding(encoder: kt.Encoder) -> kt.Method:
    return OneEncoding(encoder, sampler=kt.InBatch(), objective=InfoNCE())


class WhiteNoise(kt.Method):
    def score(self, encoded: Sequence[kt.Encoded]) -> kt.Loss:
        return super().score(encoded).scaled(1 + float(np.random.random()))  # what is wrong with it


def white_noise(encoder: kt.Encoder) -> kt.Method:
    return WhiteNoise(encoder, sampler=kt.InBatch(), objective=InfoNCE())


METHODS: dict[str, tuple[Callable[[kt.Encoder], kt.Method], ...]] = {
    "returns-a-loss": (with_objective(NotANumber), one_encoding),
    "gradient-of-every-parameter": (unused, stops),
    "loss-falls": (with_objective(Downhill),),
    "inputs-unchanged": (noisy,),
    "deterministic": (calls, white_noise),
    "state-continues": (forgetful, hidden_centre),
    "represents": (trains,),
    "auxiliary-counts": (losing, twice),
    "scoring-changes-nothing": (with_sampler(CountsInPairs), with_sampler(CountsInSilence), calls),
    "rows-in-any-order": (with_sampler(ByPlace),),
    "gradient-on-2-processes": (with_objective(MeanLoss), with_sampler(OwnRank)),
    "gradient-on-3-processes": (with_objective(MeanLoss), with_sampler(OwnRank)),
}


@faults(METHODS)
def test_methods(name: str, broken: Callable[[kt.Encoder], kt.Method]) -> None:
    caught_by(name, method_checks(broken))


@pytest.mark.usefixtures("gloo")
def test_methods_that_are_right() -> None:
    assert not run_checks(method_checks(right)).failed


@pytest.fixture
def registered() -> Iterator[None]:
    yield
    kontrast.registry._registered.clear()  # pyright: ignore[reportPrivateUsage]


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"encoder": "smal-cnn"}, "that is not registered: no encoder `smal-cnn`; did you mean `small-cnn`"),
        ({"encoder": {"name": "small-cnn", "widht": 2}}, "sets the option `widht` of the encoder `small-cnn`"),
        ({"encoder": {"name": "small-cnn", "width": 0}}, "width"),
        ({"augmenter": "series-views", "adapter": "vision"}, "that it names for `timeseries`"),
        ({"augmenter": {"name": "affine-views", "num_views": 1}}, "take an augmenter that makes two or more"),
    ],
)
def test_parts_that_a_record_names(fields: dict[str, Any], says: str) -> None:
    kt.register(kt.MethodRecord("named", right, **fields))
    caught_by("named-parts-fit", method_checks("named"), says)


@pytest.mark.usefixtures("registered")
def test_parts_that_fit() -> None:
    def state(**fields: Any) -> str:
        kt.register(kt.MethodRecord("named", right, **fields))
        checks = [check for check in method_checks("named") if check.name == "named-parts-fit"]
        return run_checks(checks).state("named-parts-fit")

    assert state(augmenter="affine-views") == "passed"
    assert state(adapter="vision", augmenter={"name": "identity", "num_views": 3}) == "passed"
    assert state(augmenter="identity") == state() == "not applicable"


def test_a_method_on_a_domain_of_float32() -> None:
    method = kt.Method(vision.SmallCNN(in_channels=1, width=2), sampler=kt.InBatch(), objective=InfoNCE())
    checks = method_checks(method, data=vision.load("digits").train, augmenter=vision.AffineViews())
    names = ("returns-a-loss", "loss-falls", "rows-in-any-order")
    assert [result.state for result in run_checks(check for check in checks if check.name in names).results] == [
        "passed"
    ] * 3
