"""Checks of objectives at the edges: too few rows, equal rows, zero rows, temperatures, precision.

Shapes: V views, N samples, D embedding size.
"""

import copy
import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from kontrast import Cosine, KontrastError, Objective, Pairs, stack

from .checks import ConformanceError, NotCheckedError
from .objective import ObjectiveCase
from .scene import dressed, example_views, measured, pairs_of, scored

__all__ = ["CHECKS"]


def _by_label(case: ObjectiveCase, views: Tensor, labels: list[int], kept: slice = slice(None)) -> Pairs:
    """Return all rows as candidates of all rows, or of those of the samples `kept`, with positives by label."""
    encoded = [replace(e, similarity=case.similarity, labels=torch.tensor(labels)) for e in dressed(views)]
    rows = stack(encoded)
    if kept == slice(None):
        return Pairs.between(rows, rows, match="labels", alias="ids")
    some = stack(
        [
            replace(
                e,
                rows=None if e.rows is None else e.rows[kept],
                ids=e.ids[kept],
                copies=e.copies[kept],
                labels=None if e.labels is None else e.labels[kept],
                groups=None if e.groups is None else e.groups[kept],
            )
            for e in encoded
        ]
    )
    return Pairs.between(some, rows, match="labels", alias="ids")


def anchors_without_positives(case: ObjectiveCase) -> None:
    """Counts anchors without positives: with and without them as anchors the loss is not the same."""
    views, labels = example_views(8), [0, 0, 1, 1, -1, -1]
    every = case.measure_pairs(lambda x: _by_label(case, x, labels), views)
    some = case.measure_pairs(lambda x: _by_label(case, x, labels, slice(0, 4)), views)
    every.check_finite("with anchors without positives")
    if not math.isclose(every.value, some.value, rel_tol=1e-9, abs_tol=1e-12):
        raise ConformanceError(
            f"with anchors that have no positive the loss is {every.value!r}, and without them {some.value!r}; "
            "give Loss.over_rows which rows count"
        )
    if not torch.allclose(every.embeddings, some.embeddings, rtol=1e-7, atol=1e-10):
        raise ConformanceError("anchors without positives change the gradient")


def anchor_weights(case: ObjectiveCase) -> None:
    """Heeds the anchors' weights wrongly: equal ones change the loss, or one of weight zero is not as if left out."""
    if not case.objective().needs.weights:
        raise NotCheckedError("its `needs` say that it does not heed weights")
    views, labels = example_views(19), [0, 0, 1, 1, 2, 2]
    plain = case.measure_pairs(lambda x: _by_label(case, x, labels), views)
    some = case.measure_pairs(lambda x: _by_label(case, x, labels, slice(0, 4)), views)
    half, kept = torch.full((12,), 0.5), torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0, 0.0] * 2)
    for what, weights, expected in (("weights of 1/2", half, plain), ("weights of 1 and 0", kept, some)):
        found = case.measure_pairs(partial(_weighted, case, labels, weights.double()), views)
        if not math.isclose(found.value, expected.value, rel_tol=1e-9, abs_tol=1e-12):
            raise ConformanceError(
                f"with {what} the loss is {found.value!r}, and {expected.value!r} with these anchors alone"
            )
        if not torch.allclose(found.embeddings, expected.embeddings, rtol=1e-7, atol=1e-10):
            raise ConformanceError(f"with {what} the gradient is not that of these anchors alone")


def _weighted(case: ObjectiveCase, labels: list[int], weights: Tensor, views: Tensor) -> Pairs:
    return replace(_by_label(case, views, labels), anchor_weights=weights)


def no_positives_at_all(case: ObjectiveCase) -> None:
    """Breaks where no anchor has a positive: loss or gradient are not finite."""
    try:
        found = case.measure_pairs(lambda x: _by_label(case, x, [-1] * 6), example_views(9))
    except KontrastError:
        if case.objective().needs.min_batch > 1:
            return  # it says that it needs more
        raise
    found.check_finite("without any positive")


def single_sample(case: ObjectiveCase) -> None:
    """Breaks on a batch of one sample, without saying so in `needs.min_batch`."""
    least = case.objective().needs.min_batch
    try:
        found = case.measure(example_views(10, samples=1))
    except KontrastError as error:
        if least > 1:
            return
        raise ConformanceError(f"refuses a batch of one and says min_batch={least}: {error}") from error
    if least <= 1:
        found.check_finite("on a batch of one sample")


