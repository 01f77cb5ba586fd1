"""Checks of objectives: values, gradients, and what a loss may not depend on.

Shapes: V views, N samples, D embedding size.
"""

import copy
import math

import torch

from kontrast import IncompatibleError, Method, Objective, Positives, Similarity

from .checks import ConformanceError, NotCheckedError
from .objective import ObjectiveCase
from .scene import SIZE, commit, dressed, example_views, learned, measured, pairs_of, scored, stateful
from .snapshot import difference, snapshot
from .states import reloaded

__all__ = ["CHECKS"]


def returns_a_loss(case: ObjectiveCase) -> None:
    """Wrong shape: what comes back is no Loss of scalar, finite sums that lead back to the embeddings."""
    views = example_views().requires_grad_()
    loss = scored(case.objective(), case.pairs(views))
    if not loss.terms:
        raise ConformanceError("the loss has no term")
    if not all(isinstance(term.sum, torch.Tensor) and term.sum.is_floating_point() for term in loss.terms):
        raise ConformanceError("the sum of a term must be a floating-point tensor")
    if not any(term.sum.requires_grad for term in loss.terms):
        raise ConformanceError("no term leads back to the embeddings; something on the way is detached")
    for term in loss.terms:
        if term.count is not None and not float(term.count) >= 0:
            raise ConformanceError(f"the count of term `{term.name}` is {float(term.count)}")
    measured(loss, views).check_finite("on normal numbers")


def needs_are_true(case: ObjectiveCase) -> None:
    """Untrue `needs`: it refuses its sampler, or cannot do with the smallest batch it says it needs."""
    Method(torch.nn.Identity(), sampler=case.sampler, objective=case.objective(), similarity=case.similarity)
    least = max(case.objective().needs.min_batch, case.sampler.gives.min_batch)
    case.measure(example_views(samples=least)).check_finite(f"on the smallest batch it asks for, {least},")
    if not case.objective().needs.negatives:
        views = example_views(2).requires_grad_()
        pairs = pairs_of(Positives("forward"), case.similarity, dressed(views))
        if not measured(scored(case.objective(), pairs), views).embeddings.any():
            raise ConformanceError(
                "says it needs no negatives, and without any there is no gradient; see kontrast.Needs"
            )


def equals_the_reference(case: ObjectiveCase) -> None:
    """Another value than the one that was published or computed elsewhere."""
    if case.reference is None:
        raise NotCheckedError(
            "no reference value was given: reference={seed: value on example_views(seed)}", given=False
        )
    for seed, value in case.reference.items():
        found = case.measure(example_views(seed)).value
        if not math.isclose(found, value, rel_tol=1e-6, abs_tol=1e-9):
            raise ConformanceError(f"on example_views({seed}) the loss is {found!r} and the reference {value!r}")


def equals_the_oracle(case: ObjectiveCase) -> None:
    """Another value than the formula has when it is written once more in plain loops."""
    if case.oracle is None:
        raise NotCheckedError("no oracle was given: oracle=the formula in plain loops over lists", given=False)
    least = max(2, case.objective().needs.min_batch)
    for seed, samples in ((0, 6), (1, least), (2, 7)):
        views = example_views(seed, samples=samples)
        found, expected = case.measure(views).value, case.expected(views)
        if not math.isclose(found, expected, rel_tol=1e-7, abs_tol=1e-9):  # float32 parameters, such as a scale
            raise ConformanceError(
                f"on example_views({seed}, samples={samples}) the loss is {found!r} and the oracle's {expected!r}"
            )


