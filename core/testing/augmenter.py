"""The conformance checks of augmenters.

Shapes: B samples, M rows of a view.
"""

import copy
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kontrast import Augmenter, AugmenterRecord, Batch, Data, Draws, View

from .checks import Check, ConformanceError, NotCheckedError, Report, checks_of, run_checks
from .domain import data_of, default_encoder, taken
from .scene import failures_of, made, stateful
from .snapshot import difference, snapshot
from .states import reloaded

__all__ = ["augmenter_checks", "check_augmenter"]


# What a view says of the elements inside its rows.
ELEMENTS = {"valid": torch.bool, "coords": torch.int64, "masked": torch.bool}


class AugmenterCase:
    """An augmenter and samples that it reads."""

    def __init__(self, subject: Any, data: Data | None) -> None:
        self.data, about = data_of(AugmenterRecord, subject, data)
        self.subject = subject
        self.name, _, augmenter = made(subject, AugmenterRecord, Augmenter, about)  # type: ignore[type-abstract]
        self._augmenter = copy.deepcopy(augmenter)
        self.count = min(6, len(self.data))

    def augmenter(self) -> Augmenter:
        """Return a copy of the augmenter as it was given."""
        return copy.deepcopy(self._augmenter)

    def batch(self, indices: Sequence[int] | None = None) -> Batch:
        """Return some samples, by default the first six."""
        return self.data.batch(torch.tensor(list(range(self.count) if indices is None else indices)))

    def views(
        self, draws: Draws, indices: Sequence[int] | None = None, augmenter: Augmenter | None = None
    ) -> list[View]:
        """Return the views of some samples."""
        views: list[View] = (self.augmenter() if augmenter is None else augmenter)(self.batch(indices), draws)
        return views

    @property
    def draws_numbers(self) -> bool:
        """Whether another seed gives other views."""
        return bool(difference(snapshot(self.views(Draws(0))), snapshot(self.views(Draws(1)))))


def returns_views(case: AugmenterCase) -> None:
    """Wrong shape or dtype: no list of Views, samples that a view has no copy of, or parts that do not fit its rows."""
    views = case.views(Draws(0))
    if not isinstance(views, list) or not views or not all(isinstance(view, View) for view in views):
        raise ConformanceError(f"an augmenter must return a list of kontrast.View, got {type(views).__name__}")
    batch = case.batch()
    ids = set(batch.ids.tolist())
    for number, view in enumerate(views):
        found, rows = set(view.ids.tolist()), len(view.ids)
        if found != ids:
            raise ConformanceError(f"view {number} has samples {sorted(found)}, and the batch {sorted(ids)}")
        if isinstance(view.inputs, Tensor):
            if not view.inputs.ndim or len(view.inputs) != rows:
                raise ConformanceError(f"`inputs` of view {number} are {list(view.inputs.shape)} of {rows} rows")
            given = batch.inputs.dtype if isinstance(batch.inputs, Tensor) else view.inputs.dtype
            if given.is_floating_point and view.inputs.dtype != given:
                raise ConformanceError(f"`inputs` of view {number} are {view.inputs.dtype}, and the batch's {given}")
        for name, dtype in ELEMENTS.items():
            part = getattr(view, name)
            if part is None:
                continue
            if part.dtype != dtype:
                raise ConformanceError(f"`{name}` of view {number} must be {dtype}, got {part.dtype}")
            if part.ndim > 1 and len(part) != rows:
                raise ConformanceError(f"`{name}` of view {number} has {len(part)} rows, and there are {rows}")
        shapes = {name: list(part.shape) for name in ELEMENTS if (part := getattr(view, name)) is not None}
        if len({str(shape) for shape in shapes.values()}) > 1:
            raise ConformanceError(f"the elements of view {number} have several shapes: {shapes}")


def keys_carried(case: AugmenterCase) -> None:
    """Loses labels or groups, or gives a row those of another sample."""
    batch = case.batch()
    place = {sample: row for row, sample in enumerate(batch.ids.tolist())}
    for number, view in enumerate(case.views(Draws(0))):
        rows = torch.tensor([place[sample] for sample in view.ids.tolist()])
        for name in ("labels", "groups"):
            given, found = getattr(batch, name), getattr(view, name)
            if given is not None and (found is None or not torch.equal(given[rows], found)):
                raise ConformanceError(f"`{name}` of view {number} are not those of its samples; see View.of")


def inputs_unchanged(case: AugmenterCase) -> None:
    """Mutates its inputs: the batch is not what it was."""
    batch = case.batch()
    before = snapshot(batch)
    case.augmenter()(batch, Draws(0))
    if what := difference(before, snapshot(batch)):
        raise ConformanceError(f"forward() changed the batch it was given: {what}")


def draws_alone_decide(case: AugmenterCase) -> None:
    """Random numbers from elsewhere than `draws`: a resume or another number of workers would give other views."""
    found, same = [], case.augmenter()
    with torch.random.fork_rng(devices=[]):
        for seed in (1, 2):
            torch.manual_seed(seed)
            before = torch.get_rng_state()
            found.append(snapshot(case.views(Draws(0), augmenter=None if stateful(same) else same)))
            if not torch.equal(before, torch.get_rng_state()):
                raise ConformanceError("forward() takes numbers from torch's global generator; take them from `draws`")
    if what := difference(*found):
        raise ConformanceError(f"the same batch and draws give other views the second time: {what}")