def duplicates(case: ObjectiveCase) -> None:
    """Tells rows apart by their values: samples that are embedded alike are taken for one."""
    views = example_views(11)[:, [0, 1, 2, 0, 0, 3]]
    found = case.measure(views)
    found.check_finite("with samples embedded alike")
    near = case.measure(views + 1e-7 * example_views(12)).value
    if not math.isclose(found.value, near, rel_tol=1e-4, abs_tol=1e-4):
        raise ConformanceError(
            f"the loss jumps from {near:.6g} to {found.value:.6g} where samples that are almost alike become equal"
        )
    if case.oracle is not None and not math.isclose(found.value, case.expected(views), rel_tol=1e-7, abs_tol=1e-9):
        raise ConformanceError(f"the loss is {found.value!r} and the oracle's {case.expected(views)!r}")
    same = example_views(13)[:1, :1].expand(2, 6, -1)
    case.measure(same).check_finite("with all embeddings equal")


def zero_vectors(case: ObjectiveCase) -> None:
    """Breaks on zero vectors: NaN, or under the cosine a gradient of a row that has no direction."""
    views = example_views(14)
    plain, scaled = case.measure(views).value, case.measure(views * 3).value
    cosine = isinstance(case.similarity, Cosine) and math.isclose(plain, scaled, rel_tol=1e-9, abs_tol=1e-12)
    for what, at in (
        ("one zero row", (0, 1)),
        ("a sample of zeros", (slice(None), 2)),
        ("zeros alone", (slice(None),)),
    ):
        zeroed = views.clone()
        zeroed[at] = 0
        found = case.measure(zeroed)
        found.check_finite(f"with {what}")
        if cosine and found.embeddings[(zeroed == 0).all(-1)].any():
            raise ConformanceError(f"with {what} a zero row has a gradient; the cosine's is zero (kontrast.Cosine)")


def temperatures(case: ObjectiveCase) -> None:
    """Overflows or loses precision at temperatures from 0.01 to 10, in float32."""
    factory: Callable[..., Objective] = type(case.objective()) if case.factory is None else case.factory
    parameters = inspect.signature(factory).parameters
    if "temperature" not in parameters:
        raise NotCheckedError("it has no parameter `temperature`")
    if any(entry.default is entry.empty for name, entry in parameters.items() if name != "temperature"):
        raise NotCheckedError("it is given as an object with required parameters; give what makes one", given=False)
    first = example_views(15)[0]
    scenes = {"normal": example_views(15), "equal": first.expand(2, 6, -1), "opposite": torch.stack([first, -first])}
    for temperature in (0.01, 0.1, 1.0, 10.0):
        objective: Objective = factory(temperature=temperature)
        for what, views in scenes.items():
            found, exact = (
                _in(case, objective, views.float()),
                case.measure(views.float().double(), objective=objective),
            )
            where = f"at temperature {temperature} on {what} embeddings"
            if not math.isfinite(found[0]) or not found[1].isfinite().all():
                raise ConformanceError(f"{where} loss or gradient is not finite in float32")
            if not math.isclose(found[0], exact.value, rel_tol=1e-3, abs_tol=1e-3):
                raise ConformanceError(
                    f"{where} the loss is {found[0]:.7g} in float32 and {exact.value:.7g} in float64"
                )


def half_precision(case: ObjectiveCase) -> None:
    """Computes in half precision: bf16 or fp16 embeddings give another loss than their values do in float64."""
    for dtype, error in ((torch.bfloat16, 2e-2), (torch.float16, 4e-3)):
        rounded = example_views(16, samples=12).to(dtype)
        value, gradient = _in(case, case.objective().float(), rounded)
        exact = case.measure(rounded.double())
        expected = exact.value if case.oracle is None else case.expected(rounded.double())
        if not math.isclose(value, expected, rel_tol=1e-4, abs_tol=1e-4):
            raise ConformanceError(f"on {dtype} embeddings the loss is {value:.7g}, and {expected:.7g} in float64")
        apart = float((gradient.double() - exact.embeddings).norm() / exact.embeddings.norm().clamp(min=1e-12))
        if not apart < error:
            raise ConformanceError(f"on {dtype} embeddings the gradient is off by {apart:.2g} of its length")


def autocast(case: ObjectiveCase) -> None:
    """Loses precision under autocast: float32 embeddings give another loss."""
    views, objective = example_views(17).float(), case.objective().float()
    plain, _ = _in(case, objective, views)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        other, _ = _in(case, objective, views)
    if not math.isclose(plain, other, rel_tol=1e-5, abs_tol=1e-6):
        raise ConformanceError(f"the loss is {plain:.7g}, and under autocast {other:.7g}")


def _in(case: ObjectiveCase, objective: Objective, views: Tensor) -> tuple[float, Tensor]:
    """Return loss and gradient in the embeddings' own precision, all modules in float32."""
    views = views.detach().requires_grad_()
    sampler, similarity = copy.deepcopy(case.sampler).float(), copy.deepcopy(case.similarity).float()
    found = measured(scored(objective, pairs_of(sampler, similarity, dressed(views))), views)
    return found.value, found.embeddings


CHECKS = (
    anchors_without_positives,
    anchor_weights,
    no_positives_at_all,
    single_sample,
    duplicates,
    zero_vectors,
    temperatures,
    half_precision,
    autocast,
)