def gradcheck(case: ObjectiveCase) -> None:
    """Wrong gradient, of the embeddings or of a parameter of objective or similarity."""
    objective, similarity = case.objective(), case.similarity
    views = example_views(3, samples=max(3, objective.needs.min_batch)).requires_grad_()
    try:
        similarity = learned(similarity, bias=True).double()
        scored(objective, pairs_of(case.sampler, similarity, dressed(views)))
    except IncompatibleError:  # a similarity with a learned scale is not for everyone
        similarity = case.similarity
    parameters = [p for module in (similarity, objective) for p in module.parameters() if p.requires_grad]

    def value(views: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        return scored(objective, pairs_of(case.sampler, similarity, dressed(views))).reduced().backward

    if not torch.autograd.gradcheck(value, (views, *parameters), raise_exception=False):
        raise ConformanceError("the gradient is not that of the value by finite differences (torch.autograd.gradcheck)")


def sign(case: ObjectiveCase) -> None:
    """Wrong sign: the loss does not fall when the anchors turn towards their positives."""
    if case.objective().needs.min_batch > SIZE // 2:
        raise NotCheckedError(f"samples at right angles are at most {SIZE // 2}, and it needs more")
    # Sample i and its copy lie in a plane of their own, so that nothing but their angle changes.
    axes = torch.eye(SIZE, dtype=torch.float64)
    own, across = axes[: SIZE // 2], axes[SIZE // 2 :]
    if not _orders_by_angle(case.similarity, own, across):
        raise NotCheckedError(
            "its similarity does not score a pair, and it alone, higher as the two turn to each other"
        )
    for angle in (2.2, 1.7, 1.0, 0.6):
        flat = angle < math.pi / 2  # a margin may be kept by then
        positive = math.cos(angle) * own + math.sin(angle) * across
        turned = math.cos(0.1) * own + math.sin(0.1) * across
        ids = 2 * torch.arange(SIZE // 2)  # no two of them share a label
        here, there = (case.measure(torch.stack([anchor, positive]), ids=ids) for anchor in (own, turned))
        slope = float((here.embeddings[0] * across).sum())
        if not (there.value < here.value or (flat and there.value == here.value)):
            raise ConformanceError(
                f"anchors at {angle - 0.1:.1f} rad to their positives have loss {there.value:.6g}, and at {angle} rad "
                f"{here.value:.6g}; it must fall as they come closer"
            )
        if not (slope < 0 or (flat and slope == 0)):
            raise ConformanceError(f"the gradient turns anchors away from their positives (slope {slope:.3g})")


@torch.no_grad()
def _orders_by_angle(similarity: Similarity, own: torch.Tensor, across: torch.Tensor) -> bool:
    far, near = (similarity.scores(anchors, across) for anchors in (own, (own + across) / math.sqrt(2)))
    others = ~torch.eye(len(own), dtype=torch.bool)
    return torch.allclose(far[others], near[others], atol=1e-6) and bool((near > far).diagonal().all())


def order_of_rows(case: ObjectiveCase) -> None:
    """Depends on positions: the rows in another order, with their keys, give another loss or gradient."""
    views, order = example_views(4), torch.tensor([3, 0, 5, 1, 4, 2])
    first, second = case.measure(views), case.measure(views[:, order], ids=order)
    if not math.isclose(first.value, second.value, rel_tol=1e-9, abs_tol=1e-12):
        raise ConformanceError(f"the loss is {first.value!r}, and with the rows in another order {second.value!r}")
    if not torch.allclose(first.embeddings[:, order], second.embeddings, rtol=1e-7, atol=1e-10):
        raise ConformanceError("a row's gradient changes with the order of the rows")


def deterministic(case: ObjectiveCase) -> None:
    """Not deterministic: the same pairs give another loss or gradient the second time."""
    views, objective = example_views(5), case.objective()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        first = snapshot(case.measure(views, objective=copy.deepcopy(objective)))
        torch.manual_seed(2)
        second = snapshot(case.measure(views, objective=copy.deepcopy(objective)))
    if what := difference(first, second):
        raise ConformanceError(f"a second call on the same pairs gives something else: {what}")


def forward_changes_nothing(case: ObjectiveCase) -> None:
    """Changes state in forward: it may run more than once a step; state changes in `commit` alone."""
    views, objective = example_views(6), case.objective()
    before = snapshot(objective.state_dict())
    values = [case.measure(views, objective=objective).value for _ in range(3)]
    if what := difference(before, snapshot(objective.state_dict())):
        raise ConformanceError(f"forward() changed the state: {what}")
    if len(set(values)) > 1:
        raise ConformanceError(f"the loss of the same pairs changes from call to call: {values}")


def inputs_unchanged(case: ObjectiveCase) -> None:
    """Mutates its inputs: embeddings or keys are not what they were."""
    for views in (example_views(7), example_views(7).requires_grad_() * 1.0):
        pairs = case.pairs(views)
        before = snapshot(pairs)
        scored(case.objective(), pairs)
        if what := difference(before, snapshot(pairs)):
            raise ConformanceError(f"forward() changed what it was given: {what}")


def state_continues(case: ObjectiveCase) -> None:
    """Loses state: saved and loaded in mid-run, the next steps are not those of the run that went on."""
    objective = case.objective()
    if not stateful(objective):
        raise NotCheckedError("it has no state")

    def step(part: Objective, seed: int) -> float:
        views = example_views(seed)
        value = case.measure(views, objective=part).value
        commit(part, dressed(views))
        return value

    for seed in (20, 21):
        step(objective, seed)
    other = reloaded(objective, case.objective())
    for seed in (22, 23):
        if step(objective, seed) != step(other, seed):
            raise ConformanceError("after save and load the next loss is another; put all state into the state dict")


CHECKS = (
    returns_a_loss,
    needs_are_true,
    equals_the_reference,
    equals_the_oracle,
    gradcheck,
    sign,
    order_of_rows,
    deterministic,
    forward_changes_nothing,
    inputs_unchanged,
    state_continues,
)
