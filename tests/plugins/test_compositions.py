"""Samplers wrapped in each other, with objectives of every kind, against plain loops over numbers.

The loops know no keys, blocks or tiles: a row is an anchor with the list of its positives and that of its negatives.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

import kontrast as kt
from kontrast.plugins import objectives
from kontrast.plugins.samplers import GuidedNegatives, NearestNeighbors, NoDuplicates, PerClass, SameGroup

Vector = Sequence[float]
STEPS, SAMPLES, SIZE = 4, 5, 4
TABLE = torch.randn(12, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@dataclass(frozen=True)
class Row:
    """An anchor, who it is, and what it is compared with; a negative's sample is None where it is of another step."""

    vector: Vector
    sample: int
    positives: list[tuple[Vector, int]]
    negatives: list[tuple[Vector, int | None]]
    match: str = "ids"


@dataclass(frozen=True)
class Comparison:
    """The rows of one Pairs, and what a sampler says about all of them."""

    rows: list[Row]
    hardness: float = 0.0
    prior: float = 0.0


@dataclass
class World:
    """One batch, and what earlier ones left."""

    views: list[list[Vector]]
    ids: list[int]
    past: list[tuple[Vector, int, int]] = field(default_factory=list)  # embedding, sample, view


def key_of(match: str, sample: int) -> int:
    """Return what samples are matched by; of every fifth the label is not known."""
    if match == "labels":
        return -1 if sample % 5 == 4 else sample % 3
    return sample % 2 if match == "groups" else sample


def alike(match: str, first: int, second: int) -> bool:
    return key_of(match, first) == key_of(match, second) != -1


def cosine(a: Vector, c: Vector) -> float:
    lengths = math.hypot(*a) * math.hypot(*c)
    return math.fsum(x * y for x, y in zip(a, c, strict=True)) / lengths if lengths else 0.0


# Samplers

Sampled = Callable[[World], list[Comparison]]


def in_batch(how: str, match: str = "ids") -> Sampled:
    def rows_of(world: World, anchors: Sequence[int], candidates: Sequence[int]) -> Comparison:
        rows = []
        for v in anchors:
            for i, vector in enumerate(world.views[v]):
                row = Row(vector, world.ids[i], [], [], match)
                for w in candidates:
                    for j, other in enumerate(world.views[w]):
                        if (v, i) == (w, j):
                            continue
                        if alike(match, world.ids[i], world.ids[j]):
                            row.positives.append((other, world.ids[j]))
                        elif world.ids[i] != world.ids[j]:
                            row.negatives.append((other, world.ids[j]))
                rows.append(row)
        return Comparison(rows)

    def sampled(world: World) -> list[Comparison]:
        views = range(len(world.views))
        if how == "all":
            return [rows_of(world, views, views)]
        return [rows_of(world, [v], [w]) for v in views for w in views if v < w or (how == "cross" and v > w)]

    return sampled


def positives(how: str) -> Sampled:
    def sampled(world: World) -> list[Comparison]:
        return [replace(part, rows=[replace(row, negatives=[]) for row in part.rows]) for part in in_batch(how)(world)]

    return sampled


def nearest(size: int) -> Sampled:
    def sampled(world: World) -> list[Comparison]:
        found = []
        for v, w in ((0, 1), (1, 0)):
            rows = []
            for i, vector in enumerate(world.views[v]):
                others = [entry for entry, sample, _ in world.past[-size:] if sample != world.ids[i]]
                anchor = max(others, key=lambda entry, own=vector: cosine(own, entry)) if others else vector  # type: ignore[misc]
                rows.append(
                    Row(
                        anchor,
                        world.ids[i],
                        [(world.views[w][i], world.ids[i])],
                        [(other, world.ids[j]) for j, other in enumerate(world.views[w]) if j != i],
                    )
                )
            found.append(Comparison(rows))
        return found

    return sampled


def local_global(world: World) -> list[Comparison]:
    """Return each element, which the kit makes by reading a row backwards, against the rows of its view."""
    found = []
    for view in world.views:
        named = list(zip(view, world.ids, strict=True))
        rows = [
            Row(list(reversed(row)), own, [(row, own)], [(other, sample) for other, sample in named if sample != own])
            for row, own in named
        ]
        found.append(Comparison(rows))
    return found


