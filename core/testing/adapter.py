"""The conformance checks of adapters: a domain's data, and the parts it takes where nothing is said.

Shapes: N samples, B samples of a batch.
"""

import pickle
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kontrast import (
    Adapter,
    AdapterRecord,
    AugmenterRecord,
    Batch,
    Data,
    Draws,
    EncoderRecord,
    InvalidValueError,
    KontrastError,
    Splits,
    as_encoder,
    get_record,
)
from kontrast.probe import named_probe

from .checks import Check, ConformanceError, NotCheckedError, Report, checks_of, run_checks
from .domain import made_for, taken
from .scene import failures_of
from .snapshot import difference, snapshot

__all__ = ["adapter_checks", "check_adapter"]


@dataclass
class AdapterCase:
    """An adapter, the name it is registered under (or none), and the data set it is checked on."""

    registered: str
    adapter: Adapter
    source: str
    kept: Splits[Data] | None = None

    def splits(self) -> Splits[Data]:
        """Return the data set, loaded once."""
        if self.kept is None:
            self.kept = self.adapter.load(self.source)
        return self.kept

    def parts(self) -> dict[str, Data]:
        """Return the training part and, where there is one, the test part."""
        splits = self.splits()
        return {"train": splits.train} | ({} if splits.held_out is None else {"test": splits.held_out})


def _first(data: Data) -> Tensor:
    """Return the indices of a few samples."""
    return torch.arange(min(5, len(data)))


def loads(case: AdapterCase) -> None:
    """Its default data cannot be loaded, hold no sample, or are no Splits."""
    splits = case.splits()
    if not isinstance(splits, Splits):
        raise ConformanceError(f"load() must return kontrast.Splits, got {type(splits).__name__}")
    for name, part in (("train", splits.train), ("held_out", splits.held_out)):
        if part is not None and len(part) < 1:
            raise ConformanceError(f"the part `{name}` holds no sample")


def refuses_unknown_sources(case: AdapterCase) -> None:
    """A misspelt name of a data set ends in a traceback of something else, or in other data."""
    source = f"{case.source}-that-does-not-exist"
    try:
        case.adapter.load(source)
    except KontrastError:
        return
    except Exception as error:
        raise ConformanceError(f"load() of an unknown name raises {type(error).__name__}, no kontrast error") from error
    raise ConformanceError(f"load({source!r}) gives a data set")


def batches_are_samples(case: AdapterCase) -> None:
    """Wrong batches: no Batch, not one id per sample, ids that come twice, or not in the order asked for."""
    for part, data in case.parts().items():
        indices = _first(data)
        batch = data.batch(indices)
        if not isinstance(batch, Batch) or len(batch) != len(indices):
            found = f"{len(batch)} samples" if isinstance(batch, Batch) else type(batch).__name__
            raise ConformanceError(f"batch() must return a kontrast.Batch of {len(indices)} samples, got {found}")
        turned = data.batch(indices.flip(0))
        for name in ("ids", "labels", "groups"):
            first, second = getattr(batch, name), getattr(turned, name)
            if first is not None and (second is None or not torch.equal(first.flip(0), second)):
                raise ConformanceError(f"`{name}` do not follow the order in which samples of `{part}` are asked for")
        with suppress(NotCheckedError):  # inputs of a kind that only the domain can take apart
            if what := difference(snapshot(taken(batch.inputs, indices.flip(0))), snapshot(turned.inputs)):
                raise ConformanceError(
                    f"`inputs` do not follow the order in which samples of `{part}` are asked for: {what}"
                )
        every = torch.cat([data.batch(some).ids for some in torch.arange(min(len(data), 1000)).split(256)])
        if len(torch.unique(every)) < len(every):
            raise ConformanceError(f"two samples of the part `{part}` share an id")


def batches_are_fixed(case: AdapterCase) -> None:
    """Draws random numbers: the same samples are others the second time, or after a resume."""
    again = case.adapter.load(case.source)
    for part, data in case.parts().items():
        indices = _first(data)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            before = torch.get_rng_state()
            first = snapshot(data.batch(indices))
            if not torch.equal(before, torch.get_rng_state()):
                raise ConformanceError(
                    "batch() takes numbers from torch's global generator; augmenters draw, data do not"
                )
            torch.manual_seed(2)
            second = snapshot(data.batch(indices))
        if what := difference(first, second):
            raise ConformanceError(f"the same samples of `{part}` are others the second time: {what}")
        reloaded = again.train if part == "train" else again.test
        if what := difference(first, snapshot(reloaded.batch(indices))):
            raise ConformanceError(f"loaded once more the same samples of `{part}` are others: {what}")


