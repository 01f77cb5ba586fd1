"""The kit finds the fault in augmenters that are broken on purpose."""

import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from kit_faults import caught_by, faults
from kit_faults import vectors as data
from torch import Tensor

import kontrast as kt
import kontrast.registry
from kontrast.testing import augmenter_checks, check_augmenter


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


class ShortInputs(Jitter):
    """One row of inputs less than there are ids."""

    def forward(self, batch: kt.Batch, draws: kt.Draws) -> list[kt.View]:
        return [replace(view, inputs=view.inputs[1:]) for view in super().forward(batch, draws)]


class Doubles(Jitter):
    def moved(self, batch: kt.Batch, draws: kt.Draws, view: int) -> Tensor:
        return super().moved(batch, draws, view).double()


class Elements(Jitter):
    """Each number of a sample is an element: right in everything."""

    def forward(self, batch: kt.Batch, draws: kt.Draws) -> list[kt.View]:
        return [self.told(view, torch.arange(5).expand(len(batch), 5)) for view in super().forward(batch, draws)]

    def told(self, view: kt.View, places: Tensor) -> kt.View:
        return replace(view, coords=places, valid=places >= 0)


class HalfCoords(Elements):
    def told(self, view: kt.View, places: Tensor) -> kt.View:
        return replace(view, coords=places[:, ::2], valid=places >= 0)


class FloatMask(Elements):
    def told(self, view: kt.View, places: Tensor) -> kt.View:
        return replace(view, coords=places, valid=torch.ones(places.shape))


class CoordsOfTheBatch(Elements):
    """Numbers elements through the batch."""

    def told(self, view: kt.View, places: Tensor) -> kt.View:
        return replace(view, coords=places + 5 * torch.arange(len(places))[:, None])


class OtherIds(Jitter):
    """Gives each row the keys of another: labels and ids agree, inputs do not."""

    def forward(self, batch: kt.Batch, draws: kt.Draws) -> list[kt.View]:
        keys = [(view, view.ids.roll(1)) for view in super().forward(batch, draws)]
        assert batch.labels is not None
        assert batch.groups is not None
        return [replace(v, ids=i, labels=batch.labels.roll(1), groups=batch.groups.roll(1)) for v, i in keys]


class ByPlace(Jitter):
    """Draws by the place in the batch."""

    def moved(self, batch: kt.Batch, draws: kt.Draws, view: int) -> Tensor:
        return super().moved(replace(batch, ids=torch.arange(len(batch))), draws, view)


class FromNumpy(Jitter):
    def moved(self, batch: kt.Batch, draws: kt.Draws, view: int) -> Tensor:
        moved: Tensor = batch.inputs + float(np.random.random())  # what is wrong with it
        return moved


