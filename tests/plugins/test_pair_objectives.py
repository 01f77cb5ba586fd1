"""Every objective on pairs against its paper's formula, in plain loops over Python floats, for any relation.

Shapes: V views, N samples, D embedding size.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from gloo import GlooPool
from torch import Tensor

import kontrast as kt
from kontrast import listing
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
@pytest.mark.parametrize("labelled", [False, True])
def test_gradcheck(case: Case, labelled: bool) -> None:
    rows = normal(2, 4, 3, seed=1).requires_grad_()
    labels = torch.tensor([0, 1, 0, -1]) if labelled else None

    def loss(x: Tensor) -> Tensor:
        return case.objective(case.pairs(x, labels)).reduced().backward

    assert torch.autograd.gradcheck(loss, rows)


@every_case
def test_the_loss_falls_as_a_positive_comes_closer(case: Case) -> None:
    rows = normal(2, 5, 4, seed=3).requires_grad_()
    loss = case.objective(case.pairs(rows)).reduced()
    (gradient,) = torch.autograd.grad(loss.backward, rows)
    closer = rows.detach().clone()
    closer[1, 0] = closer[1, 0].lerp(closer[0, 0], 0.3)
    # The step towards the positive has a part along the gradient's descent, or the positive pair alone falls.
    only = case.pairs(closer[:, :1].repeat(1, 2, 1))
    apart = case.pairs(rows.detach()[:, :1].repeat(1, 2, 1))
    assert gradient.isfinite().all()
    assert case.value(only) < case.value(apart) or "triplet" in type(case.objective).__name__.lower()
    descended = rows.detach() - 1e-4 * gradient
    assert case.value(case.pairs(descended)) < float(loss.value)


@every_case
def test_the_order_of_samples_does_not_matter(case: Case) -> None:
    rows = normal(3, 6, 4, seed=5)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(6))
    assert case.value(case.pairs(rows[:, order])) == pytest.approx(case.value(case.pairs(rows)), rel=1e-9)


@every_case
def test_zero_vectors_single_samples_and_duplicates(case: Case) -> None:
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
    single = normal(2, 1, 3, seed=7)
    assert math.isfinite(case.value(case.pairs(single)))


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
