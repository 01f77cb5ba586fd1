"""Row statistics against plain loops over Python floats, and what they do at the edges.

Shapes: A anchors, C candidates, K slots of an anchor, D embedding size.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import kontrast as kt

NAMES = ("positive_count", "negative_count", "positive_mean", "positive_logsumexp", "negative_logsumexp")


def normal(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def ints(*shape: int, high: int, seed: int) -> Tensor:
    return torch.randint(-1, high, shape, generator=torch.Generator().manual_seed(seed))


def three_blocks(dtype: torch.dtype = torch.float64, *, weighted: bool = True) -> kt.Pairs:
    """Five anchors against all, against slots of their own and against negatives alone; several positives or none."""
    anchors = normal(5, 4, seed=0, dtype=dtype)
    own = kt.Keys(match=torch.tensor([0, 1, 2, 1, 9]), alias=torch.arange(5))
    keys = [
        kt.Keys(match=ints(6, high=4, seed=2)),
        kt.Keys(match=ints(5, 3, high=3, seed=4), alias=ints(5, 3, high=5, seed=5)),
        kt.Keys(alias=ints(3, high=5, seed=8)),
    ]
    index = [None, ints(5, 3, high=4, seed=6).clamp(min=0), None]
    wide = torch.promote_types(dtype, torch.float32)
    weights = [normal(*shape, seed=9, dtype=wide) if weighted else None for shape in ((6,), (5, 3), (3,))]
    candidates = [normal(count, 4, seed=count, dtype=dtype) for count in (6, 4, 3)]
    return kt.Pairs(
        tuple(kt.Block(anchors, candidates[n], own, keys[n], index[n], weights[n]) for n in range(len(candidates)))
    )


def cosine(first: Sequence[float], second: Sequence[float]) -> float:
    product = math.fsum(x * y for x, y in zip(first, second, strict=True))
    lengths = math.sqrt(math.fsum(x * x for x in first) * math.fsum(y * y for y in second))
    return product / lengths if lengths else 0.0


def log_sum_exp(values: Sequence[float]) -> float:
    if not values:
        return -math.inf
    top = max(values)
    return top + math.log(math.fsum(math.exp(value - top) for value in values))


def oracle(pairs: kt.Pairs, temperature: float) -> dict[str, list[float]]:
    """Return every statistic by its definition; who is what is taken from `relation`, tested by itself."""
    rows: dict[str, list[float]] = {name: [] for name in NAMES}
    for i in range(len(pairs.anchors)):
        positives, negatives = list[float](), list[float]()
        for block in pairs.blocks:
            positive, negative = (part.tolist() for part in block.relation())
            for slot in range(len(positive[i])):
                c = slot if block.index is None else int(block.index[i, slot])
                logit = cosine(block.anchors[i].tolist(), block.candidates[c].tolist()) / temperature
                if block.log_weights is not None:
                    logit += float(block.log_weights[slot] if block.index is None else block.log_weights[i, slot])
                if positive[i][slot]:
                    positives.append(logit)
                if negative[i][slot]:
                    negatives.append(logit)
        rows["positive_count"].append(len(positives))
        rows["negative_count"].append(len(negatives))
        rows["positive_mean"].append(math.fsum(positives) / len(positives) if positives else 0.0)
        rows["positive_logsumexp"].append(log_sum_exp(positives))
        rows["negative_logsumexp"].append(log_sum_exp(negatives))
    return rows


def assert_equal(found: kt.RowStatistics, expected: dict[str, list[float]], tolerance: float) -> None:
    for name in NAMES:
        assert getattr(found, name).tolist() == pytest.approx(expected[name], rel=tolerance, abs=tolerance), name
    both = [
        log_sum_exp([p, n]) for p, n in zip(expected["positive_logsumexp"], expected["negative_logsumexp"], strict=True)
    ]
    assert found.logsumexp.tolist() == pytest.approx(both, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0, 10.0])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.float32, 2e-5), (torch.bfloat16, 2e-5), (torch.float16, 2e-5)],
)
def test_equals_the_loops(dtype: torch.dtype, tolerance: float, temperature: float) -> None:
    pairs = three_blocks(dtype)  # rounding happens here: the oracle reads the rounded embeddings
    expected = oracle(pairs, temperature)
    assert min(expected["positive_count"]) == 0
    assert max(expected["positive_count"]) > 1
    found = kt.row_statistics(pairs, temperature=temperature)
    assert found.logsumexp.dtype == torch.promote_types(dtype, torch.float32)
    assert_equal(found, expected, tolerance / min(temperature, 1.0))


def test_large_half_embeddings_do_not_overflow() -> None:
    views = [normal(4, 16, seed=seed).mul(100).half() for seed in (1, 2)]  # squared norms beyond 65504
    pairs = kt.InBatch().pairs(kt.embedded(*views))[0]
    assert_equal(kt.row_statistics(pairs, temperature=0.1), oracle(pairs, 0.1), 2e-4)


def test_logits_far_beyond_the_range_of_exp() -> None:
    pairs = replace(three_blocks(weighted=False), similarity=kt.Dot())
    huge = kt.Pairs(tuple(replace(b, anchors=b.anchors * 1e4) for b in pairs.blocks), similarity=kt.Dot())
    found = kt.row_statistics(huge, temperature=0.01)
    scores = huge.blocks[2].anchors @ huge.blocks[2].candidates.T / 0.01
    only = kt.row_statistics(kt.Pairs(huge.blocks[2:], similarity=kt.Dot()), temperature=0.01)
    top = torch.where(huge.blocks[2].relation()[1], scores, -math.inf).amax(1)
    assert torch.allclose(only.negative_logsumexp, top, rtol=1e-6)
    assert found.logsumexp.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_changes_nothing(dtype: torch.dtype) -> None:
    results = []
    for enabled in (False, True):
        leaf = normal(6, 8, seed=3, dtype=dtype).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            pairs = kt.InBatch().pairs(kt.embedded(leaf[:3], leaf[3:]))[0]
            found = kt.row_statistics(pairs, temperature=0.1)
        (found.logsumexp - found.positive_mean).sum().backward()
        assert leaf.grad is not None
        results.append([*(getattr(found, name).detach() for name in NAMES), leaf.grad])
    for plain, cast in zip(*results, strict=True):
        assert torch.equal(plain, cast)


@pytest.mark.parametrize("similarity", [kt.Cosine(), kt.Dot()])
@pytest.mark.parametrize("indexed", [False, True])
def test_gradcheck(similarity: kt.Similarity, indexed: bool) -> None:
    match = torch.tensor([0, 1, 0]), torch.tensor([0, 1, 2, 1, 0])
    index = torch.tensor([[0, 1, 2], [3, 3, 4], [0, 0, 2]]) if indexed else None
    theirs = match[1] if index is None else match[1][index]

    log_weights = normal(*theirs.shape, seed=3)

    def statistics(anchors: Tensor, candidates: Tensor) -> tuple[Tensor, ...]:
        block = kt.Block(anchors, candidates, kt.Keys(match=match[0]), kt.Keys(match=theirs), index, log_weights)
        found = kt.row_statistics(kt.Pairs((block,), similarity=similarity), temperature=0.5)
        return found.positive_mean, found.positive_logsumexp, found.negative_logsumexp, found.logsumexp

    inputs = normal(3, 4, seed=1), normal(5, 4, seed=2)
    assert torch.autograd.gradcheck(statistics, tuple(part.requires_grad_() for part in inputs))


def test_blocks_merge_into_what_one_block_gives() -> None:
    anchors, candidates = normal(4, 3, seed=1), normal(7, 3, seed=2)
    ours, theirs = kt.Keys(match=torch.arange(4)), ints(7, high=4, seed=3)
    parts = [kt.Block(anchors, candidates[at], ours, kt.Keys(match=theirs[at])) for at in (slice(0, 3), slice(3, 7))]
    whole = kt.row_statistics(kt.Pairs((kt.Block(anchors, candidates, ours, kt.Keys(match=theirs)),)), temperature=0.1)
    merged = kt.row_statistics(kt.Pairs(tuple(parts)), temperature=0.1)
    for name in NAMES:
        assert torch.allclose(getattr(whole, name), getattr(merged, name), rtol=1e-12), name


def ragged(candidates: int = 4) -> tuple[Tensor, kt.Pairs]:
    """Anchor 0 has both kinds, 1 no positive, 2 no negative, 3 neither."""
    leaf = normal(4, 3, seed=4).requires_grad_()
    block = kt.Block(
        leaf,
        normal(candidates, 3, seed=5),
        kt.Keys(scope=torch.tensor([0, 0, 1, 2]), match=torch.tensor([0, 8, 1, 9])),
        kt.Keys(scope=torch.tensor([0, 0, 1, 1])[:candidates], match=torch.tensor([0, 1, 1, 1])[:candidates]),
    )
    return leaf, kt.Pairs((block,))


@pytest.mark.parametrize(
    ("name", "empty"),
    [("positive_logsumexp", [1, 3]), ("negative_logsumexp", [2, 3]), ("logsumexp", [3]), ("positive_mean", [1, 3])],
)
def test_what_a_row_lacks_has_no_gradient(name: str, empty: list[int]) -> None:
    leaf, pairs = ragged()
    values = getattr(kt.row_statistics(pairs, temperature=0.1), name)
    absent = 0.0 if name == "positive_mean" else -math.inf
    assert [i for i, value in enumerate(values.tolist()) if value == absent] == empty
    values.sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()
    assert [i for i in range(4) if not leaf.grad[i].any()] == empty


def test_no_candidates_at_all() -> None:
    leaf, pairs = ragged(candidates=0)
    found = kt.row_statistics(pairs, temperature=0.1)
    assert found.positive_count.tolist() == found.negative_count.tolist() == [0] * 4
    assert found.logsumexp.tolist() == [-math.inf] * 4
    (found.positive_mean.sum() + 0 * leaf.sum()).backward()
    assert leaf.grad is not None
    assert not leaf.grad.any()


@pytest.mark.parametrize("switched_off", [[1], [1, 2, 3]])
def test_a_log_weight_of_minus_infinity_takes_a_candidate_out(switched_off: list[int]) -> None:
    leaf, candidates = normal(2, 3, seed=6).requires_grad_(), normal(4, 3, seed=7)
    weights = torch.zeros(4, dtype=torch.float64)
    weights[switched_off] = -math.inf
    match = torch.tensor([0, 1, 2, 3])
    block = kt.Block(leaf, candidates, kt.Keys(match=match[[0, 0]]), kt.Keys(match=match), None, weights)
    found = kt.row_statistics(kt.Pairs((block,)), temperature=0.1)
    logits = [[cosine(a, c) / 0.1 for c in candidates.tolist()] for a in leaf.tolist()]
    kept = [j for j in range(1, 4) if j not in switched_off]
    assert found.negative_logsumexp.tolist() == pytest.approx([log_sum_exp([row[j] for j in kept]) for row in logits])
    assert found.positive_mean.tolist() == pytest.approx([row[0] for row in logits])
    (found.negative_logsumexp - found.positive_mean).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()


def test_zero_rows_have_score_zero_and_no_gradient() -> None:
    leaf = normal(6, 3, seed=8)
    leaf[1] = 0
    leaf[5] = 0
    leaf.requires_grad_()
    pairs = kt.InBatch().pairs(kt.embedded(leaf[:3], leaf[3:]))[0]
    found = kt.row_statistics(pairs, temperature=0.01)
    assert_equal(found, oracle(pairs, 0.01), 1e-10)
    (found.logsumexp - found.positive_mean).sum().backward()
    assert leaf.grad is not None
    assert [i for i in range(6) if not leaf.grad[i].any()] == [1, 5]
    assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_must_be_positive(temperature: float) -> None:
    with pytest.raises(kt.InvalidValueError, match=rf"`temperature` must be > 0, got {temperature!r}"):
        kt.row_statistics(three_blocks(), temperature=temperature)
