"""The conformance checks of methods: one whole step, and the next one.

Shapes: B samples, D representation size.
"""

import copy
import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from kontrast import (
    Augmenter,
    Data,
    Draws,
    Method,
    MethodRecord,
    ToTowers,
    View,
    all_sum,
    get_record,
    world_size,
)

from .checks import Check, ConformanceError, NotCheckedError, Report, checks_of, run_checks
from .domain import Noise, SmallEncoder, example_data, in_double
from .scene import failures_of, made
from .snapshot import difference, snapshot
from .states import reloaded

__all__ = ["check_method", "method_checks"]

# Small values of the parameters that our methods go by.
SMALL = {"hidden_size": 12, "projection_size": 6, "representation_size": 8, "queue_size": 13, "size": 13}
BATCHES = (8, 8, 7)  # the last is uneven for two and for three processes
RATE = 0.05


class MethodCase:
    """A method and views that it reads, in float64."""

    takes_encoder = False

    def __init__(self, subject: Any, data: Data | None, augmenter: Augmenter | None) -> None:
        self.subject = subject
        self.name, method = self._made()
        self._method = copy.deepcopy(method).double()
        self.data: Data = example_data(sum(BATCHES)) if data is None else data
        towers = sorted(method.encoders)
        views = method.sampler.gives.views or len(towers)
        noise = Noise(max(2, views)) if len(towers) == 1 else ToTowers(Noise(views), *towers)
        self.augmenter = noise if augmenter is None else augmenter
        self.kept: dict[Any, Any] = {}  # what several checks read

    def _made(self, **encoder: float) -> tuple[str, Method]:
        """Return name and method, with the same weights every time; its encoder is small."""
        fill: dict[str, Any] = dict(SMALL)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            if not isinstance(self.subject, Method):
                registered = isinstance(self.subject, str)
                factory = get_record(MethodRecord, self.subject).load() if registered else self.subject
                names = [name for name in inspect.signature(factory).parameters if name.endswith("encoder")]
                self.takes_encoder = bool(names)
                fill |= {name: SmallEncoder(**encoder) for name in names}
            name, _, method = made(self.subject, MethodRecord, Method, fill)
        return name, method

    def method_with_lengths(self, weight: float) -> Method:
        """Return the method on encoders that add the mean squared length of their rows to the loss.

        Raises:
            NotCheckedError: if it was given with its encoder.
        """
        if not self.takes_encoder:
            raise NotCheckedError("it has an encoder already; that is checked by itself")
        return self._made(lengths=weight)[1].double().train()

    def method(self) -> Method:
        """Return a copy of the method as it was given, in float64 and in training mode."""
        return copy.deepcopy(self._method).train()

    def views(self, step: int = 0) -> list[View]:
        """Return the views of a batch."""
        return views_of(self.data, self.augmenter, step, slice(None))


def views_of(data: Data, augmenter: Augmenter, step: int, mine: slice) -> list[View]:
    """Return the views of a part of a step's batch, in float64."""
    first = sum(BATCHES[:step])
    indices = (torch.arange(first, first + BATCHES[step]) % len(data))[mine]
    views: list[View] = augmenter(data.batch(indices), Draws(0))
    return [replace(view, inputs=in_double(view.inputs)) for view in views]


@dataclass(frozen=True)
class Stepped:
    """What a step had: its loss, and every parameter's gradient as the average over ranks."""

    value: float
    gradients: dict[str, Tensor]


def make_step(method: Method, views: list[View], step: int) -> Stepped:
    """Make one step of plain gradient descent, and what comes after it."""
    loss, encoded = method(views)
    reduced = loss.reduced()
    method.zero_grad()
    reduced.backward.backward()
    gradients = {}
    for name, parameter in method.named_parameters():
        if parameter.requires_grad and parameter.grad is not None:
            gradients[name] = all_sum(parameter.grad) / world_size()
            with torch.no_grad():
                parameter.sub_(RATE * gradients[name])
    method.after_step([view.detach() for view in encoded], (step + 1) / len(BATCHES))
    return Stepped(float(reduced.value), gradients)


def returns_a_loss(case: MethodCase) -> None:
    """A step breaks, or its loss is not finite."""
    for step in range(len(BATCHES)):
        loss, encoded = case.method()(case.views(step))
        value = float(loss.reduced().value)
        if not math.isfinite(value):
            raise ConformanceError(f"the loss of the first step is {value}")
        if len(encoded) != len(case.views(step)):
            raise ConformanceError(f"{len(case.views(step))} views came in and {len(encoded)} encodings came out")


