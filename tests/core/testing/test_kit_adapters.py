"""The kit finds the fault in adapters that are broken on purpose."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from kit_faults import caught_by, faults
from torch import Tensor

import kontrast as kt
import kontrast.registry
from kontrast.testing import ConformanceError, adapter_checks, run_checks


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


class Sorts(kt.ArrayData):
    """Reads its samples in the order of the file, and gives them other samples' keys."""

    def batch(self, indices: Tensor) -> kt.Batch:
        return replace(super().batch(indices), inputs=self.inputs[indices.sort().values])


class TwoOfEach(kt.ArrayData):
    def batch(self, indices: Tensor) -> kt.Batch:
        return super().batch(indices.repeat(2))


class SharesIds(kt.ArrayData):
    def batch(self, indices: Tensor) -> kt.Batch:
        batch = super().batch(indices)
        return replace(batch, ids=batch.ids // 2)


class TestDraws(Domain):
    """The test part alone is wrong."""

    def load(self, source: str) -> kt.Splits[kt.Data]:
        splits = super().load(source)
        return replace(splits, held_out=Drawing(torch.rand(9, 1, 8, 8)))


class LoadsOthers(Domain):
    def load(self, source: str) -> kt.Splits[kt.Data]:
        super().load(source)
        pictures = torch.rand(9, 1, 8, 8)
        return kt.Splits(self.data(pictures), None, {"in_channels": 1})


class TestOfColour(Domain):
    def load(self, source: str) -> kt.Splits[kt.Data]:
        return replace(super().load(source), held_out=self.data(torch.rand(9, 3, 8, 8)))


class NoDefaultAugmenter(Domain):
    default_augmenter: Any = None


class NoSuchProbe(Domain):
    default_probe = "knn,liner"


class ProbeOfGraphs(Domain):
    """Registered as `pictures`; a probe of another domain judges it."""

    default_probe = "knn,of-graphs"


def accuracy(encoder: kt.Encoder, train: kt.Data, test: kt.Data) -> float:
    return 50.0


def of(kind: type[kt.ArrayData]) -> Callable[[], kt.Adapter]:
    class Other(Domain):
        def data(self, pictures: Tensor) -> kt.Data:
            return kind(pictures, labels=torch.arange(9) % 3)

    return Other


ADAPTERS: dict[str, tuple[Callable[[], kt.Adapter], ...]] = {
    "loads": (NoSplits,),
    "refuses-unknown-sources": (TakesAnyName, KeyErrors),
    "batches-are-samples": (of(Positions), of(Sorts), of(TwoOfEach), of(SharesIds)),
    "batches-are-fixed": (of(Drawing), TestDraws, LoadsOthers),
    "data-can-be-pickled": (of(Holding),),
    "defaults-fit": (NoSuchEncoder, TestOfColour, NoDefaultAugmenter),
    "default-probes-fit": (NoSuchProbe,),
    "about-is-read": (SaysTooMuch,),
}


@faults(ADAPTERS)
def test_adapters(name: str, broken: Callable[[], kt.Adapter]) -> None:
    caught_by(name, adapter_checks(broken))


def test_adapters_that_are_right() -> None:
    assert not run_checks(adapter_checks(Domain())).failed
    with pytest.raises(ConformanceError, match="adapter NoSuchEncoder fails 2 of 8 checks"):
        run_checks(adapter_checks(NoSuchEncoder)).raise_failures()
    with pytest.raises(kt.InvalidValueError, match=r"`int` must be or make a kontrast\.Adapter, got int"):
        adapter_checks(int)
    unnamed: Any = type("Unnamed", (Domain,), {"default_data": None})
    with pytest.raises(kt.InvalidValueError, match="`Unnamed` must name a data set in `default_data`, got None"):
        adapter_checks(unnamed)


@pytest.fixture
def registered() -> Iterator[None]:
    kt.register(kt.AdapterRecord("pictures", ProbeOfGraphs))
    kt.register(kt.ProbeRecord("of-graphs", accuracy, adapter="graph"))
    yield
    kontrast.registry._registered.clear()  # pyright: ignore[reportPrivateUsage]


@pytest.mark.usefixtures("registered")
def test_a_default_probe_of_another_domain() -> None:
    (result,) = run_checks(check for check in adapter_checks("pictures") if check.name == "default-probes-fit").results
    assert "probe `of-graphs` is for the adapter `graph`, and the run's is `pictures`" in result.message
