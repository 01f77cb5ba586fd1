"""The kit finds the fault in augmenters, encoders, methods and adapters that are broken on purpose."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from kit_faults import caught_by, faults
from torch import Tensor, nn

import kontrast as kt
from kontrast.plugins.objectives import CosineRegression, InfoNCE
from kontrast.testing import (
    ConformanceError,
    adapter_checks,
    augmenter_checks,
    check_augmenter,
    check_encoder,
    encoder_checks,
    method_checks,
    run_checks,
)


def data(samples: int = 12) -> kt.ArrayData:
    ids = torch.arange(samples)
    inputs = torch.randn(samples, 5, generator=torch.Generator().manual_seed(0))
    return kt.ArrayData(inputs, labels=ids // 2, groups=ids % 2)


class Jitter(kt.Augmenter):
    """Two views, each moved by numbers of the sample's own: right in everything."""

    def forward(self, batch: kt.Batch, draws: kt.Draws) -> list[kt.View]:
        return [kt.View.of(batch, self.moved(batch, draws, view)) for view in range(2)]

    def moved(self, batch: kt.Batch, draws: kt.Draws, view: int) -> Tensor:
        moved: Tensor = batch.inputs + draws.uniform(batch.ids, 5, view=view)
        return moved


class ATuple(Jitter):
    def forward(self, batch: kt.Batch, draws: kt.Draws) -> list[kt.View]:
        return tuple(super().forward(batch, draws))  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


class DropsASample(Jitter):
    def forward(self, batch: kt.Batch, draws: kt.Draws) -> list[kt.View]:
        return [kt.View(view.inputs[1:], view.ids[1:]) for view in super().forward(batch, draws)]


class DropsLabels(Jitter):
    def forward(self, batch: kt.Batch, draws: kt.Draws) -> list[kt.View]:
        return [replace(view, labels=None) for view in super().forward(batch, draws)]


class TurnsRows(Jitter):
    """Rows in another order, labels left where they were."""

    def forward(self, batch: kt.Batch, draws: kt.Draws) -> list[kt.View]:
        return [replace(v, inputs=v.inputs.flip(0), ids=v.ids.flip(0)) for v in super().forward(batch, draws)]


class InPlace(Jitter):
    def moved(self, batch: kt.Batch, draws: kt.Draws, view: int) -> Tensor:
        moved: Tensor = batch.inputs.add_(draws.uniform(batch.ids, 5, view=view))
        return moved.clone()


class FromTheStream(Jitter):
    def moved(self, batch: kt.Batch, draws: kt.Draws, view: int) -> Tensor:
        moved: Tensor = batch.inputs + torch.rand(len(batch), 5)
        return moved


class OneViewTwice(Jitter):
    def moved(self, batch: kt.Batch, draws: kt.Draws, view: int) -> Tensor:
        return super().moved(batch, draws, 0)


class ForgetsTheEpoch(Jitter):
    def moved(self, batch: kt.Batch, draws: kt.Draws, view: int) -> Tensor:
        return super().moved(batch, kt.Draws(draws.seed), view)


class OfTheBatch(Jitter):
    def moved(self, batch: kt.Batch, draws: kt.Draws, view: int) -> Tensor:
        moved: Tensor = super().moved(batch, draws, view) - batch.inputs.mean(0)
        return moved


class RefusesOne(Jitter):
    def moved(self, batch: kt.Batch, draws: kt.Draws, view: int) -> Tensor:
        return super().moved(batch, draws, view) / (len(batch) > 1 or 1 // 0)


class HoldsALambda(Jitter):
    def __init__(self) -> None:
        super().__init__()
        self.function = lambda x: x


class ForgetsItsBank(Jitter):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shown", torch.zeros(()))
        self.bank = 0.0

    def moved(self, batch: kt.Batch, draws: kt.Draws, view: int) -> Tensor:
        self.bank += 0.1
        return super().moved(batch, draws, view) + self.bank


AUGMENTERS: dict[str, tuple[type[kt.Augmenter], ...]] = {
    "returns-views": (ATuple, DropsASample),
    "keys-carried": (DropsLabels, TurnsRows),
    "inputs-unchanged": (InPlace,),
    "draws-alone-decide": (FromTheStream,),
    "draws-are-used": (OneViewTwice, ForgetsTheEpoch),
    "each-sample-by-itself": (OfTheBatch,),
    "single-sample": (RefusesOne,),
    "can-be-pickled": (HoldsALambda,),
    "state-continues": (ForgetsItsBank,),
}


@faults(AUGMENTERS)
def test_augmenters(name: str, broken: type[kt.Augmenter]) -> None:
    caught_by(name, augmenter_checks(broken, data=data()))


def test_augmenters_that_are_right() -> None:
    assert check_augmenter(Jitter, data=data()).state("draws-are-used") == "passed"
    assert check_augmenter(kt.Identity(3), data=data()).state("draws-are-used") == "not applicable"
    with pytest.raises(kt.InvalidValueError, match="`data` must be samples that it reads, got none"):
        check_augmenter(Jitter)


class Linear(kt.Encoder):
    """Right in everything, with a batch norm and dropout."""

    representation_size = 4

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Dropout(0.2), nn.Tanh(), nn.Linear(6, 4))

    def forward(self, inputs: Tensor) -> Tensor:
        rows: Tensor = self.layers(inputs)
        return rows


class OtherSize(Linear):
    representation_size = 5


class NoRows(Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs)[:, None]


class ScalesInPlace(Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs.mul_(0.5))


class ForgetsKeys(Linear):
    def encode(self, view: kt.View, copies: Tensor) -> kt.Encoded:
        return replace(super().encode(view, copies), labels=None)


class Unused(Linear):
    def __init__(self) -> None:
        super().__init__()
        self.more = nn.Linear(2, 2)