def gradient_of_every_parameter(case: MethodCase) -> None:
    """Parameters that no gradient reaches, which DDP waits for, or whose gradient is not finite."""
    method = case.method()
    found = make_step(method, case.views(), 0).gradients
    for name, parameter in method.named_parameters():
        if parameter.requires_grad and name not in found:
            raise ConformanceError(f"no gradient reaches the parameter `{name}`; leave it out, or freeze it")
        if parameter.requires_grad and not found[name].isfinite().all():
            raise ConformanceError(f"the gradient of the parameter `{name}` is not finite")


def loss_falls(case: MethodCase) -> None:
    """Wrong sign or a gradient of something else: a small step against the gradient does not lower the loss."""
    method = case.method()
    make_step(method, case.views(), 0)  # so that a queue has something in it
    other, views = copy.deepcopy(method), case.views(1)
    here = method(views)[0].reduced()
    method.zero_grad()
    here.backward.backward()
    gradients = {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
    length = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients.values()))
    if not length:
        raise ConformanceError("the gradient is zero")
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if name in gradients:
                parameter.sub_(1e-5 / length * gradients[name])
    before, after = float(here.value), float(other(views)[0].reduced().value)
    if not after < before:
        raise ConformanceError(f"a small step against the gradient takes the loss from {before!r} to {after!r}")


def inputs_unchanged(case: MethodCase) -> None:
    """Mutates its inputs: the views are not what they were."""
    views, method = case.views(), case.method()
    before = snapshot(views)
    make_step(method, views, 0)
    if what := difference(before, snapshot(views)):
        raise ConformanceError(f"a step changed the views it was given: {what}")


def deterministic(case: MethodCase) -> None:
    """Not deterministic: the same steps under the same random numbers end elsewhere."""
    found = []
    for _ in range(2):
        method = case.method()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)  # dropout takes its numbers there
            found.append(snapshot([make_step(method, case.views(step), step) for step in range(len(BATCHES))]))
    if what := difference(*found):
        raise ConformanceError(f"the same steps once more give something else: {what}")


def state_continues(case: MethodCase) -> None:
    """Loses state (queue, momentum copy, centre): saved and loaded in mid-run, the next steps are others."""
    method, other = case.method(), case.method()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1)
    for step in range(2):
        make_step(method, case.views(step), step)
    reloaded(method, other)
    for step in (2, 0):
        found = []
        for part in (method, other):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(step)
                found.append(snapshot(make_step(part, case.views(step), step)))
        if what := difference(*found):
            raise ConformanceError(f"after save and load the next step is another: {what}")


def represents(case: MethodCase) -> None:
    """`represent` is not the encoder alone: it changes the method, has a gradient, or is not one row per sample."""
    method, views = case.method(), case.views()
    before = snapshot(method.state_dict())
    for tower in sorted(method.encoders) if len(method.encoders) > 1 else [""]:
        (view,) = [view for view in views if view.tower == tower][:1] or views[:1]
        rows = method.represent(view.inputs, tower)
        if rows.ndim != 2 or len(rows) != len(view.ids) or rows.requires_grad:
            raise ConformanceError(
                f"represent() must return [{len(view.ids)}, D] without gradient, got {list(rows.shape)}"
            )
    if what := difference(before, snapshot(method.state_dict())):
        raise ConformanceError(f"represent() changed the method: {what}")
    if not method.training:
        raise ConformanceError("represent() left the method in evaluation mode")


CHECKS = (
    returns_a_loss,
    gradient_of_every_parameter,
    loss_falls,
    inputs_unchanged,
    deterministic,
    state_continues,
    represents,
)


def method_checks(
    subject: Any,
    *,
    data: Data | None = None,
    augmenter: Augmenter | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> list[Check]:
    """Return the checks that `check_method` runs, with its arguments; for `parametrize_with_checks`."""
    from . import method_parts, method_ranks, method_score

    case = MethodCase(subject, data, augmenter)
    functions = (*CHECKS, *method_parts.CHECKS, *method_score.CHECKS, *method_ranks.CHECKS)
    return checks_of(f"method {case.name}", functions, case, failures_of(case.method(), expected_failures))


def check_method(
    subject: Any,
    *,
    data: Data | None = None,
    augmenter: Augmenter | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> Report:
    """Hold a method to what the interface promises, over three steps.

    Args:
        subject: a method, its registered name, or a function that makes one. Every parameter that ends in `encoder` is
            given a small encoder of vectors, and sizes by their usual names are made small.
        data: samples that it reads, where its encoders are the author's own; by default vectors.
        augmenter: what makes views of them; by default a little noise, one view per tower or two.
        expected_failures: by the name of a check, why it fails; one that passes is a failure.

    Returns:
        The report, where no check failed.

    Raises:
        ConformanceError: names every check that failed, with what was found.
    """
    checks = method_checks(subject, data=data, augmenter=augmenter, expected_failures=expected_failures)
    report = run_checks(checks)
    report.raise_failures()
    return report
