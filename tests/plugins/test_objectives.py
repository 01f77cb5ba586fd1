"""Objectives against their papers' formulas in plain loops over Python floats, in closed form, and at the edges.

Shapes: V views, N samples, D embedding size.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

import kontrast as kt
from kontrast.plugins.objectives import CosineRegression, InfoNCE, NTXent, VICReg

Vector = list[float]
Views = list[list[Vector]]  # [V][N][D]


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dot(first: Vector, second: Vector) -> float:
    return math.fsum(x * y for x, y in zip(first, second, strict=True))


def cosine(first: Vector, second: Vector) -> float:
    lengths = math.sqrt(dot(first, first) * dot(second, second))
    return dot(first, second) / lengths if lengths else 0.0


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def contrastive(views: Views, temperature: float, labels: list[int] | None, *, others_in_denominator: bool) -> float:
    """NT-Xent (SimCLR, eq. 1) over the positive pairs (i, j) of the stacked rows; else InfoNCE (CPC, eq. 4).

    With labels the positives are those of one label, and -1 is like nothing; an anchor without any does not count.
    """
    names = list(range(len(views[0]))) if labels is None else labels
    rows = [(name, row) for view in views for name, row in zip(names, view, strict=True)]
    losses = []
    for i, (name, anchor) in enumerate(rows):
        positives = [j for j, (other, _) in enumerate(rows) if j != i and other == name != -1]
        weights = [math.exp(cosine(anchor, row) / temperature) for _, row in rows]
        denominators = [
            math.fsum(
                weight
                for k, weight in enumerate(weights)
                if k == j or (k != i and (others_in_denominator or k not in positives))
            )
            for j in positives
        ]
        if positives:
            losses.append(mean([-math.log(weights[j] / d) for j, d in zip(positives, denominators, strict=True)]))
    return mean(losses)


def nt_xent(views: Views, labels: list[int] | None = None) -> float:
    return contrastive(views, 0.5, labels, others_in_denominator=True)


def info_nce(views: Views, labels: list[int] | None = None) -> float:
    return contrastive(views, 0.1, labels, others_in_denominator=False)


def cosine_regression(views: Views) -> float:
    """BYOL, eq. 2: the squared distance of the unit vectors, over all ordered pairs of views."""

    def unit(row: Vector) -> Vector:
        length = math.sqrt(dot(row, row))
        return [x / length for x in row]

    losses = []
    for v, first in enumerate(views):
        for w, second in enumerate(views):
            if v == w:
                continue
            for a, c in zip(first, second, strict=True):
                losses.append(math.fsum((x - y) ** 2 for x, y in zip(unit(a), unit(c), strict=True)))
    return mean(losses)


def vicreg(views: Views) -> float:
    """VICReg, algorithm 1 with its mean over dimensions; over the pairs of views v < w."""

    def spread(rows: list[Vector]) -> float:
        count, size = len(rows), len(rows[0])
        centre = [mean([row[d] for row in rows]) for d in range(size)]

        def cov(d: int, e: int) -> float:
            return math.fsum((row[d] - centre[d]) * (row[e] - centre[e]) for row in rows) / (count - 1)

        variance = mean([max(0.0, 1 - math.sqrt(cov(d, d) + 1e-4)) for d in range(size)])
        covariance = math.fsum(cov(d, e) ** 2 for d in range(size) for e in range(size) if d != e) / size
        return 25 * variance + 1 * covariance

    losses = []
    for w, second in enumerate(views):
        for first in views[:w]:
            error = mean([(x - y) ** 2 for a, c in zip(first, second, strict=True) for x, y in zip(a, c, strict=True)])
            losses.append(25 * error + spread(first) + spread(second))
    return mean(losses)


@dataclass(frozen=True)
class Case:
    objective: kt.Objective
    sampler: kt.PairSampler
    oracle: Callable[..., float]

    def loss(self, *views: Tensor) -> kt.Loss:
        """Return what a method makes of these embeddings."""
        pairs = self.sampler.pairs(kt.embedded(*views))
        return kt.Loss.sum_of([self.objective(part).scaled(part.weight) for part in pairs])

    def value(self, *views: Tensor) -> float:
        return float(self.loss(*views).reduced().value)

    def gradient(self, rows: Tensor) -> Tensor:
        return torch.autograd.grad(self.loss(*rows).reduced().backward, rows)[0]


CASES = {
    "nt-xent": Case(NTXent(), kt.InBatch(), nt_xent),
    "info-nce": Case(InfoNCE(), kt.InBatch(), info_nce),
    "cosine-regression": Case(CosineRegression(), kt.Positives(), cosine_regression),
    "vicreg": Case(VICReg(), kt.Positives("forward"), vicreg),
}
CONTRASTIVE = ["nt-xent", "info-nce"]
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
contrastive_case = pytest.mark.parametrize("case", [CASES[name] for name in CONTRASTIVE], ids=CONTRASTIVE)


@every_case
@pytest.mark.parametrize(("views", "samples", "size"), [(2, 2, 1), (2, 5, 3), (3, 4, 6), (4, 2, 3)])
def test_equals_the_paper(case: Case, views: int, samples: int, size: int) -> None:
    rows = normal(views, samples, size, seed=samples)
    case.objective.check(case.sampler)
    assert case.value(*rows) == pytest.approx(case.oracle(rows.tolist()), rel=1e-12)


@every_case
@pytest.mark.parametrize("views", [2, 3])
def test_gradcheck(case: Case, views: int) -> None:
    rows = normal(views, 4, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: case.loss(*x).reduced().backward, rows)


@contrastive_case
def test_labels_make_several_positives_or_none(case: Case) -> None:
    labels = [0, 2, 0, -1, 0]
    rows = normal(2, 5, 3, seed=15).requires_grad_()
    pairs = kt.InBatch(match="labels").pairs(kt.embedded(*rows, labels=torch.tensor(labels)))[0]
    reduced = case.objective(pairs).reduced()
    assert float(reduced.value) == pytest.approx(case.oracle(rows.tolist(), labels), rel=1e-12)
    assert torch.autograd.grad(reduced.backward, rows)[0].isfinite().all()


@pytest.mark.parametrize("views", ["all", "cross"])
def test_one_positive_makes_nt_xent_and_info_nce_one(views: kt.sampler.ViewPairing) -> None:
    pairs = kt.InBatch(views).pairs(kt.embedded(*normal(2, 5, 3, seed=2)))
    for part in pairs:
        values = [float(objective(part).reduced().value) for objective in (NTXent(0.2), InfoNCE(0.2))]
        assert values[0] == pytest.approx(values[1], rel=1e-12)


def test_a_log_weight_counts_on_the_positive_too() -> None:
    part = kt.InBatch("forward").pairs(kt.embedded(*normal(2, 5, 3, seed=2)))[0]
    weighted = replace(part, blocks=(replace(part.blocks[0], log_weights=normal(5, seed=3)),))
    values = [float(objective(weighted).reduced().value) for objective in (NTXent(0.2), InfoNCE(0.2))]
    assert values[0] == pytest.approx(values[1], rel=1e-12)


@pytest.mark.parametrize("samples", [1, 2, 7])
def test_identical_embeddings(samples: int) -> None:
    rows = normal(1, 3, seed=4).expand(samples, 3)
    for name in CONTRASTIVE:
        assert CASES[name].value(rows, rows) == pytest.approx(math.log(2 * samples - 1), abs=1e-12)
    assert CASES["nt-xent"].value(rows, rows, rows) == pytest.approx(math.log(3 * samples - 1), abs=1e-12)
    assert CASES["info-nce"].value(rows, rows, rows) == pytest.approx(math.log(1 + 3 * (samples - 1)), abs=1e-12)
    assert CASES["cosine-regression"].value(rows, rows) == pytest.approx(0.0, abs=1e-12)
    if samples > 1:
        assert CASES["vicreg"].value(rows, rows) == pytest.approx(25 * 2 * (1 - 0.01))  # sqrt(eps) = 0.01 of spread


def test_orthogonal_samples() -> None:
    rows = torch.eye(5, dtype=torch.float64)
    for name, temperature in (("nt-xent", 0.5), ("info-nce", 0.1)):
        expected = math.log(math.exp(1 / temperature) + 2 * 5 - 2) - 1 / temperature
        assert CASES[name].value(rows, rows * 3) == pytest.approx(expected, rel=1e-9)
    assert CASES["cosine-regression"].value(rows, rows.roll(1, 0)) == pytest.approx(2.0)
    assert CASES["cosine-regression"].value(rows, -rows) == pytest.approx(4.0)


def test_spread_and_uncorrelated_views_cost_vicreg_their_distance() -> None:
    rows = torch.tensor([[1, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)
    assert CASES["vicreg"].value(rows, rows) == 0.0
    assert CASES["vicreg"].value(rows, rows + 0.5) == pytest.approx(25 * 0.25)
    doubled = rows[:, :1].expand(4, 2)  # both columns say the same: cov = 4/3 twice, over D = 2
    assert CASES["vicreg"].value(doubled, doubled) == pytest.approx(2 * (4 / 3) ** 2)


@every_case
def test_the_loss_falls_as_positives_come_closer(case: Case) -> None:
    def apart(distance: float) -> float:
        first = torch.eye(4, 8, dtype=torch.float64)
        if isinstance(case.objective, VICReg):
            return case.value(first, first + distance)  # a common shift leaves variance and covariance alone
        return case.value(first, math.cos(distance) * first + math.sin(distance) * first.roll(4, 1))

    losses = [apart(distance) for distance in (1.5, 1.0, 0.5, 0.0)]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > losses[-1] + 0.1


@every_case
def test_the_order_of_samples_does_not_matter(case: Case) -> None:
    rows = normal(3, 6, 4, seed=5)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(6))
    assert case.value(*rows[:, order]) == pytest.approx(case.value(*rows), rel=1e-12)


@contrastive_case
def test_one_sample_has_nothing_to_be_told_from(case: Case) -> None:
    rows = normal(2, 1, 3, seed=7).requires_grad_()
    assert case.value(*rows) == pytest.approx(0.0, abs=1e-12)
    assert case.gradient(rows).abs().max() < 1e-12


def test_one_sample_is_enough_without_negatives_and_too_few_for_a_variance() -> None:
    rows = normal(2, 1, 3, seed=7)
    assert CASES["cosine-regression"].value(*rows) == pytest.approx(cosine_regression(rows.tolist()))
    with pytest.raises(kt.InvalidValueError, match="VICReg needs at least 2 pairs in a batch for a variance, got 1"):
        CASES["vicreg"].value(*rows)


@every_case
def test_duplicated_samples_are_not_one_sample(case: Case) -> None:
    rows = normal(2, 3, 4, seed=8)[:, [0, 1, 2, 0, 0]]
    assert case.value(*rows) == pytest.approx(case.oracle(rows.tolist()), rel=1e-12)


@every_case
@pytest.mark.parametrize("which", [(slice(None), slice(None)), (0, 1), (slice(None), 0)], ids=["all", "one", "sample"])
def test_zero_vectors(case: Case, which: tuple[int | slice, int | slice]) -> None:
    rows = normal(2, 4, 3, seed=9)
    rows[which] = 0
    zero = (rows == 0).all(-1)
    assert math.isfinite(case.value(*rows))
    gradient = case.gradient(rows.requires_grad_())
    assert gradient.isfinite().all()
    if not isinstance(case.objective, VICReg):  # which does not scale to length 1
        assert not gradient[zero].any()


@every_case
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [1.0, 100.0])  # at 100 squared norms are beyond float16
def test_half_embeddings(case: Case, dtype: torch.dtype, scale: float) -> None:
    rows = (normal(2, 12, 16, seed=10) * scale).to(dtype)
    assert case.value(*rows) == pytest.approx(case.oracle(rows.tolist()), rel=1e-5)


def test_half_embeddings_are_counted_exactly() -> None:
    rows = normal(2, 301, 2, seed=11).bfloat16()  # 301 is no bfloat16
    assert CASES["vicreg"].value(*rows) == pytest.approx(vicreg(rows.tolist()), rel=1e-4)


@every_case
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_half_gradients(case: Case, dtype: torch.dtype) -> None:
    rows = normal(2, 12, 16, seed=12).to(dtype)
    exact = case.gradient(rows.double().requires_grad_())
    error = case.gradient(rows.requires_grad_()).double() - exact
    assert error.norm() / exact.norm() < (1e-2 if dtype == torch.bfloat16 else 1e-5)


@every_case
def test_autocast_changes_nothing(case: Case) -> None:
    rows = normal(2, 12, 16, seed=13).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = case.value(*rows)
    assert value == pytest.approx(case.value(*rows), rel=1e-6)


@every_case
def test_inputs_are_left_as_they_were(case: Case) -> None:
    rows = normal(2, 4, 3, seed=14)
    before = rows.clone()
    case.gradient(rows.requires_grad_())
    assert torch.equal(rows, before)


@pytest.mark.parametrize("objective", [NTXent, InfoNCE])
@pytest.mark.parametrize("temperature", [0.0, -0.1, math.nan])
def test_a_temperature_must_be_positive(objective: type[NTXent] | type[InfoNCE], temperature: float) -> None:
    with pytest.raises(kt.InvalidValueError, match=rf"`temperature` must be > 0, got {temperature!r}"):
        objective(temperature)


@pytest.mark.parametrize("name", ["invariance", "variance", "covariance", "eps"])
@pytest.mark.parametrize("value", [-1.0, math.nan])
def test_vicreg_refuses_negative_parameters(name: str, value: float) -> None:
    with pytest.raises(kt.InvalidValueError, match=rf"`{name}` must be >=? 0, got {value!r}"):
        VICReg(**{name: value})


@contrastive_case
def test_no_negatives_are_refused_by_a_sentence(case: Case) -> None:
    sentence = (
        f"{type(case.objective).__name__} needs negatives, and the sampler Positives gives none; take kontrast.In"
    )
    with pytest.raises(kt.IncompatibleError, match=sentence):
        case.objective.check(kt.Positives())
    with pytest.raises(kt.IncompatibleError, match=sentence):
        kt.Method(torch.nn.Linear(3, 2), sampler=kt.Positives(), objective=case.objective)
    case.objective.check(kt.Queue(kt.Positives(), size=2))  # what the sentence advises
