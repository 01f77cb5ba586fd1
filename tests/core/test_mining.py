"""Mined negatives, one row per positive, and wrapped samplers of a method, against loops.

Shapes: A anchors, k entries of a row, P positive pairs.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import engine_oracle
import pytest
import torch
from engine_oracle import NumberRule
from engine_scenes import SCENES, cut, normal, scene
from torch import Tensor, nn

import kontrast as kt
from kontrast.plugins.objectives import NTXent


class Given(kt.PairSampler):
    """Gives these pairs, whatever the batch."""

    def __init__(self, pairs: kt.Pairs) -> None:
        super().__init__()
        self.given = pairs

    def pairs(self, encoded: Sequence[kt.Encoded]) -> list[kt.Pairs]:
        return [self.given]


def mined(sampler: Callable[..., kt.PairSampler], pairs: kt.Pairs, **options: int) -> kt.Pairs:
    (kept,) = sampler(Given(pairs), **options).pairs([])
    return kept


Found = list[tuple[list[float], list[float]]]


def found(pairs: kt.Pairs) -> Found:
    """Return every row's (positive logits, negative logits), in order."""
    return [
        (
            sorted(cell.score + cell.log_weight for cell in row if cell.positive),
            sorted(cell.score + cell.log_weight for cell in row if not cell.positive),
        )
        for row in engine_oracle.cells(pairs)
    ]


def near(values: Found) -> list[tuple[object, object]]:
    return [(pytest.approx(p, abs=1e-12), pytest.approx(n, abs=1e-12)) for p, n in values]


@pytest.mark.parametrize("name", [name for name in SCENES if "rule" not in name or "weights" not in name])
@pytest.mark.parametrize("count", [1, 3, 100])
@pytest.mark.parametrize("how", ["whole", "tiles of 4"])
def test_hardest_negatives(monkeypatch: pytest.MonkeyPatch, name: str, count: int, how: str) -> None:
    cut(monkeypatch, how)
    pairs = scene(name)
    expected = []
    for row, best in zip(engine_oracle.cells(pairs), engine_oracle.top(pairs, count), strict=True):
        positives = sorted(cell.score + cell.log_weight for cell in row if cell.positive)
        expected.append((positives, sorted(cell.score + cell.log_weight for cell in best)))
    kept = mined(kt.HardestNegatives, pairs, count=count)
    assert found(kept) == near(expected)
    statistics = kt.row_statistics(kept)  # the engine reads what was kept as the loops do
    assert statistics.negative_logsumexp.tolist() == pytest.approx(
        [engine_oracle.log_sum_exp(negatives) for _, negatives in expected], abs=1e-12
    )
    assert statistics.positive_count.tolist() == [len(positives) for positives, _ in expected]


def semi_hard(rows: Sequence[Sequence[engine_oracle.Cell]]) -> list[tuple[float, float]]:
    """Return (positive, negative) of every positive pair with a negative, as the paper has it."""
    triplets = []
    for row in rows:
        negatives = [cell.score for cell in row if not cell.positive]
        for positive in (cell.score for cell in row if cell.positive):
            below = [score for score in negatives if score < positive]
            if negatives:
                triplets.append((positive, max(below) if below else min(negatives)))
    return sorted(triplets)


@pytest.mark.parametrize("name", [name for name in SCENES if "weights" not in name])
@pytest.mark.parametrize("how", ["whole", "tiles of 4"])
def test_semi_hard_negatives(monkeypatch: pytest.MonkeyPatch, name: str, how: str) -> None:
    cut(monkeypatch, "tiles of 18" if name.startswith("two labels") and how != "whole" else how)
    pairs = scene(name)
    if name.startswith("two rules"):  # what is added to a mined negative is of no matter here
        pairs = scene("a rule that ignores all")
    given, kept = engine_oracle.cells(pairs), engine_oracle.cells(mined(kt.SemiHardNegatives, pairs))
    triplets = []
    for row in kept:
        (positive,) = (cell.score for cell in row if cell.positive)
        negatives = [cell.score for cell in row if not cell.positive]
        assert len(negatives) <= 1
        triplets += [(positive, negative) for negative in negatives]
    assert sorted(triplets) == [pytest.approx(pair, abs=1e-12) for pair in semi_hard(given)]
    assert len(kept) == sum(cell.positive for row in given for cell in row)  # also those without a negative