def draws_are_used(case: AugmenterCase) -> None:
    """The same numbers again: views, seeds or epochs that should differ do not."""
    if not case.draws_numbers:
        raise NotCheckedError("it draws no numbers")
    if not difference(snapshot(case.views(Draws(0, epoch=0))), snapshot(case.views(Draws(0, epoch=1)))):
        raise ConformanceError("two epochs have the same views; hand `draws` on as it is")
    views = case.views(Draws(0))
    same = [v for v in range(1, len(views)) if not difference(snapshot(views[0].inputs), snapshot(views[v].inputs))]
    if same:
        raise ConformanceError(f"views 0 and {same[0]} are the same; draw for each with view=")


def each_sample_by_itself(case: AugmenterCase) -> None:
    """Depends on the batch: a sample's copies change with what else is in it, or with its place."""
    whole = case.views(Draws(0))
    last = list(range(case.count))[::-1][: max(1, case.count // 2)]
    for number, (full, part) in enumerate(zip(whole, case.views(Draws(0), last), strict=True)):
        rows = _copies_of(part.ids, full.ids)
        if what := _unlike(case, full, part, rows):
            raise ConformanceError(
                f"view {number} of the same samples is another in another batch ({what}); draw by sample id"
            )


def _unlike(case: AugmenterCase, full: View, part: View, rows: Tensor) -> str:
    """Return where some rows of one view and another view differ, in words."""
    for name in ELEMENTS:
        ours, theirs = getattr(full, name), getattr(part, name)
        if ours is not None and ours.ndim > 1 and (what := difference(snapshot(ours[rows]), snapshot(theirs))):
            return f"`{name}`: {what}"
    try:
        return difference(snapshot(taken(full.inputs, rows)), snapshot(part.inputs), rtol=1e-5)
    except NotCheckedError:  # nobody but the domain's encoder can say what belongs to which row
        encoder = default_encoder(case.subject)
        if encoder is None:
            raise
        with torch.no_grad():
            ours, theirs = encoder(full.inputs)[rows], encoder(part.inputs)
        return "" if torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4 * float(ours.abs().max())) else "to its encoder"


def _copies_of(wanted: Tensor, ids: Tensor) -> Tensor:
    """Return where the rows of `wanted` stand in `ids`, the n-th copy of a sample at its n-th place."""
    places: dict[int, list[int]] = {}
    for row, sample in enumerate(ids.tolist()):
        places.setdefault(sample, []).append(row)
    return torch.tensor([places[sample].pop(0) for sample in wanted.tolist()])


def single_sample(case: AugmenterCase) -> None:
    """Breaks on a batch of one sample."""
    for view in case.views(Draws(0), [0]):
        if set(view.ids.tolist()) != set(case.batch([0]).ids.tolist()):
            raise ConformanceError(f"a batch of one sample has a view of {view.ids.tolist()}")


def can_be_pickled(case: AugmenterCase) -> None:
    """Cannot be sent to the workers of a loader, or is another one there."""
    other = pickle.loads(pickle.dumps(case.augmenter()))
    if what := difference(snapshot(case.views(Draws(0))), snapshot(case.views(Draws(0), augmenter=other))):
        raise ConformanceError(f"pickled and back it gives other views: {what}")


def state_continues(case: AugmenterCase) -> None:
    """Loses state: saved and loaded in mid-run, the next views are others."""
    augmenter = case.augmenter()
    if not stateful(augmenter):
        raise NotCheckedError("it has no state")
    for epoch in range(2):
        case.views(Draws(0, epoch), augmenter=augmenter)
    other = reloaded(augmenter, case.augmenter())
    for epoch in range(2, 4):
        first, second = (snapshot(case.views(Draws(0, epoch), augmenter=part)) for part in (augmenter, other))
        if what := difference(first, second):
            raise ConformanceError(f"after save and load the views are others: {what}")


CHECKS = (
    returns_views,
    keys_carried,
    inputs_unchanged,
    draws_alone_decide,
    draws_are_used,
    each_sample_by_itself,
    single_sample,
    can_be_pickled,
    state_continues,
)


def augmenter_checks(
    subject: Any, *, data: Data | None = None, expected_failures: Mapping[str, str] | None = None
) -> list[Check]:
    """Return the checks that `check_augmenter` runs, with its arguments; for `parametrize_with_checks`."""
    case = AugmenterCase(subject, data)
    return checks_of(f"augmenter {case.name}", CHECKS, case, failures_of(case.augmenter(), expected_failures))


def check_augmenter(
    subject: Any, *, data: Data | None = None, expected_failures: Mapping[str, str] | None = None
) -> Report:
    """Hold an augmenter to what the interface promises.

    Args:
        subject: an augmenter, its registered name, or a class or function that makes one.
        data: samples that it reads; by default its domain's, where it is registered under one.
        expected_failures: by the name of a check, why it fails; one that passes is a failure.

    Returns:
        The report, where no check failed.

    Raises:
        ConformanceError: names every check that failed, with what was found.
    """
    report = run_checks(augmenter_checks(subject, data=data, expected_failures=expected_failures))
    report.raise_failures()
    return report