class AlwaysDrops(Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(inputs), 0.5, training=True)


class Centres(Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        rows = super().forward(inputs)
        return rows - rows.mean(0)


class HidesWeights(Linear):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = [nn.Parameter(torch.zeros(4))]
        self.offset = 0.0

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            self.offset += 1.0
        return super().forward(inputs) + self.offset


class SharedWeights(Linear):
    shared = nn.Parameter(torch.ones(4))

    def __init__(self) -> None:
        super().__init__()
        self.scale = SharedWeights.shared

    def __deepcopy__(self, memo: dict[int, Any]) -> "SharedWeights":
        other = SharedWeights()
        other.load_state_dict(self.state_dict())
        return other

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) * self.scale


ENCODERS: dict[str, tuple[type[nn.Module], ...]] = {
    "returns-rows": (OtherSize, NoRows),
    "keys-carried": (ForgetsKeys,),
    "inputs-unchanged": (ScalesInPlace,),
    "gradient-of-every-parameter": (Unused,),
    "evaluation-is-fixed": (AlwaysDrops,),
    "each-sample-by-itself": (Centres,),
    "state-is-whole": (HidesWeights,),
    "can-be-copied": (SharedWeights,),
}


@faults(ENCODERS)
def test_encoders(name: str, broken: type[nn.Module]) -> None:
    caught_by(name, encoder_checks(broken, data=data()))


def test_encoders_that_are_right() -> None:
    assert not check_encoder(Linear, data=data()).failed
    assert not check_encoder(kt.as_encoder(nn.Linear(5, 3), 3), data=data(), augmenter=Jitter()).failed


def right(encoder: kt.Encoder) -> kt.Method:
    return kt.Method(
        encoder,
        projector=kt.mlp(8, 6),
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


METHODS: dict[str, tuple[Callable[[kt.Encoder], kt.Method], ...]] = {
    "returns-a-loss": (with_objective(NotANumber),),
    "gradient-of-every-parameter": (unused,),
    "loss-falls": (with_objective(Downhill),),
    "inputs-unchanged": (noisy,),
    "deterministic": (calls,),
    "state-continues": (forgetful,),
    "represents": (trains,),
    "gradient-on-2-processes": (with_objective(MeanLoss),),
    "gradient-on-3-processes": (with_objective(MeanLoss),),
}


@faults(METHODS)
def test_methods(name: str, broken: Callable[[kt.Encoder], kt.Method]) -> None:
    caught_by(name, method_checks(broken))


@pytest.mark.usefixtures("gloo")
def test_methods_that_are_right() -> None:
    assert not run_checks(method_checks(right)).failed


class Domain(kt.Adapter):
    """Right in everything: vision's own parts on pictures of noise."""

    default_data = "noise"
    default_encoder = "small-cnn"
    default_augmenter = "affine-views"

    def load(self, source: str) -> kt.Splits[kt.Data]:
        if source != "noise":
            raise kt.UnknownNameError("data set", source, ["noise"])
        pictures = torch.rand(9, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        return kt.Splits(self.data(pictures), self.data(pictures), {"in_channels": 1})

    def data(self, pictures: Tensor) -> kt.Data:
        return kt.ArrayData(pictures, labels=torch.arange(9) % 3)


class TakesAnyName(Domain):
    def load(self, source: str) -> kt.Splits[kt.Data]:
        return super().load("noise")


class KeyErrors(Domain):
    def load(self, source: str) -> kt.Splits[kt.Data]:
        return super().load({"noise": "noise"}[source])


class NoSplits(Domain):
    def load(self, source: str) -> kt.Splits[kt.Data]:
        return super().load(source).train  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


class SaysTooMuch(Domain):
    def load(self, source: str) -> kt.Splits[kt.Data]:
        return replace(super().load(source), about={"in_channels": 1, "colours": 3})


class NoSuchEncoder(Domain):
    default_encoder = "small-cnm"


class Positions(kt.ArrayData):
    """Numbers the samples of a batch, not those of the data set."""

    def batch(self, indices: Tensor) -> kt.Batch:
        return replace(super().batch(indices), ids=torch.arange(len(indices)))


class Drawing(kt.ArrayData):
    def batch(self, indices: Tensor) -> kt.Batch:
        batch = super().batch(indices)
        return replace(batch, inputs=batch.inputs + torch.rand(1))


class Holding(kt.ArrayData):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.function = lambda: 0


def of(kind: type[kt.ArrayData]) -> Callable[[], kt.Adapter]:
    class Other(Domain):
        def data(self, pictures: Tensor) -> kt.Data:
            return kind(pictures, labels=torch.arange(9) % 3)

    return Other


ADAPTERS: dict[str, tuple[Callable[[], kt.Adapter], ...]] = {
    "loads": (NoSplits,),
    "refuses-unknown-sources": (TakesAnyName, KeyErrors),
    "batches-are-samples": (of(Positions),),
    "batches-are-fixed": (of(Drawing),),
    "data-can-be-pickled": (of(Holding),),
    "defaults-fit": (NoSuchEncoder,),
    "about-is-read": (SaysTooMuch,),
}


@faults(ADAPTERS)
def test_adapters(name: str, broken: Callable[[], kt.Adapter]) -> None:
    caught_by(name, adapter_checks(broken))


def test_adapters_that_are_right() -> None:
    assert not run_checks(adapter_checks(Domain())).failed
    with pytest.raises(ConformanceError, match="adapter NoSuchEncoder fails 2 of 7 checks"):
        run_checks(adapter_checks(NoSuchEncoder)).raise_failures()
    with pytest.raises(kt.InvalidValueError, match=r"`int` must be or make a kontrast\.Adapter, got int"):
        adapter_checks(int)