def on_a_line(
    anchors: Sequence[float], candidates: Sequence[float], match: Sequence[int], theirs: Sequence[int]
) -> kt.Pairs:
    """Scores that float arithmetic has exactly: products of numbers with few digits."""
    keys = kt.Keys(match=torch.tensor(match)), kt.Keys(match=torch.tensor(theirs, dtype=torch.int64))
    ours, others = (torch.tensor(side, dtype=torch.float32)[:, None] for side in (anchors, candidates))
    return kt.Pairs((kt.Block(ours, others, *keys),), kt.Dot())


@pytest.mark.parametrize(
    ("candidates", "negative"),
    [
        ([3.0, 3.0, 2.0, 5.0], 2.0),  # a tie with the positive is not below it
        ([3.0, 2.0, 2.0, 5.0], 2.0),  # a tie among negatives: one of them
        ([3.0, 3.0, 3.0, 3.0], 3.0),  # nothing but ties: the lowest
        ([3.0, 4.0, 7.0, 5.0], 4.0),  # all above: the lowest
        ([3.0, -1.0, -2.0, 3.5], -1.0),
        ([3.0], None),  # no negative at all
    ],
)
def test_semi_hard_of_ties(candidates: list[float], negative: float | None) -> None:
    pairs = on_a_line([1.0], candidates, [0], list(range(len(candidates))))
    kept = mined(kt.SemiHardNegatives, pairs)
    ((positives, negatives),) = found(kept)
    assert positives == [3.0]
    assert negatives == ([] if negative is None else [negative])


def test_hardest_of_ties_and_of_fewer_than_asked_for() -> None:
    pairs = on_a_line([1.0, -1.0], [4.0, 2.0, 2.0, 2.0, 1.0], [0, 1], [0, 5, 5, 5, 1])
    assert found(mined(kt.HardestNegatives, pairs, count=2)) == [([4.0], [2.0, 2.0]), ([-1.0], [-2.0, -2.0])]
    assert found(mined(kt.HardestNegatives, pairs, count=9)) == [
        ([4.0], [1.0, 2.0, 2.0, 2.0]),
        ([-1.0], [-4.0, -2.0, -2.0, -2.0]),
    ]
    alone = on_a_line([1.0, 2.0], [3.0, 4.0], [0, 0], [0, 0])
    assert found(mined(kt.HardestNegatives, alone)) == [([3.0, 4.0], []), ([6.0, 8.0], [])]
    alone.anchors.requires_grad_()
    statistics = kt.row_statistics(mined(kt.HardestNegatives, alone))
    assert statistics.negative_logsumexp.tolist() == [-math.inf] * 2
    assert not statistics.negative_logsumexp.requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_mining_of_half_embeddings_compares_in_float32(dtype: torch.dtype) -> None:
    anchors, candidates = normal(6, 8, seed=1, dtype=dtype), normal(30, 8, seed=2, dtype=dtype)
    block = kt.Block(anchors, candidates, kt.Keys(match=torch.arange(6)), kt.Keys(match=torch.arange(30) % 10))
    pairs = kt.Pairs((block,))
    top = kt.top_negatives(pairs, 4)
    for i, best in enumerate(engine_oracle.top(pairs, 4)):
        assert top.slot[i].tolist() == [cell.slot for cell in best]
    for sampler in (kt.HardestNegatives, kt.SemiHardNegatives):
        assert kt.row_statistics(mined(sampler, pairs)).logsumexp.dtype == torch.float32


@pytest.mark.parametrize("name", SCENES)
def test_one_row_per_positive(name: str) -> None:
    pairs = scene(name)
    expected = [
        ([cell.score + cell.log_weight], sorted(o.score + o.log_weight for o in row if not o.positive))
        for row in engine_oracle.cells(pairs)
        for cell in row
        if cell.positive
    ]
    rows = pairs.per_positive()
    assert sorted(found(rows)) == near(sorted(expected))
    index, logits = pairs.positive_logits(0.5)
    assert len(index) == len(rows.anchors)
    assert logits.tolist() == pytest.approx(
        [p[0] for p, _ in found(replace(rows, similarity=kt.LearnedTemperature(initial=0.5).double()))], abs=1e-7
    )


