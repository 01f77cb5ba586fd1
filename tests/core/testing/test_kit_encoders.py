"""The kit finds the fault in encoders that are broken on purpose."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from kit_faults import caught_by, faults
from kit_faults import vectors as data
from torch import Tensor, nn

import kontrast as kt
from kontrast.testing import check_encoder, encoder_checks


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


class Halves(Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs).half()


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


class ByPlace(Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) + torch.arange(len(inputs))[:, None]


class FromNumpy(Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) + float(np.random.random())  # what is wrong with it


class CountsItsPasses(Linear):
    passes: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        self.passes += 1
        return super().forward(inputs)


class ForgottenBuffer(Linear):
    passes: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("passes", torch.zeros(()), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            self.passes += 1
        return super().forward(inputs) + self.passes


class KeepsItsRows(Linear):
    """What it keeps of a pass cannot be copied: no leaf of the graph."""

    kept: Tensor | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        self.kept = super().forward(inputs)
        return self.kept


class TrainsOther(Linear):
    def encode(self, view: kt.View, copies: Tensor) -> kt.Encoded:
        encoded = super().encode(view, copies)
        assert encoded.rows is not None
        return replace(encoded, rows=encoded.rows.relu())


class MarksElements(Linear):
    def encode(self, view: kt.View, copies: Tensor) -> kt.Encoded:
        if view.valid is not None:
            view.valid[:, 0] = False
        return super().encode(view, copies)


class CentresByItself(Linear):
    """Takes the mean off in training: that of the process's own rows, no other's."""

    def forward(self, inputs: Tensor) -> Tensor:
        rows = super().forward(inputs).square()
        return rows / rows.mean(0) if self.training else rows


class Dense(Linear):
    """A linear layer for each of a sample's five numbers, its elements: right in everything."""

    def __init__(self) -> None:
        super().__init__()
        self.each = nn.Linear(1, 3)

    def encode(self, view: kt.View, copies: Tensor) -> kt.Encoded:
        return replace(super().encode(view, copies), dense=self.elements(view.inputs))

    def elements(self, inputs: Tensor) -> Tensor:
        dense: Tensor = self.each(inputs[:, :, None])
        return dense


class FewRows(Dense):
    def elements(self, inputs: Tensor) -> Tensor:
        return super().elements(inputs)[1:]


class FlatWithoutOwner(Dense):
    def elements(self, inputs: Tensor) -> Tensor:
        return super().elements(inputs).flatten(0, 1)


class OwnersInAnyOrder(Dense):
    def encode(self, view: kt.View, copies: Tensor) -> kt.Encoded:
        encoded = super().encode(view, copies)
        assert encoded.dense is not None
        owner = torch.arange(len(view.ids)).repeat(5)
        return replace(encoded, dense=encoded.dense.flatten(0, 1), owner=owner, coords=None, valid=None)


class LosesCoords(Dense):
    def encode(self, view: kt.View, copies: Tensor) -> kt.Encoded:
        return replace(super().encode(view, copies), coords=None)


class NumbersElementsAnew(Dense):
    def encode(self, view: kt.View, copies: Tensor) -> kt.Encoded:
        return replace(super().encode(view, copies), coords=torch.arange(5).expand(len(view.ids), 5))


class TakesPaddingForElements(Dense):
    def encode(self, view: kt.View, copies: Tensor) -> kt.Encoded:
        return replace(super().encode(view, copies), valid=torch.ones(len(view.ids), 5, dtype=torch.bool))


class FloatValid(Dense):
    def encode(self, view: kt.View, copies: Tensor) -> kt.Encoded:
        return replace(super().encode(view, copies), valid=torch.ones(len(view.ids), 5))


class ElementsOfTheBatch(Dense):
    def elements(self, inputs: Tensor) -> Tensor:
        dense = super().elements(inputs)
        return dense - dense.mean(0)


class Lengths(Linear):
    """Adds the mean squared length of its rows to the loss: right in everything."""

    def encode(self, view: kt.View, copies: Tensor) -> kt.Encoded:
        encoded = super().encode(view, copies)
        assert encoded.rows is not None
        return replace(encoded, auxiliary=self.own(encoded.rows))

    def own(self, rows: Tensor) -> kt.Loss:
        return kt.Loss.over_rows(rows.square().sum(1), name="lengths", weight=1e-4)


