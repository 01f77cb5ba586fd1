"""What the contrast engine is told that cannot be right: a sentence with the values, when it is known.

Shapes: A anchors, C candidates, D embedding size.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import kontrast as kt
from kontrast.plugins import objectives as O
from kontrast.plugins.samplers import NearestNeighbors

OBJECTIVES = sorted(kt.get_records(kt.ObjectiveRecord))
# A mean over pairs of each kind: the negatives of an anchor without positives are pairs like others (their docstrings).
BY_PAIRS = {"alignment-uniformity", "jensen-shannon", "pairwise-contrastive", "positive-unlabelled", "siglip"}


def made(name: str) -> kt.Objective:
    objective: kt.Objective = kt.get_record(kt.ObjectiveRecord, name).load()()
    return objective


def similarity_of(objective: kt.Objective) -> kt.Similarity:
    return (objective.needs.similarity or kt.Cosine)()


def rows(seed: int = 0, views: int = 2, samples: int = 6) -> Tensor:
    return torch.randn(views, samples, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: kt.HardNegatives(kt.InBatch(), -0.1), r"`hardness` must be >= 0 and finite, got -0\.1"),
        (lambda: kt.HardNegatives(kt.InBatch(), INF), "`hardness` must be >= 0 and finite, got inf"),
        (lambda: kt.HardNegatives(kt.InBatch(), NAN), "`hardness` must be >= 0 and finite, got nan"),
        (lambda: kt.Debiased(kt.InBatch(), 1.0), r"`positive_prior` must be in \[0, 1\), got 1\.0; it is the chance"),
        (lambda: kt.Debiased(kt.InBatch(), -0.1), r"`positive_prior` must be in \[0, 1\), got -0\.1"),
        (lambda: kt.Debiased(kt.InBatch(), NAN), r"`positive_prior` must be in \[0, 1\), got nan"),
        (lambda: kt.Debiased(kt.InBatch(), 0.1, -INF), "`least_score` must be finite, got -inf"),
        (lambda: kt.HardestNegatives(kt.InBatch(), 0), "`count` must be >= 1, got 0"),
        (lambda: kt.Queue(kt.InBatch(), 0), "`size` of a queue must be >= 1, got 0"),
        (lambda: NearestNeighbors(0), "`size` of a queue must be >= 1, got 0"),
        (lambda: O.InfoNCE(NAN), "`temperature` must be > 0, got nan"),
        (lambda: O.SupCon(-1.0), r"`temperature` must be > 0, got -1\.0"),
        (lambda: O.DCLW(0.1, INF), "`sigma` must be > 0, got inf"),
        (lambda: kt.LearnedTemperature(initial=0.0), r"`initial` >= `smallest` > 0, got 0\.0"),
        (lambda: kt.LearnedTemperature(initial=INF), "`initial` >= `smallest` > 0, got inf"),
    ],
)
def test_what_is_out_of_range(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(kt.InvalidValueError, match=sentence):
        make()


@pytest.mark.parametrize("name", ["hardness", "positive_prior"])
@pytest.mark.parametrize("value", [-1.0, NAN])
def test_pairs_hold_to_the_ranges_too(name: str, value: float) -> None:
    (pairs,) = kt.InBatch().pairs(kt.embedded(*rows()))
    with pytest.raises(kt.InvalidValueError, match=f"`{name}` must be .*, got {value!r}"):
        replace(pairs, **{name: value})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "similarity",
    [
        kt.Dot(),
        kt.Bilinear(4),
        kt.NegativeDistance(),
        kt.LearnedTemperature(bias=-1.0),
        kt.LearnedTemperature(kt.Dot()),
    ],
)
def test_a_prior_wants_a_floor_when_the_method_is_made(similarity: kt.Similarity) -> None:
    sampler = kt.HardNegatives(kt.Debiased(kt.InBatch()))
    with pytest.raises(kt.IncompatibleError, match=f"{type(similarity).__name__} has no bound; take .* `least_score`"):
        kt.Method(nn.Identity(), sampler=sampler, objective=O.InfoNCE(), similarity=similarity)
    floored = kt.HardNegatives(kt.Debiased(kt.InBatch(), least_score=-3.0))
    kt.Method(nn.Identity(), sampler=floored, objective=O.InfoNCE(), similarity=similarity)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_that_need_negatives_are_told_when_there_are_none(name: str) -> None:
    objective = made(name)
    if not objective.needs.negatives:
        pytest.skip("it needs none")
    with pytest.raises(kt.IncompatibleError, match="needs negatives, and the sampler Positives gives none; take"):
        kt.Method(nn.Identity(), sampler=kt.Positives(), objective=objective, similarity=similarity_of(objective))


def test_keys_that_do_not_fit() -> None:
    first, second = rows()
    short = [replace(view, copies=view.copies[:5]) for view in kt.embedded(first, second)]
    with pytest.raises(kt.InvalidValueError, match=r"key `row` must be int64 \[12\], got torch\.int64 \[10\]"):
        kt.InBatch().pairs(short)
    with pytest.raises(kt.InvalidValueError, match=r"key `match` must be int64 \[12\], got torch\.int64 \[6\]"):
        kt.InBatch().pairs(kt.embedded(first, second, ids=torch.arange(3)))
    with pytest.raises(kt.InvalidValueError, match=r"key `match` must be int64 \[12\], got torch\.float32 \[12\]"):
        kt.InBatch(match="labels").pairs(kt.embedded(first, second, labels=torch.ones(6)))
    with pytest.raises(kt.InvalidValueError, match=r"with one D, got \[6, 4\] and \[6, 3\]"):
        kt.Block(first, second[:, :3], kt.Keys(), kt.Keys())


def test_log_weights_are_constants() -> None:
    first, second = rows()
    with pytest.raises(kt.InvalidValueError, match="`log_weights` must be constants, got a tensor that requires grad"):
        kt.Block(first, second, kt.Keys(), kt.Keys(), log_weights=torch.zeros(6, requires_grad=True))


@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("at", [(0, 0), (1, 4)])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_embeddings_that_are_not_finite(name: str, at: tuple[int, int], value: float) -> None:
    objective, views = made(name), rows()
    views[(*at, 1)] = value
    sampler = kt.InBatch("forward") if objective.needs.negatives else kt.Positives("forward")
    (pairs,) = sampler.pairs(kt.embedded(*views))
    with pytest.raises(kt.NonFiniteLossError, match=rf"must be finite, got nan or inf in 1 of 6 .* row {at[1]}"):
        objective(replace(pairs, similarity=similarity_of(objective)))


@pytest.mark.parametrize(
    "sampler",
    [
        lambda inner: inner,
        lambda inner: kt.HardestNegatives(inner, 2),
        kt.SemiHardNegatives,
        lambda inner: kt.Debiased(kt.HardNegatives(inner)),
    ],
)
def test_a_queue_entry_that_is_not_finite(sampler: Callable[[kt.PairSampler], kt.PairSampler]) -> None:
    queue = kt.Queue(kt.InBatch(), 4)
    queue.commit(kt.embedded(*rows(1), ids=torch.arange(10, 16)))
    queue.rows[2] = NAN
    method = kt.Method(nn.Identity(), sampler=sampler(queue), objective=O.InfoNCE())
    with pytest.raises(kt.NonFiniteLossError, match="embeddings must be finite, got nan or inf in 1 of 4 candidates"):
        method.score(kt.embedded(*rows()))


@pytest.mark.parametrize("name", sorted(set(OBJECTIVES) - BY_PAIRS))
def test_anchors_without_positives_are_counted(name: str) -> None:
    objective = made(name)
    # The first view against the second, from which two samples are missing.
    first, second = kt.embedded(*rows())
    some = replace(second, rows=second.rows[:4], ids=second.ids[:4], copies=second.copies[:4])  # type: ignore[index]  # pyright: ignore[reportOptionalSubscript]
    for candidates, left_out in ((second, 0), (some, 2)):
        pairs = replace(kt.Pairs.between(first, candidates), similarity=similarity_of(objective))
        found = kt.Loss.sum_of([objective(pairs).scaled(0.5), objective(pairs).scaled(0.5)]).reduced()
        assert float(found.terms["anchors_left_out"]) == left_out
        alone = kt.Pairs.between(replace(first, rows=first.rows[:4], ids=first.ids[:4], copies=first.copies[:4]), some)  # type: ignore[index]  # pyright: ignore[reportOptionalSubscript]
        if left_out:
            expected = float(objective(replace(alone, similarity=similarity_of(objective))))
            assert float(found.value) == pytest.approx(expected, rel=1e-12)


def test_an_anchor_without_a_negative_is_left_out_by_those_that_read_negatives_alone() -> None:
    encoded = kt.embedded(*rows(samples=3), labels=torch.tensor([0, 0, 0]))
    (pairs,) = kt.InBatch(match="labels").pairs(encoded)
    for objective, left_out in ((O.DCL(), 6), (O.DCLW(), 6), (O.Triplet(), 6), (O.InfoNCE(), 0)):
        found = objective(pairs).reduced()
        assert float(found.terms["anchors_left_out"]) == left_out
        assert float(found.value) == 0.0


def test_an_estimate_of_the_negatives_bounds_no_information() -> None:
    for wrapped, said in ((kt.InBatch(), True), (kt.HardNegatives(kt.InBatch()), False)):
        (pairs,) = wrapped.pairs(kt.embedded(*rows()))
        assert ("mutual_information_bound" in O.InfoNCE()(pairs).reduced().terms) == said
