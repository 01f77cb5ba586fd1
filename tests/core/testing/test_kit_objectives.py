"""The kit finds the fault in objectives that are broken on purpose, by the check that names it.

Shapes: A anchors, C candidates.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
import torch.distributed as dist
from kit_faults import caught_by, faults
from torch import Tensor

import kontrast as kt
from kontrast.testing import check_objective, example_views, objective_checks, run_checks


class Good(kt.Objective):
    """NT-Xent, right in everything; the others differ from it by one fault."""

    needs = kt.Needs(negatives=True, softmax=True)

    def __init__(self, temperature: float = 0.5) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, pairs: kt.Pairs) -> kt.Loss:
        values, valid = self.rows(pairs)
        return kt.Loss.over_rows(values, valid)

    def rows(self, pairs: kt.Pairs) -> tuple[Tensor, Tensor]:
        rows = kt.row_statistics(pairs, temperature=self.temperature)
        return rows.logsumexp - rows.positive_mean, rows.positive_count > 0

    def mean(self, pairs: kt.Pairs) -> Tensor:
        values, valid = self.rows(pairs)
        return torch.where(valid, values, 0.0).sum() / valid.sum().clamp(min=1)


class MutatesInputs(Good):
    def forward(self, pairs: kt.Pairs) -> kt.Loss:
        pairs.anchors.data.div_(pairs.anchors.norm(dim=1, keepdim=True).clamp(min=1e-12))
        return super().forward(pairs)


class WrongSign(Good):
    def rows(self, pairs: kt.Pairs) -> tuple[Tensor, Tensor]:
        values, valid = super().rows(pairs)
        return -values, valid


class MeanOfEachRank(Good):
    def forward(self, pairs: kt.Pairs) -> kt.Loss:
        return kt.Loss((kt.Term("loss", self.mean(pairs), 1.0),))


class SumOfMeans(Good):
    def forward(self, pairs: kt.Pairs) -> kt.Loss:
        return kt.Loss((kt.Term("loss", self.mean(pairs), None),))


class GradientOverWorld(Good):
    def rows(self, pairs: kt.Pairs) -> tuple[Tensor, Tensor]:
        values, valid = super().rows(pairs)
        return values.detach() + (values - values.detach()) / kt.world_size(), valid


class SumWithoutGradient(Good):
    """The mean embedding of the batch, whose gradient stops at this rank."""

    def rows(self, pairs: kt.Pairs) -> tuple[Tensor, Tensor]:
        values, valid = super().rows(pairs)
        total, count = pairs.anchors.sum(0), torch.tensor(float(len(pairs.anchors)))
        if kt.world_size() > 1:
            others = total.detach().clone()
            dist.all_reduce(others)
            total = total + others - total.detach()
        return values + (total / kt.all_sum(count)).square().sum(), valid


class OfThisRankAlone(Good):
    """A statistic of the whole batch, taken of each rank's rows."""

    def forward(self, pairs: kt.Pairs) -> kt.Loss:
        loss = super().forward(pairs)
        return kt.Loss((*loss.terms, kt.Term("spread", -pairs.anchors.var(0).sum() / 100, 1.0)))


class Random(Good):
    def rows(self, pairs: kt.Pairs) -> tuple[Tensor, Tensor]:
        values, valid = super().rows(pairs)
        return values * (1 + 0.01 * torch.rand(len(values))), valid


class OneValuePerRow(Good):
    def forward(self, pairs: kt.Pairs) -> kt.Loss:
        values, _ = self.rows(pairs)
        return kt.Loss((kt.Term("loss", values, float(len(values))),))


class NoLoss(Good):
    def forward(self, pairs: kt.Pairs) -> kt.Loss:
        return self.mean(pairs)  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


class Detached(Good):
    def rows(self, pairs: kt.Pairs) -> tuple[Tensor, Tensor]:
        values, valid = super().rows(pairs)
        return values.detach(), valid