def each(inner: Sampled, change: Callable[[Row, World], list[Row]]) -> Sampled:
    def sampled(world: World) -> list[Comparison]:
        return [replace(part, rows=[new for row in part.rows for new in change(row, world)]) for part in inner(world)]

    return sampled


def queue(inner: Sampled, size: int, views: Sequence[int] = (0, 1)) -> Sampled:
    def change(row: Row, world: World) -> list[Row]:
        more = Row(row.vector, row.sample, [*row.positives], [*row.negatives], row.match)
        for vector, sample, _ in [entry for entry in world.past if entry[2] in views][-size:]:
            if row.match != "ids" and alike(row.match, row.sample, sample):
                more.positives.append((vector, sample))
            elif sample != row.sample:
                more.negatives.append((vector, None))
        return [more]

    return each(inner, change)


def hardest(inner: Sampled, count: int) -> Sampled:
    def change(row: Row, world: World) -> list[Row]:
        ordered = sorted(row.negatives, key=lambda entry: -cosine(row.vector, entry[0]))
        return [replace(row, negatives=ordered[:count])]

    return each(inner, change)


def semi_hard(inner: Sampled) -> Sampled:
    def change(row: Row, world: World) -> list[Row]:
        rows = []
        for positive in row.positives:
            limit = cosine(row.vector, positive[0])
            ordered = sorted(row.negatives, key=lambda entry: cosine(row.vector, entry[0]))
            below = [entry for entry in ordered if cosine(row.vector, entry[0]) < limit]
            rows.append(replace(row, positives=[positive], negatives=(below or ordered[:1])[-1:]))
        return rows

    return each(inner, change)


def guided(inner: Sampled, margin: float, table: Tensor = TABLE) -> Sampled:
    guide: list[Vector] = table.tolist()

    def change(row: Row, world: World) -> list[Row]:
        ours = guide[row.sample]
        limit = max((cosine(ours, guide[sample]) for _, sample in row.positives), default=math.inf) - margin
        kept = [(v, s) for v, s in row.negatives if s is None or not cosine(ours, guide[s]) > limit]
        return [replace(row, negatives=kept)]

    return each(inner, change)


def estimated(inner: Sampled, *, hardness: float | None = None, prior: float | None = None) -> Sampled:
    def sampled(world: World) -> list[Comparison]:
        return [
            replace(
                part,
                hardness=part.hardness if hardness is None else hardness,
                prior=part.prior if prior is None else prior,
            )
            for part in inner(world)
        ]

    return sampled


# Objectives: (rows as scores) -> loss

Scores = tuple[list[float], list[float]]  # of positives, of negatives


def negative_sum(row: Scores, part: Comparison, logit: Callable[[float], float]) -> float:
    """Return the sum of the negatives' exponentials, hard and debiased as in the papers' code."""
    n = len(row[1])
    if not n:
        return 0.0
    exps = [math.exp(logit(s)) for s in row[1]]
    weights = [e**part.hardness for e in exps]
    total = n * math.fsum(w * e for w, e in zip(weights, exps, strict=True)) / math.fsum(weights)
    if not part.prior:
        return total
    mean = math.fsum(math.exp(logit(s)) for s in row[0]) / len(row[0]) if row[0] else 0.0
    return max((total - n * part.prior * mean) / (1 - part.prior), n * math.exp(logit(-1.0)))


def softmax(kind: str, logit: Callable[[float], float]) -> Callable[[list[Scores], Comparison], float]:
    def loss(rows: list[Scores], part: Comparison) -> float:
        losses = []
        for row in rows:
            exps = [math.exp(logit(s)) for s in row[0]]
            others = negative_sum(row, part, logit)
            if not exps or (kind == "dcl" and not row[1]):
                continue
            mean = math.fsum(map(logit, row[0])) / len(exps)
            if kind == "info-nce":
                losses.append(math.fsum(math.log((x + others) / x) for x in exps) / len(exps))
            elif kind == "out":
                losses.append(math.log(math.fsum(exps) + others) - mean)
            elif kind == "in":
                losses.append(math.log((math.fsum(exps) + others) / (math.fsum(exps) / len(exps))))
            else:
                losses.append(math.log(others) - mean)
        return math.fsum(losses) / len(losses) if losses else 0.0

    return loss


