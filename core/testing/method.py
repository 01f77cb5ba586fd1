"""The conformance checks of methods: one whole step, and the next one.

Shapes: B samples, D representation size.
"""

import copy
import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
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
    rank,
    world_size,
)
from kontrast.norm import sync_batch_norms

from .checks import Check, ConformanceError, Report, checks_of, run_checks
from .domain import Noise, SmallEncoder, example_data
from .processes import processes
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

    def __init__(self, subject: Any, data: Data | None, augmenter: Augmenter | None) -> None:
        fill: dict[str, Any] = dict(SMALL)
        with torch.random.fork_rng(devices=[]):  # the same weights every time
            torch.manual_seed(0)
            if not isinstance(subject, Method):
                factory = get_record(MethodRecord, subject).load() if isinstance(subject, str) else subject
                names = [name for name in inspect.signature(factory).parameters if name.endswith("encoder")]
                fill |= {name: SmallEncoder() for name in names}
            self.name, _, method = made(subject, MethodRecord, Method, fill)
        self._method = copy.deepcopy(method).double()
        self.data: Data = example_data(sum(BATCHES)) if data is None else data
        towers = sorted(method.encoders)
        views = method.sampler.gives.views or len(towers)
        noise = Noise(max(2, views)) if len(towers) == 1 else ToTowers(Noise(views), *towers)
        self.augmenter = noise if augmenter is None else augmenter
        self.kept: dict[Any, Any] = {}  # what several checks read

    def method(self) -> Method:
        """Return a copy of the method as it was given, in float64 and in training mode."""
        return copy.deepcopy(self._method).train()

    def views(self, step: int = 0) -> list[View]:
        """Return the views of a batch."""
        return _views(self.data, self.augmenter, step, slice(None))


def _views(data: Data, augmenter: Augmenter, step: int, mine: slice) -> list[View]:
    first = sum(BATCHES[:step])
    indices = (torch.arange(first, first + BATCHES[step]) % len(data))[mine]
    views: list[View] = augmenter(data.batch(indices), Draws(0))
    return views


@dataclass(frozen=True)
class Stepped:
    """What a step had: its loss, and every parameter's gradient as the average over ranks."""

    value: float
    gradients: dict[str, Tensor]


def _step(method: Method, views: list[View], step: int) -> Stepped:
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


def on_rank(method: Method, data: Data, augmenter: Augmenter) -> list[Stepped]:
    """Return this rank's three steps; each process runs this."""
    sync_batch_norms(method)
    steps = []
    for step in range(len(BATCHES)):
        own = torch.arange(BATCHES[step]).tensor_split(world_size())[rank()]
        views = _views(data, augmenter, step, slice(int(own[0]), int(own[-1]) + 1))
        steps.append(_step(method, views, step))
    return steps


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
    found = _step(method, case.views(), 0).gradients
    for name, parameter in method.named_parameters():
        if parameter.requires_grad and name not in found:
            raise ConformanceError(f"no gradient reaches the parameter `{name}`; leave it out, or freeze it")
        if parameter.requires_grad and not found[name].isfinite().all():
            raise ConformanceError(f"the gradient of the parameter `{name}` is not finite")


def loss_falls(case: MethodCase) -> None:
    """Wrong sign or a gradient of something else: a small step against the gradient does not lower the loss."""
    method = case.method()
    _step(method, case.views(), 0)  # so that a queue has something in it
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
    _step(method, views, 0)
    if what := difference(before, snapshot(views)):
        raise ConformanceError(f"a step changed the views it was given: {what}")


def deterministic(case: MethodCase) -> None:
    """Not deterministic: the same steps under the same random numbers end elsewhere."""
    found = []
    for _ in range(2):
        method = case.method()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)  # dropout takes its numbers there
            found.append(snapshot([_step(method, case.views(step), step) for step in range(len(BATCHES))]))
    if what := difference(*found):
        raise ConformanceError(f"the same steps once more give something else: {what}")


def state_continues(case: MethodCase) -> None:
    """Loses state (queue, momentum copy, centre): saved and loaded in mid-run, the next steps are others."""
    method, other = case.method(), case.method()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1)
    for step in range(2):
        _step(method, case.views(step), step)
    reloaded(method, other)
    for step in (2, 0):
        found = []
        for part in (method, other):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(step)
                found.append(snapshot(_step(part, case.views(step), step)))
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


def gradient_on_2_processes(case: MethodCase) -> None:
    """Two processes have other gradients or another loss than one, in one of three steps, the last uneven."""
    _same_steps(case, 2)


def gradient_on_3_processes(case: MethodCase) -> None:
    """Three processes have other gradients or another loss than one, in one of three steps, the last uneven."""
    _same_steps(case, 3)


def _same_steps(case: MethodCase, world: int) -> None:
    one = on_rank(case.method(), case.data, case.augmenter)
    for number, steps in enumerate(processes().run(world, on_rank, case.method(), case.data, case.augmenter)):
        for step, (found, expected) in enumerate(zip(steps, one, strict=True)):
            where = f"in step {step} rank {number} of {world}"
            if not math.isclose(found.value, expected.value, rel_tol=1e-6, abs_tol=1e-9):
                raise ConformanceError(f"{where} has loss {found.value:.7g}, and one process {expected.value:.7g}")
            for name, gradient in expected.gradients.items():
                if name not in found.gradients:
                    raise ConformanceError(f"{where} has no gradient of `{name}`, and one process has")
                bound = 1e-6 * float(gradient.abs().max()) + 1e-9
                if not torch.allclose(found.gradients[name], gradient, rtol=1e-6, atol=bound):
                    raise ConformanceError(f"{where} has another gradient of `{name}` than one process")


CHECKS = (
    returns_a_loss,
    gradient_of_every_parameter,
    loss_falls,
    inputs_unchanged,
    deterministic,
    state_continues,
    represents,
    gradient_on_2_processes,
    gradient_on_3_processes,
)


def method_checks(
    subject: Any,
    *,
    data: Data | None = None,
    augmenter: Augmenter | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> list[Check]:
    """Return the checks that `check_method` runs, with its arguments; for `parametrize_with_checks`."""
    case = MethodCase(subject, data, augmenter)
    return checks_of(f"method {case.name}", CHECKS, case, failures_of(case.method(), expected_failures))


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