class HalfTheGradient(Good):
    def rows(self, pairs: kt.Pairs) -> tuple[Tensor, Tensor]:
        rows = kt.row_statistics(pairs, temperature=self.temperature)
        return rows.logsumexp.detach() - rows.positive_mean, rows.positive_count > 0


class ByPosition(Good):
    def rows(self, pairs: kt.Pairs) -> tuple[Tensor, Tensor]:
        values, valid = super().rows(pairs)
        return values * torch.linspace(1, 2, len(values)), valid


class CountsEveryone(Good):
    def forward(self, pairs: kt.Pairs) -> kt.Loss:
        values, valid = self.rows(pairs)
        return kt.Loss.over_rows(torch.where(valid, values, 0.0))


class ForgetsWeights(Good):
    needs = kt.Needs(negatives=True, softmax=True, weights=True)


class WeighsTheSumAlone(Good):
    needs = kt.Needs(negatives=True, softmax=True, weights=True)

    def rows(self, pairs: kt.Pairs) -> tuple[Tensor, Tensor]:
        values, valid = super().rows(pairs)
        return pairs.weighted(values), valid


class OwnNorm(Good):
    """Scales rows by itself, and divides by zero."""

    def rows(self, pairs: kt.Pairs) -> tuple[Tensor, Tensor]:
        values, valid = super().rows(pairs)
        unit = pairs.anchors / pairs.anchors.norm(dim=1, keepdim=True)
        return values + unit.sum(1).square(), valid


class SmallNorm(Good):
    def rows(self, pairs: kt.Pairs) -> tuple[Tensor, Tensor]:
        values, valid = super().rows(pairs)
        unit = pairs.anchors / pairs.anchors.norm(dim=1, keepdim=True).clamp(min=1e-12)
        return values + unit.sum(1), valid


class Exponentials(Good):
    """Exponentials instead of their logarithms."""

    def rows(self, pairs: kt.Pairs) -> tuple[Tensor, Tensor]:
        rows = kt.row_statistics(pairs, temperature=self.temperature)
        positive = (rows.positive_mean).exp()
        return -(positive / rows.logsumexp.exp()).log(), rows.positive_count > 0


class InHalf(Good):
    def rows(self, pairs: kt.Pairs) -> tuple[Tensor, Tensor]:
        rows = kt.row_statistics(pairs, temperature=self.temperature)
        logsumexp, positive = (part.to(pairs.anchors.dtype) for part in (rows.logsumexp, rows.positive_mean))
        return logsumexp - positive, rows.positive_count > 0


class UnderAutocast(Good):
    """Multiplies before precision is seen to."""

    def __call__(self, pairs: kt.Pairs) -> kt.Loss:
        plain = super().__call__(pairs)
        spread = (pairs.anchors @ pairs.anchors.T).float().square().mean()
        return kt.Loss((*plain.terms, kt.Term("spread", spread, 1.0)))


class ByValue(Good):
    """Takes rows that are equal for one and the same."""

    def rows(self, pairs: kt.Pairs) -> tuple[Tensor, Tensor]:
        values, valid = super().rows(pairs)
        _, first = torch.unique(pairs.anchors.detach(), dim=0, return_inverse=True)
        return values * torch.bincount(first)[first], valid


class Centred(Good):
    """Has state that moves with every batch: in commit, and saved."""

    centre: Tensor
    steps: int

    def __init__(self, temperature: float = 0.5) -> None:
        super().__init__(temperature)
        self.register_buffer("centre", torch.zeros(()))
        self.steps = 0

    def rows(self, pairs: kt.Pairs) -> tuple[Tensor, Tensor]:
        values, valid = super().rows(pairs)
        return values * (1 + 0.1 * self.centre**2 + 0.01 * self.steps), valid

    def commit(self, encoded: Sequence[kt.Encoded]) -> None:
        rows = kt.stack(encoded).rows
        assert rows is not None
        self.centre = self.centre * 0.9 + rows.mean() * 0.1