def triplet(function: Callable[[float], float]) -> Callable[[list[Scores], Comparison], float]:
    def loss(rows: list[Scores], part: Comparison) -> float:
        found = [function(n - p) for positive, negative in rows for p in positive for n in negative]
        return math.fsum(found) / len(found) if found else 0.0

    return loss


def sigmoid(rows: list[Scores], part: Comparison) -> float:
    return math.fsum(
        math.fsum(math.log1p(math.exp(-p)) for p in positive) + math.fsum(math.log1p(math.exp(n)) for n in negative)
        for positive, negative in rows
    ) / len(rows)


def jensen_shannon(rows: list[Scores], part: Comparison) -> float:
    yes = [math.log1p(math.exp(-p)) for positive, _ in rows for p in positive]
    no = [math.log1p(math.exp(n)) for _, negative in rows for n in negative]
    return math.fsum(yes) / max(1, len(yes)) + math.fsum(no) / max(1, len(no))


def alignment_uniformity(rows: list[Scores], part: Comparison) -> float:
    near = [2 - 2 * p for positive, _ in rows for p in positive]
    far = [math.exp(-2 * (2 - 2 * n)) for _, negative in rows for n in negative]
    return math.fsum(near) / max(1, len(near)) + (math.log(math.fsum(far) / len(far)) if far else 0.0)


def dclw(t: float, sigma: float) -> Callable[[list[Scores], Comparison], float]:
    def loss(rows: list[Scores], part: Comparison) -> float:
        every = [math.exp(p / sigma) for positive, _ in rows for p in positive]
        mean = math.fsum(every) / len(every)
        losses = []
        for row in rows:
            if row[0] and row[1]:
                pull = math.fsum((2 - math.exp(p / sigma) / mean) * p / t for p in row[0]) / len(row[0])
                losses.append(math.log(negative_sum(row, part, lambda s: s / t)) - pull)
        return math.fsum(losses) / len(losses) if losses else 0.0

    return loss


def at(t: float) -> Callable[[float], float]:
    return lambda s: s / t


def inverse_tanh(s: float) -> float:
    return 2 * math.atanh(min(max(s, -1 + 1e-6), 1 - 1e-6))


OBJECTIVES: dict[str, tuple[kt.Objective, Callable[[list[Scores], Comparison], float]]] = {
    "info-nce": (objectives.InfoNCE(0.3), softmax("info-nce", at(0.3))),
    "nt-xent": (objectives.NTXent(0.4), softmax("out", at(0.4))),
    "sup-con": (objectives.SupCon(0.3), softmax("out", at(0.3))),
    "sup-con in": (objectives.SupCon(0.3, "in"), softmax("in", at(0.3))),
    "dcl": (objectives.DCL(0.3), softmax("dcl", at(0.3))),
    "dclw": (objectives.DCLW(0.3, 0.7), dclw(0.3, 0.7)),
    "graphcl": (objectives.GraphCLContrast(), softmax("dcl", at(0.2))),
    "temperature-free": (objectives.TemperatureFreeInfoNCE(), softmax("info-nce", inverse_tanh)),
    "triplet": (objectives.Triplet(0.2), triplet(lambda x: max(0.0, x + 0.2))),
    "soft-triplet": (objectives.SoftTriplet(), triplet(lambda x: math.log1p(math.exp(x)))),
    "siglip": (objectives.SigLIP(), sigmoid),
    "jensen-shannon": (objectives.JensenShannon(), jensen_shannon),
    "alignment-uniformity": (objectives.AlignmentUniformity(), alignment_uniformity),
}
SOFTMAX = ("info-nce", "nt-xent", "sup-con", "sup-con in", "dcl", "dclw", "graphcl", "temperature-free")
OTHERS = tuple(name for name in OBJECTIVES if name not in SOFTMAX)

