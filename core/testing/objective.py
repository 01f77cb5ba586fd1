"""The conformance checks of objectives: the subject, its list of checks, and the function that runs them all.

Shapes: V views, N samples, D embedding size.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kontrast import (
    Cosine,
    InBatch,
    IncompatibleError,
    Objective,
    ObjectiveRecord,
    Pairs,
    PairSampler,
    Positives,
    Similarity,
)

from .checks import Check, Report, checks_of, run_checks
from .scene import Measured, commit, dressed, example_views, failures_of, made, measured, pairs_of, scored, stateful

__all__ = ["ObjectiveCase", "Oracle", "check_objective", "objective_checks"]

Oracle = Callable[..., float]


class ObjectiveCase:
    """An objective with the sampler and similarity it is checked with, in float64.

    Args:
        subject: an objective, its registered name, or what makes one.
        reference: see `check_objective`, like the rest.
        oracle: likewise.
        sampler: likewise.
        similarity: likewise.
    """

    def __init__(
        self,
        subject: Any,
        reference: Mapping[int, float] | None,
        oracle: Oracle | None,
        sampler: PairSampler | None,
        similarity: Similarity | None,
    ) -> None:
        self.name, self.factory, made_now = made(subject, ObjectiveRecord, Objective, {})  # type: ignore[type-abstract]
        self._objective = copy.deepcopy(made_now)
        self.reference, self.oracle = reference, oracle
        wanted: type[Similarity] = made_now.needs.similarity or Cosine
        self.similarity = copy.deepcopy(wanted() if similarity is None else similarity).double()
        self.sampler = copy.deepcopy(_fitting(made_now) if sampler is None else sampler).double()
        if stateful(self.sampler):  # a queue with something in it
            commit(self.sampler, dressed(example_views(1000), torch.arange(1000, 1006)))
        self.kept: dict[Any, Any] = {}  # what several checks read

    def objective(self) -> Objective:
        """Return a copy of the objective, in float64."""
        return copy.deepcopy(self._objective).double()

    def pairs(self, views: Tensor | Sequence[Tensor], ids: Tensor | None = None) -> list[Pairs]:
        """Return the sampler's pairs of these embeddings."""
        return pairs_of(self.sampler, self.similarity, dressed(views, ids))

    def measure(self, views: Tensor, *, ids: Tensor | None = None, objective: Objective | None = None) -> Measured:
        """Return loss and gradients of embeddings [V, N, D]."""
        objective = self.objective() if objective is None else objective
        views = views.detach().requires_grad_()
        return measured(scored(objective, self.pairs(views, ids)), views, self.similarity, objective)

    def measure_pairs(self, make: Callable[[Tensor], Pairs], views: Tensor) -> Measured:
        """Return loss and gradients of pairs that are made of embeddings [V, N, D] otherwise."""
        views = views.detach().requires_grad_()
        return measured(scored(self.objective(), [make(views)]), views, self.similarity)

    def expected(self, views: Tensor, ids: Tensor | None = None) -> float:
        """Return the oracle's value; where positives are matched by label it is told the labels."""
        assert self.oracle is not None
        by_label = self.pairs(views, ids)[0].match == "labels"
        more = {"labels": dressed(views, ids)[0].key("labels").tolist()} if by_label else {}
        return float(self.oracle(views.tolist(), **more))


def _fitting(objective: Objective) -> PairSampler:
    """Return a plain sampler that the objective accepts: each view one side where it needs no negatives."""
    if not objective.needs.negatives:
        return Positives("forward")
    for sampler in (InBatch(), InBatch("forward")):
        try:
            objective.check(sampler)
        except IncompatibleError:
            continue
        return sampler
    return InBatch()  # the check of its needs says what is wrong


def objective_checks(
    subject: Any,
    *,
    reference: Mapping[int, float] | None = None,
    oracle: Oracle | None = None,
    sampler: PairSampler | None = None,
    similarity: Similarity | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> list[Check]:
    """Return the checks that `check_objective` runs, with its arguments; for `parametrize_with_checks`."""
    from . import objective_edges, objective_pairs, objective_ranks, objective_values

    case = ObjectiveCase(subject, reference, oracle, sampler, similarity)
    functions = (
        *objective_values.CHECKS,
        *objective_pairs.CHECKS,
        *objective_edges.CHECKS,
        *objective_ranks.CHECKS,
    )
    expected = failures_of(case.objective(), expected_failures)
    return checks_of(f"objective {case.name}", functions, case, expected)


def check_objective(
    subject: Any,
    *,
    reference: Mapping[int, float] | None = None,
    oracle: Oracle | None = None,
    sampler: PairSampler | None = None,
    similarity: Similarity | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> Report:
    """Hold an objective to what the interface promises; about a second, the first time a few more.

    ``check_objective("my-loss", oracle=my_loss_in_plain_loops)``

    Args:
        subject: an objective, its registered name, or a class or function that makes one.
        reference: seed -> value that the loss has on `example_views(seed)`.
        oracle: the formula once more, in float64 and independent of the objective: nested lists `[V][N][D]` (and
            `labels=`, a list [N], where the sampler matches by labels) -> value.
        sampler: what makes the pairs; by default `InBatch()`, or `Positives("forward")` where no negatives are needed.
        similarity: by default the one it needs, else the cosine.
        expected_failures: by the name of a check, why it fails; one that passes is a failure. A class may carry
            further ones as its attribute `expected_failures`.

    Returns:
        The report, where no check failed.

    Raises:
        ConformanceError: names every check that failed, with what was found.
    """
    report = run_checks(
        objective_checks(
            subject,
            reference=reference,
            oracle=oracle,
            sampler=sampler,
            similarity=similarity,
            expected_failures=expected_failures,
        )
    )
    report.raise_failures()
    return report