class ForgetsItsSteps(Centred):
    def commit(self, encoded: Sequence[kt.Encoded]) -> None:
        super().commit(encoded)
        self.steps += 1


class MovesInForward(Centred):
    def forward(self, pairs: kt.Pairs) -> kt.Loss:
        self.centre = self.centre * 0.9 + pairs.anchors.detach().mean() * 0.1
        return super().forward(pairs)


class CountsCalls(Good):
    """Changes what no state dict shows."""

    calls = 0

    def rows(self, pairs: kt.Pairs) -> tuple[Tensor, Tensor]:
        values, valid = super().rows(pairs)
        self.calls += 1
        return values * self.calls, valid


class RefusesOne(Good):
    def forward(self, pairs: kt.Pairs) -> kt.Loss:
        if len(pairs.anchors) < 4:
            raise kt.InvalidValueError("two samples at least")
        return super().forward(pairs)


class RefusesARankOfOne(RefusesOne):
    needs = kt.Needs(negatives=True, softmax=True, min_batch=2)


class NeedsTwo(Good):
    needs = kt.Needs(negatives=True, softmax=True, min_batch=2)

    def forward(self, pairs: kt.Pairs) -> kt.Loss:
        if kt.all_sum(torch.tensor(len(pairs.anchors))) < 4:
            raise kt.InvalidValueError("two samples at least")
        return super().forward(pairs)


class NeedsMoreThanItSays(Good):
    needs = kt.Needs()


class AnchorsWithoutPositives(Good):
    def rows(self, pairs: kt.Pairs) -> tuple[Tensor, Tensor]:
        rows = kt.row_statistics(pairs, temperature=self.temperature)
        return rows.logsumexp - rows.positive_logsumexp, torch.ones(len(pairs.anchors), dtype=torch.bool)


class FirstBlockAlone(Good):
    """Does not see a queue."""

    def rows(self, pairs: kt.Pairs) -> tuple[Tensor, Tensor]:
        return super().rows(replace(pairs, blocks=pairs.blocks[:1]))


class OneBlock(Good):
    """Breaks at a queue."""

    def rows(self, pairs: kt.Pairs) -> tuple[Tensor, Tensor]:
        (block,) = pairs.blocks
        return super().rows(replace(pairs, blocks=(block,)))


class ForgetsHardness(Good):
    def rows(self, pairs: kt.Pairs) -> tuple[Tensor, Tensor]:
        return super().rows(replace(pairs, hardness=0.0))


BROKEN: dict[str, tuple[type[kt.Objective], ...]] = {
    "inputs-unchanged": (MutatesInputs,),
    "sign": (WrongSign,),
    "sums-and-counts": (MeanOfEachRank, SumOfMeans, OfThisRankAlone),
    "gradient-on-2-processes": (GradientOverWorld, SumWithoutGradient),
    "gradient-on-3-processes": (GradientOverWorld, SumWithoutGradient),
    "loss-on-2-processes": (OfThisRankAlone,),
    "loss-on-3-processes": (MeanOfEachRank, RefusesARankOfOne),
    "deterministic": (Random,),
    "returns-a-loss": (OneValuePerRow, NoLoss, Detached),
    "needs-are-true": (NeedsMoreThanItSays,),
    "gradcheck": (HalfTheGradient,),
    "order-of-rows": (ByPosition,),
    "candidates-in-blocks": (FirstBlockAlone, OneBlock),
    "hardness-is-heeded": (ForgetsHardness,),
    "anchors-without-positives": (CountsEveryone,),
    "anchor-weights": (ForgetsWeights, WeighsTheSumAlone),
    "no-positives-at-all": (AnchorsWithoutPositives,),
    "zero-vectors": (OwnNorm, SmallNorm),
    "temperatures": (Exponentials,),
    "half-precision": (InHalf,),
    "autocast": (UnderAutocast,),
    "duplicates": (ByValue,),
    "state-continues": (ForgetsItsSteps,),
    "forward-changes-nothing": (MovesInForward, CountsCalls),
    "single-sample": (RefusesOne,),
}