SAMPLERS: dict[str, tuple[Callable[[], kt.PairSampler], Sampled, tuple[str, ...]]] = {
    "in-batch": (kt.InBatch, in_batch("all"), (*SOFTMAX, *OTHERS)),
    "in-batch, labels": (lambda: kt.InBatch(match="labels"), in_batch("all", "labels"), (*SOFTMAX, *OTHERS)),
    "cross, groups": (
        lambda: kt.InBatch("cross", "groups"),
        in_batch("cross", "groups"),
        ("info-nce", "sup-con in", "siglip"),
    ),
    "forward": (lambda: kt.InBatch("forward"), in_batch("forward"), ("graphcl", "siglip", "temperature-free")),
    "queue of positives": (
        lambda: kt.Queue(kt.Positives("forward"), 7),
        queue(positives("forward"), 7, (1,)),
        (*SOFTMAX, *OTHERS),
    ),
    "queue of labels": (
        lambda: kt.Queue(kt.InBatch(match="labels"), 13),
        queue(in_batch("all", "labels"), 13),
        (*SOFTMAX, *OTHERS),
    ),
    "hard": (lambda: kt.HardNegatives(kt.InBatch(), 0.7), estimated(in_batch("all"), hardness=0.7), SOFTMAX),
    "debiased": (lambda: kt.Debiased(kt.InBatch(), 0.15), estimated(in_batch("all"), prior=0.15), SOFTMAX),
    "debiased, hard, queue": (
        lambda: kt.Debiased(kt.HardNegatives(kt.Queue(kt.InBatch(), 9), 1.0), 0.1),
        estimated(queue(in_batch("all"), 9), hardness=1.0, prior=0.1),
        SOFTMAX,
    ),
    "queue, hard, debiased": (
        lambda: kt.Queue(kt.HardNegatives(kt.Debiased(kt.InBatch("cross"), 0.1), 1.0), 9),
        queue(estimated(in_batch("cross"), hardness=1.0, prior=0.1), 9),
        ("info-nce", "sup-con", "dcl"),
    ),
    "hardest": (lambda: kt.HardestNegatives(kt.InBatch(), 3), hardest(in_batch("all"), 3), (*SOFTMAX, *OTHERS)),
    "hardest of a queue, by labels": (
        lambda: kt.HardestNegatives(kt.Queue(kt.InBatch(match="labels"), 9), 2),
        hardest(queue(in_batch("all", "labels"), 9), 2),
        (*SOFTMAX, *OTHERS),
    ),
    "queue beside the hardest": (
        lambda: kt.Queue(kt.HardestNegatives(kt.InBatch(), 1), 9),
        queue(hardest(in_batch("all"), 1), 9),
        ("info-nce", "triplet", "siglip"),
    ),
    "hard among the hardest": (
        lambda: kt.HardNegatives(kt.HardestNegatives(kt.InBatch(), 3), 1.5),
        estimated(hardest(in_batch("all"), 3), hardness=1.5),
        ("info-nce", "nt-xent"),
    ),
    "semi-hard": (lambda: kt.SemiHardNegatives(kt.InBatch()), semi_hard(in_batch("all")), (*SOFTMAX, *OTHERS)),
    "semi-hard of a queue, by labels": (
        lambda: kt.SemiHardNegatives(kt.Queue(kt.InBatch(match="labels"), 9)),
        semi_hard(queue(in_batch("all", "labels"), 9)),
        ("info-nce", "triplet", "soft-triplet", "jensen-shannon"),
    ),
    "queue beside the semi-hard": (
        lambda: kt.Queue(kt.SemiHardNegatives(kt.InBatch(match="labels")), 9),
        queue(semi_hard(in_batch("all", "labels")), 9),
        ("info-nce", "triplet"),
    ),
    "guided": (lambda: GuidedNegatives(kt.InBatch(), TABLE, 0.4), guided(in_batch("all"), 0.4), (*SOFTMAX, *OTHERS)),
    "guided, labels": (
        lambda: GuidedNegatives(kt.InBatch(match="labels"), TABLE, 0.1),
        guided(in_batch("all", "labels"), 0.1),
        ("info-nce", "sup-con", "triplet", "dclw"),
    ),
    "guided, queue": (
        lambda: GuidedNegatives(kt.Queue(kt.InBatch(), 9), TABLE, 0.4),
        guided(queue(in_batch("all"), 9), 0.4),
        ("info-nce", "siglip"),
    ),
    "hardest of the guided": (
        lambda: kt.HardestNegatives(GuidedNegatives(kt.InBatch(), TABLE, 0.4), 2),
        hardest(guided(in_batch("all"), 0.4), 2),
        ("nt-xent", "triplet"),
    ),
    "semi-hard of the guided": (
        lambda: kt.SemiHardNegatives(GuidedNegatives(kt.InBatch("cross"), TABLE, 0.4)),
        semi_hard(guided(in_batch("cross"), 0.4)),
        ("info-nce", "triplet"),
    ),
    "debiased, hard, guided": (
        lambda: kt.Debiased(kt.HardNegatives(GuidedNegatives(kt.InBatch(), TABLE, 0.4), 0.5), 0.05),
        estimated(guided(in_batch("all"), 0.4), hardness=0.5, prior=0.05),
        ("info-nce", "nt-xent", "temperature-free"),
    ),
    "nearest": (lambda: NearestNeighbors(11), nearest(11), (*SOFTMAX, *OTHERS)),
    "hardest of the nearest": (
        lambda: kt.HardestNegatives(NearestNeighbors(11), 2),
        hardest(nearest(11), 2),
        ("info-nce", "triplet"),
    ),
    "hard, nearest": (
        lambda: kt.HardNegatives(NearestNeighbors(11), 0.5),
        estimated(nearest(11), hardness=0.5),
        ("info-nce",),
    ),
    "per class": (
        lambda: PerClass(kt.Queue(kt.InBatch(match="labels"), 9), 2),
        queue(in_batch("all", "labels"), 9),
        ("sup-con",),
    ),
    "same group": (lambda: SameGroup(kt.InBatch()), in_batch("all"), ("info-nce",)),
    "no duplicates": (lambda: kt.Queue(NoDuplicates(kt.InBatch()), 4), queue(in_batch("all"), 4), ("info-nce",)),
}


