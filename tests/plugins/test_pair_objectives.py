"""Every objective on pairs against its paper's formula, in plain loops over Python floats, for any relation.

Shapes: V views, N samples, D embedding size.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from gloo import GlooPool
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import kontrast as kt
from kontrast import Block, Keys, exponentials, listing, walk
from kontrast.plugins import objectives as O

Vector = list[float]


@dataclass(frozen=True)
class Row:
    """One anchor: its positives and negatives as (score, the other embedding)."""

    anchor: Vector
    positives: list[tuple[float, Vector]]
    negatives: list[tuple[float, Vector]]

    @property
    def p(self) -> list[float]:
        return [score for score, _ in self.positives]

    @property
    def n(self) -> list[float]:
        return [score for score, _ in self.negatives]


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dot(a: Vector, c: Vector) -> float:
    return math.fsum(x * y for x, y in zip(a, c, strict=True))


def cosine(a: Vector, c: Vector) -> float:
    lengths = math.sqrt(dot(a, a) * dot(c, c))
    return dot(a, c) / lengths if lengths else 0.0


def minus_distance(a: Vector, c: Vector) -> float:
    return -math.sqrt(math.fsum((x - y) ** 2 for x, y in zip(a, c, strict=True)))


def table(
    views: Sequence[Sequence[Vector]], score: Callable[[Vector, Vector], float], labels: Sequence[int] | None, how: str
) -> list[Row]:
    """Return who is compared with whom: all rows with all others, or the first view's with the second's."""
    names = list(range(len(views[0]))) if labels is None else labels
    rows = [(n, name, row) for view in views for n, (name, row) in enumerate(zip(names, view, strict=True))]
    half = len(views[0])
    found = []
    for i, (sample, name, anchor) in enumerate(rows[:half] if how == "forward" else rows):
        positives, negatives = [], []
        for j, (other_sample, other, row) in enumerate(rows):
            if j == i or (how == "forward" and j < half):
                continue
            if name == other != -1:
                positives.append((score(anchor, row), row))
            elif sample != other_sample:
                negatives.append((score(anchor, row), row))
        found.append(Row(anchor, positives, negatives))
    return found


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def exps(values: Sequence[float], t: float) -> float:
    return math.fsum(math.exp(value / t) for value in values)


def softplus(x: float) -> float:
    return math.log1p(math.exp(-abs(x))) + max(x, 0.0)


def info_nce(rows: list[Row], t: float = 0.1) -> float:
    return mean([mean([-math.log(exps([p], t) / (exps([p], t) + exps(r.n, t))) for p in r.p]) for r in rows if r.p])


def nt_xent(rows: list[Row], t: float = 0.5) -> float:
    return mean([mean([-math.log(exps([p], t) / (exps(r.p, t) + exps(r.n, t))) for p in r.p]) for r in rows if r.p])


def sup_con_in(rows: list[Row], t: float = 0.1) -> float:
    return mean([-math.log(exps(r.p, t) / len(r.p) / (exps(r.p, t) + exps(r.n, t))) for r in rows if r.p])


def dcl(rows: list[Row], t: float = 0.1) -> float:
    return mean([mean([-p / t + math.log(exps(r.n, t)) for p in r.p]) for r in rows if r.p and r.n])


def dclw(rows: list[Row], t: float = 0.1, sigma: float = 0.5) -> float:
    average = mean([math.exp(p / sigma) for r in rows for p in r.p])
    return mean(
        [
            mean([-(2 - math.exp(p / sigma) / average) * p / t + math.log(exps(r.n, t)) for p in r.p])
            for r in rows
            if r.p and r.n
        ]
    )


def n_pair(rows: list[Row], weight: float = 0.002) -> float:
    losses = [mean([math.log(1 + math.fsum(math.exp(n - p) for n in r.n)) for p in r.p]) for r in rows if r.p]
    lengths = [(dot(r.anchor, r.anchor) + dot(row, row)) / 2 for r in rows for _, row in r.positives]
    return mean(losses) + weight * mean(lengths)


def siglip(rows: list[Row]) -> float:
    def logit(score: float) -> float:
        return score / 0.1 - 10

    return mean([math.fsum([softplus(-logit(p)) for p in r.p] + [softplus(logit(n)) for n in r.n]) for r in rows])


def temperature_free(rows: list[Row]) -> float:
    def logit(c: float) -> float:
        c = min(max(c, -1 + 1e-6), 1 - 1e-6)
        return math.log((1 + c) / (1 - c))

    return info_nce(
        [Row(r.anchor, [(logit(p), v) for p, v in r.positives], [(logit(n), v) for n, v in r.negatives]) for r in rows],
        1.0,
    )


def alignment_uniformity(rows: list[Row]) -> float:
    align = mean([2 - 2 * p for r in rows for p in r.p])
    potentials = [math.exp(-2 * (2 - 2 * n)) for r in rows for n in r.n]
    return align + (math.log(mean(potentials)) if potentials else 0.0)


def positive_unlabelled(rows: list[Row], prior: float = 0.05) -> float:
    rest = [prior * softplus(-n) + (1 - prior) * softplus(n) for r in rows for n in r.n]
    return mean([softplus(-p) for r in rows for p in r.p]) + mean(rest)


def jensen_shannon(rows: list[Row]) -> float:
    return mean([softplus(-p) for r in rows for p in r.p]) + mean([softplus(n) for r in rows for n in r.n])


def pairwise(rows: list[Row], margin: float = 1.0) -> float:
    pull = mean([p**2 / 2 for r in rows for p in r.p])
    return pull + mean([max(0.0, margin + n) ** 2 / 2 for r in rows for n in r.n])


def triplet(rows: list[Row], margin: float = 0.2) -> float:
    return mean([max(0.0, n - p + margin) for r in rows for p in r.p for n in r.n])


def soft_triplet(rows: list[Row]) -> float:
    return mean([softplus(n - p) for r in rows for p in r.p for n in r.n])


@dataclass(frozen=True)
class Case:
    objective: kt.Objective
    oracle: Callable[[list[Row]], float]
    score: Callable[[Vector, Vector], float] = cosine
    similarity: Callable[[], kt.Similarity] = kt.Cosine

    def pairs(self, views: Tensor, labels: Tensor | None = None, how: str = "all") -> kt.Pairs:
        sampler = kt.InBatch("forward" if how == "forward" else "all", match="ids" if labels is None else "labels")
        encoded = [replace(view, similarity=self.similarity()) for view in kt.embedded(*views, labels=labels)]
        (pairs,) = sampler.pairs(encoded)
        return pairs

    def value(self, pairs: kt.Pairs) -> float:
        return float(self.objective(pairs).reduced().value)


CASES = {
    "info-nce": Case(O.InfoNCE(), info_nce),
    "nt-xent": Case(O.NTXent(), nt_xent),
    "sup-con": Case(O.SupCon(), lambda rows: nt_xent(rows, 0.1)),
    "sup-con in": Case(O.SupCon(form="in"), sup_con_in),
    "dcl": Case(O.DCL(), dcl),
    "dclw": Case(O.DCLW(), dclw),
    "graphcl": Case(O.GraphCLContrast(), lambda rows: dcl(rows, 0.2)),
    "n-pair": Case(O.NPair(), n_pair, dot, kt.Dot),
    "siglip": Case(O.SigLIP(), siglip, cosine, lambda: kt.LearnedTemperature(initial=0.1, bias=-10.0).double()),
    "temperature-free": Case(O.TemperatureFreeInfoNCE(), temperature_free),
    "alignment-uniformity": Case(O.AlignmentUniformity(), alignment_uniformity),
    "positive-unlabelled": Case(O.PositiveUnlabelled(), positive_unlabelled, dot, kt.Dot),
    "jensen-shannon": Case(O.JensenShannon(), jensen_shannon, dot, kt.Dot),
    "pairwise-contrastive": Case(O.PairwiseContrastive(), pairwise, minus_distance, kt.NegativeDistance),
    "triplet": Case(O.Triplet(), triplet),
    "triplet of distances": Case(O.Triplet(0.5), lambda rows: triplet(rows, 0.5), minus_distance, kt.NegativeDistance),
    "soft-triplet": Case(O.SoftTriplet(), soft_triplet),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
LABELS = [0, 2, 0, -1, 0, 5, 2]


@every_case
@pytest.mark.parametrize("how", ["all", "forward"])
@pytest.mark.parametrize(("views", "samples", "size"), [(2, 2, 2), (2, 6, 3), (3, 4, 5)])
def test_equals_the_paper(case: Case, views: int, samples: int, size: int, how: str) -> None:
    if how == "forward" and views > 2:
        return  # one Pairs for each couple of views: two say it
    rows = normal(views, samples, size, seed=samples)
    expected = case.oracle(table(rows.tolist(), case.score, None, how))
    assert case.value(case.pairs(rows, how=how)) == pytest.approx(expected, rel=1e-7)


@every_case
@pytest.mark.parametrize("many", [False, True])
def test_labels_make_several_positives_or_none(case: Case, many: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if many:  # what is listed below a limit is found in tiles above it
        monkeypatch.setattr(listing, "FEW", 0)
    rows = normal(2, len(LABELS), 3, seed=15)
    expected = case.oracle(table(rows.tolist(), case.score, LABELS, "all"))
    assert case.value(case.pairs(rows, torch.tensor(LABELS))) == pytest.approx(expected, rel=1e-7)


@every_case
@pytest.mark.parametrize("labels", [None, LABELS])
@pytest.mark.parametrize("how", ["all", "forward"])
def test_an_anchor_of_weight_n_counts_as_n_anchors(case: Case, labels: list[int] | None, how: str) -> None:
    views = normal(2, len(LABELS), 3, seed=16)
    rows = table(views.tolist(), case.score, labels, how)
    weights = [2, 1, 0, 3, 1, 0, 2] * (len(rows) // len(LABELS))
    expected = case.oracle([row for row, weight in zip(rows, weights, strict=True) for _ in range(weight)])
    pairs = case.pairs(views, None if labels is None else torch.tensor(labels), how=how)
    found = case.value(replace(pairs, anchor_weights=0.25 * torch.tensor(weights).double()))
    assert found == pytest.approx(expected, rel=1e-7)


@every_case
@pytest.mark.parametrize("labelled", [False, True])
def test_gradcheck(case: Case, labelled: bool) -> None:
    rows = normal(2, 4, 3, seed=1).requires_grad_()
    labels = torch.tensor([0, 1, 0, -1]) if labelled else None

    def loss(x: Tensor) -> Tensor:
        return case.objective(case.pairs(x, labels)).reduced().backward

    assert torch.autograd.gradcheck(loss, rows)


@every_case
def test_the_loss_falls_as_a_positive_comes_closer(case: Case) -> None:
    def apart(angle: float) -> float:
        first = torch.eye(4, 8, dtype=torch.float64)  # whatever the angle, every negative is at a right angle
        second = math.cos(angle) * first + math.sin(angle) * first.roll(4, 1)
        return case.value(case.pairs(torch.stack([first, second]), how="forward"))

    # The triplet of distances has its margin, half a unit, only beyond 0.9 of a distance.
    losses = [apart(angle) for angle in (2.0, 1.7, 1.4, 1.1)]
    assert all(further > closer + 1e-3 for further, closer in itertools.pairwise(losses))


@every_case
def test_the_order_of_samples_does_not_matter(case: Case) -> None:
    rows = normal(3, 6, 4, seed=5)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(6))
    assert case.value(case.pairs(rows[:, order])) == pytest.approx(case.value(case.pairs(rows)), rel=1e-9)


@every_case
def test_zero_vectors_and_duplicates(case: Case) -> None:
    rows = normal(2, 4, 3, seed=9)
    rows[:, 2] = rows[:, 1]
    rows[0, 0] = 0
    rows.requires_grad_()
    loss = case.objective(case.pairs(rows)).reduced()
    expected = case.oracle(table(rows.tolist(), case.score, None, "all"))
    assert float(loss.value) == pytest.approx(expected, rel=1e-6)
    (gradient,) = torch.autograd.grad(loss.backward, rows)
    assert gradient.isfinite().all()
    if case.score is cosine:
        assert not gradient[0, 0].any()


@every_case
@pytest.mark.parametrize("labels", [None, [3, 3, 3], [-1, -1, -1]], ids=["one sample", "one class", "no class"])
def test_no_negatives_or_no_positives_at_all(case: Case, labels: list[int] | None) -> None:
    rows = normal(2, 1 if labels is None else 3, 4, seed=7).requires_grad_()
    told = None if labels is None else torch.tensor(labels)
    loss = case.objective(case.pairs(rows, told)).reduced()
    expected = case.oracle(table(rows.tolist(), case.score, labels, "all"))
    assert float(loss.value) == pytest.approx(expected, rel=1e-6, abs=1e-12)
    (gradient,) = torch.autograd.grad(loss.backward, rows)
    assert gradient.isfinite().all()


def _two_blocks(case: Case, rows: Tensor, weights: Tensor) -> kt.Pairs:
    """Return anchors 0, 1, 2 against all of the second view by label, and against slots of the first by an index."""
    labels, similarity = torch.tensor([0, 1, 0, 2, -1]), case.similarity()
    anchors = rows[0, :3]
    shared = Block(anchors, rows[1], Keys(match=labels[:3]), Keys(match=labels), log_weights=weights)
    index = torch.tensor([[3, 4], [0, 2], [1, 1]])
    match = torch.where(torch.tensor([[False, False], [False, True], [False, False]]), labels[:3, None], -1)
    indexed = Block(anchors, rows[0], Keys(match=labels[:3]), Keys(match=match), index=index)
    return kt.Pairs((shared, indexed), similarity)


@every_case
@pytest.mark.parametrize("many", [False, True])
def test_blocks_an_index_and_candidates_left_out(case: Case, many: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if many:
        monkeypatch.setattr(listing, "FEW", 0)
    rows = normal(2, 5, 3, seed=31).requires_grad_()
    weights = torch.tensor([0.0, 0.0, -math.inf, -math.inf, 0.0], dtype=torch.float64)
    loss = case.objective(_two_blocks(case, rows, weights)).reduced()
    first, second = rows.tolist()
    found = [  # by (positives, negatives): candidates 2 and 3 of the second view are left out
        ([second[0]], [second[1], second[4], first[3], first[4]]),
        ([second[1], first[2]], [second[0], second[4], first[0]]),
        ([second[0]], [second[1], second[4], first[1], first[1]]),
    ]
    expected = case.oracle(
        [
            Row(anchor, *([(case.score(anchor, row), row) for row in kind] for kind in kinds))
            for anchor, kinds in zip(first, found, strict=False)
        ]
    )
    assert float(loss.value) == pytest.approx(expected, rel=1e-7)
    (gradient,) = torch.autograd.grad(loss.backward, rows)
    assert gradient.isfinite().all()
    assert not gradient[1, 2:4].any()


# Those that read the negatives by a log-sum-exp, with the temperature of their logits.
SOFTMAX = {
    "info-nce": 0.1,
    "nt-xent": 0.5,
    "sup-con": 0.1,
    "sup-con in": 0.1,
    "dcl": 0.1,
    "dclw": 0.1,
    "graphcl": 0.2,
    "n-pair": 1.0,
}


@pytest.mark.parametrize("name", SOFTMAX)
@pytest.mark.parametrize("many", [False, True])
def test_log_weights_multiply_exponentials(name: str, many: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if many:
        monkeypatch.setattr(listing, "FEW", 0)
    case, rows, weights = CASES[name], normal(2, 5, 3, seed=32), normal(5, seed=33)
    first, second = rows.tolist()

    def row(anchor: Vector, shared: tuple[list[int], list[int]], others: tuple[list[int], list[int]]) -> Row:
        found = []
        for kind, (ours, theirs) in enumerate(zip(shared, others, strict=True)):
            counts = kind == 1 or name != "dclw"  # whose positives are weighed by their scores
            factors = [SOFTMAX[name] * float(weights[k]) * counts for k in ours]
            weighted = [(case.score(anchor, second[k]) + f, second[k]) for k, f in zip(ours, factors, strict=True)]
            found.append(weighted + [(case.score(anchor, first[k]), first[k]) for k in theirs])
        return Row(anchor, *found)

    expected = case.oracle(
        [
            row(first[0], ([0, 2], [1, 3, 4]), ([], [3, 4])),
            row(first[1], ([1], [0, 2, 3, 4]), ([2], [0])),
            row(first[2], ([0, 2], [1, 3, 4]), ([], [1, 1])),
        ]
    )
    assert case.value(_two_blocks(case, rows, weights)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", SOFTMAX)
@pytest.mark.parametrize(("hardness", "prior"), [(1.0, 0.0), (0.0, 0.1), (0.5, 0.05)])
def test_hard_and_debiased_negatives_reach_every_softmax(name: str, hardness: float, prior: float) -> None:
    case, t = CASES[name], SOFTMAX[name]
    rows = normal(2, len(LABELS), 3, seed=34)

    def estimated(row: Row) -> Row:
        """Put one negative in place of all, whose exponential is the estimate of their sum (HCL, eq. 4; DCL, eq. 8)."""
        if not row.n:
            return row
        n = len(row.n)
        total = exps([(1 + hardness) * s for s in row.n], t) / exps([hardness * s for s in row.n], t) * n
        if row.p and prior:
            total = max(
                (total - n * prior * mean([math.exp(p / t) for p in row.p])) / (1 - prior), n * math.exp(-1 / t)
            )
        elif prior:
            total /= 1 - prior
        return Row(row.anchor, row.positives, [(t * math.log(total), row.anchor)])

    labels = torch.tensor(LABELS)
    pairs = replace(case.pairs(rows, labels), hardness=hardness, positive_prior=prior, least_score=-1.0)
    case.objective.check(kt.Debiased(kt.InBatch(), least_score=-1.0), case.similarity())
    expected = case.oracle([estimated(row) for row in table(rows.tolist(), case.score, LABELS, "all")])
    assert case.value(pairs) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("prior", [0.05, 0.5])  # at 0.5 the floor holds
def test_a_debiased_sum_without_a_temperature_is_floored_by_the_clamp(prior: float) -> None:
    case, clamp = Case(O.TemperatureFreeInfoNCE(0.1), temperature_free), 0.1
    rows = normal(2, 5, 4, seed=35)
    rows[1] = rows[0] + 0.1 * rows[1]
    (pairs,) = kt.Debiased(kt.InBatch(), positive_prior=prior).pairs(kt.embedded(*rows))
    losses, floored = [], 0
    for row in table(rows.tolist(), cosine, None, "all"):
        p, *negatives = [(1 + c) / (1 - c) for c in (min(max(c, clamp - 1), 1 - clamp) for c in row.p + row.n)]
        n = len(negatives)
        left, floor = (math.fsum(negatives) - n * prior * p) / (1 - prior), n * clamp / (2 - clamp)
        floored += left < floor
        losses.append(-math.log(p / (p + max(left, floor))))
    assert floored == (0 if prior == 0.05 else len(losses))
    assert case.value(pairs) == pytest.approx(mean(losses), rel=1e-9)


@every_case
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_embeddings(case: Case, dtype: torch.dtype) -> None:
    rows = normal(2, 12, 16, seed=10).to(dtype)
    encoded = [replace(view, similarity=case.similarity()) for view in kt.embedded(*rows)]
    (pairs,) = kt.InBatch().pairs(encoded)
    expected = case.oracle(table(rows.tolist(), case.score, None, "all"))
    assert case.value(pairs) == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("temperature", [0.01, 1.0, 10.0])
@pytest.mark.parametrize(
    ("make", "oracle"),
    [
        (O.InfoNCE, info_nce),
        (O.NTXent, nt_xent),
        (O.SupCon, nt_xent),
        (O.DCL, dcl),
        (O.GraphCLContrast, dcl),
        (O.DCLW, dclw),
    ],
)
def test_temperatures(make: Callable[[float], kt.Objective], oracle: Callable[..., float], temperature: float) -> None:
    case = Case(make(temperature), lambda rows: oracle(rows, temperature))
    rows = normal(2, 6, 8, seed=2)
    expected = case.oracle(table(rows.tolist(), cosine, None, "all"))
    assert case.value(case.pairs(rows)) == pytest.approx(expected, rel=1e-9)


# Five samples, each embedded alike in two views, all at right angles: a positive, and eight negatives.
@pytest.mark.parametrize(
    ("objective", "similarity", "expected"),
    [
        (O.InfoNCE(), kt.Cosine(), math.log(1 + 8 * math.exp(-10))),
        (O.NTXent(), kt.Cosine(), math.log(1 + 8 * math.exp(-2))),
        (O.SupCon(), kt.Cosine(), math.log(1 + 8 * math.exp(-10))),
        (O.SupCon(form="in"), kt.Cosine(), math.log(1 + 8 * math.exp(-10))),
        (O.DCL(), kt.Cosine(), math.log(8) - 10),
        (O.DCLW(), kt.Cosine(), math.log(8) - 10),
        (O.GraphCLContrast(), kt.Cosine(), math.log(8) - 5),
        (O.NPair(), kt.Dot(), math.log(1 + 8 * math.exp(-1)) + 0.002),
        (O.SigLIP(), kt.LearnedTemperature(initial=0.1, bias=-10.0), math.log(2) + 8 * math.log1p(math.exp(-10))),
        (O.TemperatureFreeInfoNCE(0.5), kt.Cosine(), math.log(1 + 8 / 3)),  # (1 + 1/2) / (1 - 1/2)
        (O.AlignmentUniformity(), kt.Cosine(), -4.0),
        (O.AlignmentUniformity(uniformity=0.5, t=1.0), kt.Cosine(), -1.0),
        (O.JensenShannon(), kt.Dot(), math.log(1 + math.exp(-1)) + math.log(2)),
        (O.PairwiseContrastive(2.0), kt.NegativeDistance(), (2 - math.sqrt(2)) ** 2 / 2),
        (O.Triplet(1.5), kt.Cosine(), 0.5),
        (O.Triplet(2.2), kt.NegativeSquaredDistance(), 0.2),
        (O.Triplet(2.0), kt.NegativeDistance(), 2 - math.sqrt(2)),
        (O.SoftTriplet(), kt.Cosine(), math.log(1 + math.exp(-1))),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, kt.Objective) else "",
)
def test_closed_forms(objective: kt.Objective, similarity: kt.Similarity, expected: float) -> None:
    rows = torch.eye(5, dtype=torch.float64)
    case = Case(objective, lambda rows: expected, similarity=lambda: similarity.double())
    assert case.value(case.pairs(torch.stack([rows, rows]))) == pytest.approx(expected, rel=1e-6)


def test_info_nce_says_how_much_mutual_information_it_bounds() -> None:
    rows = normal(2, len(LABELS), 3, seed=36)
    metric = (
        O.InfoNCE()(CASES["info-nce"].pairs(rows, torch.tensor(LABELS))).reduced().terms["mutual_information_bound"]
    )
    bounds = [  # of each positive pair: it is picked out from among 1 + n candidates
        math.log(1 + len(row.n)) + math.log(exps([p], 0.1) / (exps([p], 0.1) + exps(row.n, 0.1)))
        for row in table(rows.tolist(), cosine, LABELS, "all")
        for p in row.p
    ]
    assert float(metric) == pytest.approx(mean(bounds), rel=1e-9)


def test_a_row_is_no_negative_of_itself() -> None:
    rows = torch.eye(4, dtype=torch.float64)  # PyGCL's masks made it one: 0.713 in place of 0.040
    case = Case(O.InfoNCE(0.2), info_nce)
    assert case.value(case.pairs(torch.stack([rows, rows]))) == pytest.approx(math.log(1 + 6 * math.exp(-5)))


def test_sharp_weights_and_potentials_stay_finite_in_float32() -> None:
    rows = normal(2, 6, 8, seed=41)
    rows[1] = rows[0] + 0.1 * rows[1]
    weighted = Case(O.DCLW(sigma=0.01), lambda rows: dclw(rows, sigma=0.01))
    expected = weighted.oracle(table(rows.float().tolist(), cosine, None, "all"))
    assert weighted.value(weighted.pairs(rows.float())) == pytest.approx(expected, rel=1e-4)  # e^100 is no float32
    spread = torch.eye(6).expand(2, 6, 6).clone().requires_grad_()
    case = Case(O.AlignmentUniformity(t=60.0), alignment_uniformity)
    loss = case.objective(case.pairs(spread)).reduced()
    assert float(loss.value) == pytest.approx(-120.0)  # nor is e^-120
    assert torch.autograd.grad(loss.backward, spread)[0].isfinite().all()


class _Largest(TorchDispatchMode):
    """Notes the most numbers that any tensor made held."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else (made,):
            if isinstance(tensor, Tensor):
                self.entries = max(self.entries, tensor.untyped_storage().nbytes() // tensor.element_size())
        return made


@pytest.mark.parametrize("name", [name for name in CASES if "triplet" not in name])  # they hold a row per positive pair
@pytest.mark.parametrize("labelled", [False, True])
def test_no_tensor_is_as_large_as_the_matrix(name: str, labelled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, limit in (
        (walk, "ENTRIES"),
        (walk, "KEPT"),
        (exponentials, "ENTRIES"),
        (exponentials, "KEPT_BYTES"),
    ):
        monkeypatch.setitem(getattr(module, limit), "cpu", 1 << 11)
    monkeypatch.setattr(listing, "FEW", 1)
    samples, case = 120, CASES[name]
    rows = normal(2, samples, 4, seed=42).requires_grad_()
    labels = torch.arange(samples) % 2 if labelled else None  # half of the matrix are positives
    with _Largest() as largest:
        case.objective(case.pairs(rows, labels)).reduced().backward.backward()
    assert 2 * samples * 4 <= largest.entries < (2 * samples) ** 2 / 8


def _on_ranks(name: str) -> list[Tensor]:
    """Gradient of this rank's rows and of the similarity's parameters, as the average over ranks has it."""
    case = CASES[name]
    similarity = case.similarity().double()
    rows = normal(2, 7, 3, seed=21)
    labels = torch.tensor([0, 1, 0, 1, 2, 2, 3])
    own = torch.arange(7).tensor_split(kt.world_size())[kt.rank()]
    leaf = rows[:, own].clone().requires_grad_()
    encoded = [replace(view, similarity=similarity) for view in kt.embedded(*leaf, ids=own, labels=labels[own])]
    (pairs,) = kt.InBatch(match="labels").pairs(encoded)
    reduced = case.objective(pairs).reduced()
    reduced.backward.backward()
    assert leaf.grad is not None
    gathered = kt.all_gather(leaf.grad.transpose(0, 1).contiguous()) / kt.world_size()
    parameters = [kt.all_sum(p.grad) / kt.world_size() for p in similarity.parameters() if p.grad is not None]
    return [reduced.value.detach(), gathered.detach(), *parameters]


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("name", CASES)
def test_processes_equal_one(gloo: GlooPool, name: str, world: int) -> None:
    whole = _on_ranks(name)
    for part in gloo.run(world, _on_ranks, name):
        for ours, theirs in zip(whole, part, strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: O.SupCon(form="both"), "`form` must be out or in, got 'both'"),  # type: ignore[arg-type]
        (lambda: O.DCLW(sigma=0), "`sigma` must be > 0, got 0"),
        (lambda: O.NPair(-1), "`regularization` must be >= 0, got -1"),
        (lambda: O.TemperatureFreeInfoNCE(1.0), r"`clamp` must be in \(0, 1\), got 1.0"),
        (lambda: O.AlignmentUniformity(power=0), "`power` must be > 0, got 0"),
        (lambda: O.AlignmentUniformity(alignment=-1), "`alignment` must be >= 0, got -1"),
        (lambda: O.PairwiseContrastive(0), "`margin` must be > 0, got 0"),
        (lambda: O.Triplet(math.nan), "`margin` must be > 0, got nan"),
        (lambda: O.DCL(0.0), "`temperature` must be > 0, got 0.0"),
    ],
)
def test_arguments_out_of_range(make: Callable[[], kt.Objective], sentence: str) -> None:
    with pytest.raises(kt.InvalidValueError, match=sentence):
        make()


def test_the_similarity_must_be_the_one_an_objective_is_defined_on() -> None:
    pairs = CASES["nt-xent"].pairs(normal(2, 3, 2, seed=1))
    with pytest.raises(kt.IncompatibleError, match=r"defined on the similarity NegativeDistance, got Cosine; give"):
        O.PairwiseContrastive()(pairs)
    with pytest.raises(kt.IncompatibleError, match=r"defined on the similarity Cosine, got Dot; give"):
        kt.Method(torch.nn.Linear(3, 2), sampler=kt.InBatch(), objective=O.AlignmentUniformity(), similarity=kt.Dot())


@pytest.mark.parametrize("objective", [O.SigLIP(), O.Triplet(), O.JensenShannon(), O.AlignmentUniformity()])
def test_estimates_of_a_sum_are_refused_by_objectives_without_one(objective: kt.Objective) -> None:
    with pytest.raises(kt.IncompatibleError, match="take a softmax-type objective such as InfoNCE"):
        objective.check(kt.Debiased(kt.InBatch()))