@faults(BROKEN)
def test_a_fault_is_caught_by_the_check_that_names_it(name: str, broken: type[kt.Objective]) -> None:
    caught_by(name, objective_checks(broken))


@pytest.mark.parametrize("right", [Good, Centred, NeedsTwo, lambda: Good(0.07)])
@pytest.mark.usefixtures("gloo")
def test_what_is_right_passes(right: Callable[[], kt.Objective]) -> None:
    report = check_objective(right)
    assert {result.state for result in report.results} <= {"passed", "not given", "not applicable"}
    assert report.state("state-continues") == ("passed" if right is Centred else "not applicable")


@pytest.mark.usefixtures("gloo")
def test_few_checks_fail_for_one_fault() -> None:
    failed = {broken: run_checks(objective_checks(broken)).failed for broken in (WrongSign, ByPosition, InHalf)}
    assert [result.check.name for result in failed[WrongSign]] == ["sign"]
    assert [result.check.name for result in failed[InHalf]] == ["half-precision"]
    assert "order-of-rows" in [result.check.name for result in failed[ByPosition]]


@pytest.mark.usefixtures("gloo")
def test_a_factor_is_named() -> None:
    says = r"the embeddings on 3 processes is not .* but 0\.3333 times it"
    caught_by("gradient-on-3-processes", objective_checks(GradientOverWorld), says)


def nt_xent(views: list[list[list[float]]], labels: list[int] | None = None) -> float:
    rows = [row for view in views for row in view]
    names = [name for _ in views for name in (labels or range(len(views[0])))]
    losses = []
    for i, anchor in enumerate(rows):
        lengths = [math.hypot(*anchor) * math.hypot(*row) for row in rows]
        logits = [
            2 * math.fsum(x * y for x, y in zip(anchor, row, strict=True)) / length
            for row, length in zip(rows, lengths, strict=True)
        ]
        others = [k for k in range(len(rows)) if k != i]
        total = math.log(math.fsum(math.exp(logits[k]) for k in others))
        positives = [logits[k] for k in others if names[k] == names[i]]
        losses.append(total - math.fsum(positives) / len(positives))
    return math.fsum(losses) / len(losses)


def test_an_oracle_and_a_reference_decide() -> None:
    value = nt_xent(example_views(3).tolist())
    for reference, sampler in (({3: value}, None), (None, kt.InBatch(match="labels"))):
        checks = objective_checks(Good, oracle=nt_xent, reference=reference, sampler=sampler)
        report = run_checks(check for check in checks if check.name.startswith("equals-the-"))
        assert report.state("equals-the-oracle") == "passed"
        assert report.state("equals-the-reference") == ("passed" if reference else "not given")
    wrong = objective_checks(Good(0.4), oracle=nt_xent, reference={3: 1.25})
    caught_by("equals-the-oracle", wrong, says=r"on example_views\(0, samples=6\) the loss is")
    caught_by("equals-the-reference", wrong, says=r"on example_views\(3\) the loss is .* 1\.25")


@pytest.mark.parametrize(
    ("sampler", "similarity"),
    [
        (kt.HardNegatives(kt.InBatch()), None),  # others: tests/plugins/test_conformance.py
        (None, kt.Dot()),
        (None, kt.Bilinear(8)),
        (None, kt.NegativeDistance()),
    ],
)
@pytest.mark.usefixtures("gloo")
def test_with_another_sampler_or_similarity(sampler: kt.PairSampler | None, similarity: kt.Similarity | None) -> None:
    check_objective(Good, sampler=sampler, similarity=similarity)


class Known(WrongSign):
    expected_failures: ClassVar[dict[str, str]] = {"sign": "it is meant to be maximised"}


@pytest.mark.usefixtures("gloo")
def test_a_class_may_carry_its_expected_failures() -> None:
    assert check_objective(Known).state("sign") == "expected failure"
    assert check_objective(WrongSign, expected_failures={"sign": "known"}).state("sign") == "expected failure"