class MeanOfItsOwn(Lengths):
    """A mean where a sum and a count belong: uneven processes have another one."""

    def own(self, rows: Tensor) -> kt.Loss:
        return kt.Loss((kt.Term("lengths", rows.square().sum(1).mean(), 1.0, 1e-4),))


class MeanWithoutCount(Lengths):
    """A mean as a plain sum: twice as much on two processes."""

    def own(self, rows: Tensor) -> kt.Loss:
        return kt.Loss((kt.Term("lengths", rows.square().sum(1).mean(), None, 1e-4),))


class SquareOfTheMean(Lengths):
    """Not linear in the rows: the square of the process's own mean."""

    def own(self, rows: Tensor) -> kt.Loss:
        return kt.Loss((kt.Term("lengths", rows.mean(0).square().sum() * len(rows), float(len(rows)), 1e-4),))


class ATensor(Lengths):
    def own(self, rows: Tensor) -> kt.Loss:
        return rows.square().sum()  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


class ATermToLookAt(Lengths):
    def own(self, rows: Tensor) -> kt.Loss:
        return super().own(rows.detach())


class NotANumber(Lengths):
    def own(self, rows: Tensor) -> kt.Loss:
        return super().own(rows / 0)


class NowAndThen(Lengths):
    """No term for a batch that has no row to count."""

    def encode(self, view: kt.View, copies: Tensor) -> kt.Encoded:
        encoded = super().encode(view, copies)
        return encoded if len(view.ids) > 2 else replace(encoded, auxiliary=None)


class WeightOfTheBatch(Lengths):
    def own(self, rows: Tensor) -> kt.Loss:
        return kt.Loss.over_rows(rows.square().sum(1), name="lengths", weight=1 / len(rows))


class FiveElements(kt.Augmenter):
    """Each number of a sample is an element, and the last of every second sample does not exist."""

    def forward(self, batch: kt.Batch, draws: kt.Draws) -> list[kt.View]:
        valid = torch.ones(len(batch), 5, dtype=torch.bool)
        valid[batch.ids % 2 > 0, 4] = False
        places = torch.arange(4, -1, -1).expand(len(batch), 5)
        return [replace(view, valid=valid, coords=places) for view in kt.Identity()(batch, draws)]


ENCODERS: dict[str, tuple[type[nn.Module], ...]] = {
    "returns-rows": (OtherSize, NoRows, Halves),
    "keys-carried": (ForgetsKeys,),
    "encode-is-forward": (TrainsOther,),
    "inputs-unchanged": (ScalesInPlace, MarksElements),
    "gradient-of-every-parameter": (Unused,),
    "evaluation-is-fixed": (AlwaysDrops, FromNumpy, CountsItsPasses),
    "each-sample-by-itself": (Centres, ByPlace, ElementsOfTheBatch),
    "state-is-whole": (HidesWeights, ForgottenBuffer),
    "can-be-copied": (SharedWeights, KeepsItsRows),
    "elements-fit": (
        FewRows,
        FlatWithoutOwner,
        OwnersInAnyOrder,
        LosesCoords,
        NumbersElementsAnew,
        TakesPaddingForElements,
        FloatValid,
    ),
    "auxiliary-terms": (ATensor, ATermToLookAt, NotANumber, NowAndThen, WeightOfTheBatch),
    "gradient-on-2-processes": (CentresByItself, MeanOfItsOwn, MeanWithoutCount, SquareOfTheMean),
}


@faults(ENCODERS)
def test_encoders(name: str, broken: type[nn.Module]) -> None:
    caught_by(name, encoder_checks(broken, data=data(), augmenter=FiveElements()))


@pytest.mark.usefixtures("gloo")
def test_encoders_that_are_right() -> None:
    plain = check_encoder(Linear, data=data())
    assert [plain.state(name) for name in ("elements-fit", "auxiliary-terms")] == ["not applicable"] * 2
    assert plain.state("gradient-on-2-processes") == "passed"
    assert check_encoder(Dense, data=data(), augmenter=FiveElements()).state("elements-fit") == "passed"
    assert check_encoder(Lengths, data=data()).state("auxiliary-terms") == "passed"
    assert not check_encoder(kt.as_encoder(nn.Linear(5, 3), 3), data=data(), augmenter=kt.Identity()).failed