def data_can_be_pickled(case: AdapterCase) -> None:
    """Data that cannot be sent to the workers of a loader."""
    for part, data in case.parts().items():
        other = pickle.loads(pickle.dumps(data))
        if what := difference(snapshot(data.batch(_first(data))), snapshot(other.batch(_first(data)))):
            raise ConformanceError(f"pickled and back the part `{part}` gives other samples: {what}")


def defaults_fit(case: AdapterCase) -> None:
    """Its default augmenter and encoder are not registered, or do not read each other and the default data."""
    for part in ("augmenter", "encoder"):
        name = getattr(case.adapter, f"default_{part}", None)
        if not isinstance(name, str):
            raise ConformanceError(f"`default_{part}` must be a registered name, got {name!r}")
    splits = case.splits()
    augmenter = made_for(AugmenterRecord, case.adapter.default_augmenter, splits.about)
    encoder = as_encoder(made_for(EncoderRecord, case.adapter.default_encoder, splits.about))
    for view in augmenter(splits.train.batch(_first(splits.train)), Draws(0)):
        encoder.encode(view, torch.arange(len(view.ids)))
    if splits.held_out is not None:
        with torch.no_grad():
            rows = encoder.eval()(splits.held_out.batch(torch.arange(1)).inputs)
        if len(rows) != 1:
            raise ConformanceError(f"the encoder makes {len(rows)} rows of one sample of the test part")


def default_probes_fit(case: AdapterCase) -> None:
    """A default probe that is not registered, is for another domain, or judges a test part that there is not."""
    for name in case.adapter.default_probe.split(","):
        probe = named_probe(name.strip())
        if case.registered:
            probe.check_adapter(case.registered)
        if probe.takes_test and case.splits().held_out is None:
            raise NotCheckedError(f"the probe `{name.strip()}` judges a test part, and the default data have none")


def about_is_read(case: AdapterCase) -> None:
    """What it says about its data (`Splits.about`) is no parameter of any of its encoders or augmenters."""
    about = case.splits().about
    if not about:
        raise NotCheckedError("it says nothing about its data")
    defaults = (
        get_record(AugmenterRecord, case.adapter.default_augmenter),
        get_record(EncoderRecord, case.adapter.default_encoder),
    )
    known = {name for record in defaults for name in record.signature().parameters}
    if unread := sorted(set(about) - known):
        raise ConformanceError(f"`about` names {unread}, which neither default encoder nor default augmenter takes")


CHECKS = (
    loads,
    refuses_unknown_sources,
    batches_are_samples,
    batches_are_fixed,
    data_can_be_pickled,
    defaults_fit,
    default_probes_fit,
    about_is_read,
)


def adapter_checks(
    subject: Any, *, source: str | None = None, expected_failures: Mapping[str, str] | None = None
) -> list[Check]:
    """Return the checks that `check_adapter` runs, with its arguments; for `parametrize_with_checks`."""
    name = subject if isinstance(subject, str) else getattr(subject, "__name__", type(subject).__name__)
    made = subject
    if isinstance(subject, str):
        record = get_record(AdapterRecord, subject)
        with record.blamed():
            made = record.load()()
    adapter = made() if isinstance(made, type) or (callable(made) and not isinstance(made, Adapter)) else made
    if not isinstance(adapter, Adapter):
        raise InvalidValueError(f"`{name}` must be or make a kontrast.Adapter, got {type(adapter).__name__}")
    source = getattr(adapter, "default_data", None) if source is None else source
    if not isinstance(source, str):
        raise InvalidValueError(f"`{name}` must name a data set in `default_data`, got {source!r}; or give `source`")
    case = AdapterCase(name.rpartition(":")[2] if isinstance(subject, str) else "", adapter, source)
    return checks_of(f"adapter {name}", CHECKS, case, failures_of(adapter, expected_failures))


def check_adapter(
    subject: Any, *, source: str | None = None, expected_failures: Mapping[str, str] | None = None
) -> Report:
    """Hold an adapter to what the interface promises.

    Args:
        subject: an adapter, its registered name, or what makes one.
        source: the data set to load; by default its own default. One that needs no download suits tests.
        expected_failures: by the name of a check, why it fails; one that passes is a failure.

    Returns:
        The report, where no check failed.

    Raises:
        ConformanceError: names every check that failed, with what was found.
    """
    report = run_checks(adapter_checks(subject, source=source, expected_failures=expected_failures))
    report.raise_failures()
    return report