@pytest.mark.parametrize("k", [0, -1])
def test_what_mining_refuses(k: int) -> None:
    with pytest.raises(kt.InvalidValueError, match=f"`k` must be >= 1, got {k}"):
        kt.top_negatives(scene("match"), k)
    with pytest.raises(kt.InvalidValueError, match=f"`count` must be >= 1, got {k}"):
        kt.HardestNegatives(kt.InBatch(), count=k)


def test_a_rule_of_the_caller() -> None:
    pairs = scene("several blocks")
    rule = kt.Rule(NumberRule(0.2, -math.inf))
    ruled = replace(pairs, blocks=tuple(replace(block, rules=(rule,)) for block in pairs.blocks))
    ours, theirs = kt.top_negatives(pairs, 5, rule=rule), kt.top_negatives(ruled, 5)
    assert torch.equal(ours.scores, theirs.scores)
    assert torch.equal(ours.slot, theirs.slot)
    assert (ours.scores[:, 0] <= 0.2).all()


def views(count: int, seed: int) -> list[Tensor]:
    return [normal(count, 5, seed=seed + n) for n in range(2)]


@pytest.mark.parametrize("wrapped", ["debiased around hard", "hard around debiased", "hardest", "hard, mined"])
def test_wrapped_samplers_of_a_method_over_steps(wrapped: str) -> None:
    """Three steps with a queue that wraps: each step's loss is that of loops over all rows so far."""
    wrappers: dict[str, Callable[[kt.PairSampler], kt.PairSampler]] = {
        "debiased around hard": lambda inner: kt.Debiased(kt.HardNegatives(inner, 0.7), 0.1),
        "hard around debiased": lambda inner: kt.HardNegatives(kt.Debiased(inner, 0.1), 0.7),
        "hardest": lambda inner: kt.HardestNegatives(inner, 3),
        "hard, mined": lambda inner: kt.HardNegatives(kt.HardestNegatives(inner, 3), 0.7),
    }
    sampler = wrappers[wrapped](kt.Queue(kt.InBatch(), size=11))
    torch.manual_seed(0)
    encoder = nn.Linear(5, 4).double()
    method = kt.Method(encoder, sampler=sampler, objective=NTXent(0.5)).double()
    memory: list[tuple[list[float], int]] = []
    draws = iter(range(100, 200))
    for ids in ([0, 1, 2], [3, 0, 4, 5], [1, 6, 7]):
        samples = views(len(ids), next(draws))
        batch = [kt.View(inputs, torch.tensor(ids)) for inputs in samples]
        loss, encoded = method(batch)
        rows = [(row, i) for inputs in samples for row, i in zip(encoder(inputs).tolist(), ids, strict=True)]
        assert loss.reduced().value.item() == pytest.approx(expected_loss(wrapped, rows, memory), rel=1e-12)
        method.after_step([view.detach() for view in encoded], 0.5)
        memory = [*memory, *rows][-11:]


def expected_loss(wrapped: str, rows: list[tuple[list[float], int]], memory: list[tuple[list[float], int]]) -> float:
    hardness = 0.7 if "hard " in wrapped or wrapped in ("hard, mined", "debiased around hard") else 0.0
    prior = 0.1 if "debiased" in wrapped else 0.0
    losses = []
    for i, (row, sample) in enumerate(rows):
        batch = [(other, s) for j, (other, s) in enumerate(rows) if j != i]
        (positive,) = (engine_oracle.score(kt.Cosine(), row, other) for other, s in batch if s == sample)
        others = [other for other, s in [*batch, *memory] if s != sample]
        negatives = sorted((engine_oracle.score(kt.Cosine(), row, other) / 0.5 for other in others), reverse=True)
        if wrapped in ("hardest", "hard, mined"):
            negatives = negatives[:3]
        n = len(negatives)
        weights = [math.exp(hardness * x) for x in negatives]
        total = math.fsum(w * math.exp(x) for w, x in zip(weights, negatives, strict=True)) * n / math.fsum(weights)
        if prior:
            total = max((total - n * prior * math.exp(positive / 0.5)) / (1 - prior), n * math.exp(-1 / 0.5))
        losses.append(-positive / 0.5 + math.log(math.exp(positive / 0.5) + total))
    return math.fsum(losses) / len(losses)