def keys(ids: list[int], match: str) -> Tensor:
    return torch.tensor([key_of(match, sample) for sample in ids])


def found(sampler: kt.PairSampler, objective: kt.Objective, rows: Tensor, ids: list[int]) -> Tensor:
    encoded = kt.embedded(*rows, ids=torch.tensor(ids), labels=keys(ids, "labels"), groups=keys(ids, "groups"))
    losses = [objective(part).scaled(part.weight) for part in sampler.pairs(encoded)]
    return kt.Loss.sum_of(losses).reduced().backward


def expected(sampled: Sampled, loss: Callable[[list[Scores], Comparison], float], world: World) -> float:
    parts = sampled(world)
    values = []
    for part in parts:
        rows = [
            ([cosine(row.vector, v) for v, _ in row.positives], [cosine(row.vector, v) for v, _ in row.negatives])
            for row in part.rows
        ]
        values.append(loss(rows, part))
    return math.fsum(values) / len(values)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_composition_is_what_the_loops_say(name: str) -> None:
    make, sampled, names = SAMPLERS[name]
    for objective_name in names:
        objective, loss = OBJECTIVES[objective_name]
        sampler, world = make(), World([], [])
        generator = torch.Generator().manual_seed(1)
        for step in range(STEPS):
            rows = torch.randn(2, SAMPLES, SIZE, generator=generator, dtype=torch.float64).requires_grad_()
            world.ids = torch.randperm(12, generator=generator)[:SAMPLES].tolist()
            world.views = rows.tolist()
            value = found(sampler, objective, rows, world.ids)
            where = f"{name}, {objective_name}, step {step}"
            assert value.item() == pytest.approx(expected(sampled, loss, world), rel=1e-9, abs=1e-12), where
            if "nearest" not in name and value.requires_grad:  # neighbours are constants, in the loops they move
                (gradient,) = torch.autograd.grad(value, rows)
                direction = torch.randn(rows.shape, generator=generator, dtype=torch.float64)
                sides = []
                for sign in (1, -1):
                    world.views = (rows.detach() + sign * 1e-6 * direction).tolist()
                    sides.append(expected(sampled, loss, world))
                slope = (sides[0] - sides[1]) / 2e-6
                assert (gradient * direction).sum().item() == pytest.approx(slope, rel=1e-5, abs=1e-7), where
            encoded = kt.embedded(
                *rows.detach(),
                ids=torch.tensor(world.ids),
                labels=keys(world.ids, "labels"),
                groups=keys(world.ids, "groups"),
            )
            for module in sampler.modules():  # as a method does
                if isinstance(module, kt.PairSampler):
                    module.commit(encoded)
            world.past += [
                (vector, sample, view)
                for view, part in enumerate(rows.tolist())
                for vector, sample in zip(part, world.ids, strict=True)
            ]