class OfItsOwnGenerator(Jitter):
    """Starts from a seed of its own; each call goes on from the last."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = random.Random(0)

    def moved(self, batch: kt.Batch, draws: kt.Draws, view: int) -> Tensor:
        moved: Tensor = batch.inputs + self.numbers.random()
        return moved


class HiddenBank(Jitter):
    """Mixes in the batch before, which no state dict holds."""

    def __init__(self) -> None:
        super().__init__()
        self.before: Tensor | None = None

    def moved(self, batch: kt.Batch, draws: kt.Draws, view: int) -> Tensor:
        moved = super().moved(batch, draws, view)
        mixed = moved if self.before is None else moved + 0.1 * self.before[: len(moved)].mean()
        self.before = moved
        return mixed


class Words(kt.Augmenter):
    """Sentences as a list of strings: right in everything."""

    def forward(self, batch: kt.Batch, draws: kt.Draws) -> list[kt.View]:
        return [kt.View.of(batch, [f"{word} {view}" for word in batch.inputs]) for view in range(2)]


class NumberedWords(Words):
    def forward(self, batch: kt.Batch, draws: kt.Draws) -> list[kt.View]:
        return [kt.View.of(batch, [f"{number} {word}" for number, word in enumerate(batch.inputs)])]


class Sentences:
    """Strings, which are no tensor."""

    def __len__(self) -> int:
        return 8

    def batch(self, indices: Tensor) -> kt.Batch:
        return kt.Batch([f"sentence {index}" for index in indices.tolist()], indices)


AUGMENTERS: dict[str, tuple[type[kt.Augmenter], ...]] = {
    "returns-views": (ATuple, DropsASample, ShortInputs, Doubles, HalfCoords, FloatMask),
    "keys-carried": (DropsLabels, TurnsRows),
    "inputs-unchanged": (InPlace,),
    "draws-alone-decide": (FromTheStream, FromNumpy, OfItsOwnGenerator, HiddenBank),
    "draws-are-used": (OneViewTwice, ForgetsTheEpoch),
    "each-sample-by-itself": (OfTheBatch, ByPlace, OtherIds, CoordsOfTheBatch),
    "single-sample": (RefusesOne,),
    "can-be-pickled": (HoldsALambda,),
    "state-continues": (ForgetsItsBank,),
}


@faults(AUGMENTERS)
def test_augmenters(name: str, broken: type[kt.Augmenter]) -> None:
    caught_by(name, augmenter_checks(broken, data=data()))


def test_augmenters_that_are_right() -> None:
    assert check_augmenter(Jitter, data=data()).state("draws-are-used") == "passed"
    assert not check_augmenter(Elements, data=data()).failed
    assert check_augmenter(kt.Identity(3), data=data()).state("draws-are-used") == "not applicable"
    with pytest.raises(kt.InvalidValueError, match="`data` must be samples that it reads, got none"):
        check_augmenter(Jitter)


def test_samples_that_are_no_tensor() -> None:
    assert check_augmenter(Words, data=Sentences()).state("each-sample-by-itself") == "passed"
    caught_by("each-sample-by-itself", augmenter_checks(NumberedWords, data=Sentences()))


class Pile:
    """Inputs that only their own encoder can take apart."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows


class Piles(kt.ArrayData):
    def batch(self, indices: Tensor) -> kt.Batch:
        batch = super().batch(indices)
        return replace(batch, inputs=Pile(batch.inputs))


class OfPiles(kt.Encoder):
    representation_size = 5

    def forward(self, inputs: Pile) -> Tensor:
        return inputs.rows


class PileAdapter(kt.Adapter):
    default_data, default_encoder, default_augmenter = "piles", "of-piles", "moved-piles"

    def load(self, source: str) -> kt.Splits[kt.Data]:
        return kt.Splits(Piles(data().inputs))


class MovedPiles(kt.Augmenter):
    centred = False

    def forward(self, batch: kt.Batch, draws: kt.Draws) -> list[kt.View]:
        rows = batch.inputs.rows - (batch.inputs.rows.mean(0) if self.centred else 0)
        return [kt.View.of(batch, Pile(rows + draws.uniform(batch.ids, 5, view=view))) for view in range(2)]


class CentredPiles(MovedPiles):
    centred = True


@pytest.fixture
def piles() -> Iterator[None]:
    kt.register(kt.AdapterRecord("piles", PileAdapter))
    kt.register(kt.EncoderRecord("of-piles", OfPiles, adapter="piles"))
    kt.register(kt.AugmenterRecord("moved-piles", MovedPiles, adapter="piles"))
    kt.register(kt.AugmenterRecord("centred-piles", CentredPiles, adapter="piles"))
    yield
    kontrast.registry._registered.clear()  # pyright: ignore[reportPrivateUsage]


@pytest.mark.usefixtures("piles")
def test_inputs_that_only_the_domains_encoder_can_take_apart() -> None:
    assert check_augmenter("moved-piles").state("each-sample-by-itself") == "passed"
    caught_by("each-sample-by-itself", augmenter_checks("centred-piles"))
    unknown = check_augmenter(MovedPiles, data=Piles(data().inputs))
    assert unknown.state("each-sample-by-itself") == "not applicable"
