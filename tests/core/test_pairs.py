"""Who is compared with whom: the key rules against plain loops, and what a block refuses.

Shapes: A anchors, C candidates, K slots of an anchor, D embedding size.
"""

import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import kontrast as kt

NAMES = ("scope", "row", "match", "alias")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ints(*shape: int, high: int, low: int = 0, seed: int = 0) -> Tensor:
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed))


def random_block(seed: int, *, indexed: bool) -> kt.Block:
    """Few distinct keys, so that all rules meet; -1 among them, and each key absent at times."""
    draw = random.Random(seed)
    a, c, k = draw.randint(1, 7), draw.randint(1, 7), draw.randint(1, 5)

    def keys(*shape: int) -> kt.Keys:
        drawn = {
            name: ints(*shape, low=-1, high=draw.choice([2, 4]), seed=draw.randrange(1 << 30))
            for name in NAMES
            if draw.random() < 0.75
        }
        return kt.Keys(**drawn)

    index = ints(a, k, high=c, seed=seed) if indexed else None
    return kt.Block(normal(a, 3), normal(c, 3, seed=1), keys(a), keys(a, k) if indexed else keys(c), index)


def oracle(block: kt.Block, anchor: int, slot: int) -> str:
    """Return what the rules, read in their order, say of one slot."""

    def equal(name: str) -> bool | None:
        ours, theirs = getattr(block.anchor_keys, name), getattr(block.candidate_keys, name)
        if ours is None or theirs is None:
            return None
        first = int(ours[anchor])
        second = int(theirs[slot]) if block.index is None else int(theirs[anchor, slot])
        return first == second and first != -1

    if equal("scope") is False or equal("row"):
        return "ignored"
    if equal("match"):
        return "positive"
    return "ignored" if equal("alias") else "negative"


def relations(block: kt.Block) -> list[list[str]]:
    slots = len(block.candidates) if block.index is None else block.index.shape[1]
    return [[oracle(block, i, j) for j in range(slots)] for i in range(len(block.anchors))]


@pytest.mark.parametrize("indexed", [False, True])
def test_relation_follows_the_rules(indexed: bool) -> None:
    seen = set[str]()
    for seed in range(150):
        block = random_block(seed, indexed=indexed)
        expected = relations(block)
        positive, negative = block.relation()
        assert positive.tolist() == [[what == "positive" for what in row] for row in expected], seed
        assert negative.tolist() == [[what == "negative" for what in row] for row in expected], seed
        seen |= {what for row in expected for what in row}
    assert seen == {"positive", "negative", "ignored"}


@pytest.mark.parametrize("indexed", [False, True])
def test_positive_index_is_the_join_of_the_keys(indexed: bool) -> None:
    found = 0
    for seed in range(150):
        block = random_block(seed, indexed=indexed)
        expected = [
            (i, j if block.index is None else int(block.index[i, j]))
            for i, row in enumerate(relations(block))
            for j, what in enumerate(row)
            if what == "positive"
        ]
        anchor, candidate = block.positive_index()
        assert anchor.tolist() == sorted(anchor.tolist()), seed
        assert sorted(zip(anchor.tolist(), candidate.tolist(), strict=True)) == sorted(expected), seed
        found += len(expected)
    assert found > 50


def test_without_candidates_there_is_nothing() -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    block = kt.Block(normal(2, 3), normal(0, 3), kt.Keys(match=torch.arange(2)), kt.Keys(match=nothing))
    assert [list(part.shape) for part in block.relation()] == [[2, 0], [2, 0]]
    assert [len(part) for part in block.positive_index()] == [0, 0]


def test_pairs_join_the_positives_of_their_blocks() -> None:
    anchors, first, second = normal(3, 4, seed=2), normal(2, 4, seed=3), normal(3, 4, seed=4)
    match = kt.Keys(match=torch.tensor([5, 6, 7]))
    pairs = kt.Pairs((kt.Block(anchors, first, match, kt.Keys(match=torch.tensor([7, 5]))),)).with_blocks(
        [kt.Block(anchors, second, match, kt.Keys(match=torch.tensor([7, 8, 7])))]
    )
    rows = [(0, first[1]), (2, first[0]), (2, second[0]), (2, second[2])]
    index, ours, theirs = pairs.positive_index()
    assert index.tolist() == [i for i, _ in rows]
    assert torch.equal(ours, torch.stack([anchors[i] for i, _ in rows]))
    assert torch.equal(theirs, torch.stack([row for _, row in rows]))
    aligned = pairs.aligned()
    assert torch.equal(aligned[0], ours)
    assert torch.equal(aligned[1], theirs)


@pytest.mark.parametrize("similarity", [kt.Cosine(), kt.Dot()])
def test_positive_scores_are_similarities_with_gradient(similarity: kt.Similarity) -> None:
    anchors, candidates = normal(3, 4, seed=5).requires_grad_(), normal(4, 4, seed=6).requires_grad_()
    match = torch.tensor([1, 2, -1]), torch.tensor([2, 1, 2, -1])

    def scores(a: Tensor, c: Tensor) -> Tensor:
        block = kt.Block(a, c, kt.Keys(match=match[0]), kt.Keys(match=match[1]))
        return kt.Pairs((block,), similarity=similarity).positive_scores()[1]

    expected = []
    for i, j in ((0, 1), (1, 0), (1, 2)):
        a, c = anchors[i].tolist(), candidates[j].tolist()
        product = sum(x * y for x, y in zip(a, c, strict=True))
        lengths = sum(x * x for x in a) ** 0.5 * sum(y * y for y in c) ** 0.5
        expected.append(product / lengths if isinstance(similarity, kt.Cosine) else product)
    assert scores(anchors, candidates).tolist() == pytest.approx(expected, rel=1e-12)
    assert torch.autograd.gradcheck(scores, (anchors, candidates))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_positive_scores_of_half_inputs_are_as_exact_as_row_statistics(dtype: torch.dtype) -> None:
    views = [normal(8, 16, seed=seed).mul(100).to(dtype) for seed in (7, 8)]  # squared norms beyond float16
    pairs = kt.InBatch("forward").pairs(kt.embedded(*views))[0]
    exact = kt.InBatch("forward").pairs(kt.embedded(*(view.double() for view in views)))[0]
    scores = pairs.positive_scores()[1]
    assert scores.tolist() == pytest.approx(exact.positive_scores()[1].tolist(), abs=1e-5)
    assert scores.tolist() == pytest.approx(kt.row_statistics(pairs).positive_mean.tolist(), abs=1e-5)


def test_between_reads_the_keys_it_is_told() -> None:
    views = kt.embedded(
        normal(4, 2), ids=torch.arange(4), labels=torch.tensor([0, 0, 1, 1]), groups=torch.tensor([0, 1, 1, -1])
    )
    view = views[0]
    positive, negative = kt.Pairs.between(view, view, match="labels").blocks[0].relation()
    assert positive.nonzero().tolist() == [[0, 1], [1, 0], [2, 3], [3, 2]]
    assert negative.nonzero().tolist() == [[0, 2], [0, 3], [1, 2], [1, 3], [2, 0], [2, 1], [3, 0], [3, 1]]
    scoped = kt.Pairs.between(view, view, scope="groups").blocks[0].relation()
    assert [part.nonzero().tolist() for part in scoped] == [[], [[1, 2], [2, 1]]]
    aliased = kt.Pairs.between(view, view, alias="labels").blocks[0].relation()
    assert torch.equal(aliased[1], negative)
    assert not aliased[0].any()


def test_between_carries_name_weight_and_rows() -> None:
    first, second = kt.embedded(normal(2, 2), normal(2, 2, seed=1))
    pairs = kt.Pairs.between(first, second, name="forth", weight=0.5)
    assert (pairs.name, pairs.weight) == ("forth", 0.5)
    assert pairs.rows is first
    assert pairs.anchors is first.rows


def test_between_refuses_what_is_not_there() -> None:
    view = kt.embedded(normal(2, 2))[0]
    bare = kt.Encoded(None, view.ids, view.copies)
    with pytest.raises(kt.InvalidValueError, match=r"compares pooled rows \[M, D\], and an encoding here has none"):
        kt.Pairs.between(view, bare)
    with pytest.raises(kt.IncompatibleError, match="pairs by `groups` need a batch that carries `groups`"):
        kt.Pairs.between(view, view, scope="groups")


NONE = kt.Keys()
BAD_BLOCKS: list[tuple[tuple[Any, ...], str]] = [
    ((normal(2, 3), normal(2, 4), NONE, NONE), r"with one D, got \[2, 3\] and \[2, 4\]"),
    ((normal(3), normal(2, 3), NONE, NONE), r"\[A, D\] and \[C, D\] with one D, got \[3\] and \[2, 3\]"),
    ((normal(2, 3), normal(2, 3).float(), NONE, NONE), r"one floating dtype, got torch.float64 and torch.float32"),
    ((ints(2, 3, high=2), ints(2, 3, high=2), NONE, NONE), r"one floating dtype, got torch.int64 and torch.int64"),
    ((normal(2, 3), normal(4, 3), kt.Keys(match=torch.arange(4)), NONE), r"anchor key `match` must be int64 \[2\]"),
    ((normal(2, 3), normal(4, 3), NONE, kt.Keys(row=torch.arange(2))), r"candidate key `row` .*\[4\], got .*\[2\]"),
    (
        (normal(2, 3), normal(4, 3), NONE, kt.Keys(scope=torch.ones(4))),
        r"key `scope` must be int64 \[4\], got torch.fl",
    ),
    (
        (normal(2, 3), normal(4, 3), NONE, kt.Keys(alias=torch.arange(4)), ints(2, 5, high=4)),
        r"candidate key `alias` must be int64 \[2, 5\], got torch.int64 \[4\]",
    ),
    ((normal(2, 3), normal(4, 3), NONE, NONE, None, normal(2)), r"log_weights must be \[4\], got \[2\]"),
    ((normal(2, 3), normal(4, 3), NONE, NONE, ints(2, 5, high=4), normal(4)), r"log_weights must be \[2, 5\]"),
    ((normal(2, 3), normal(4, 3), NONE, NONE, ints(1, 5, high=4)), r"index.*\[1, 5\]"),
    ((normal(2, 3), normal(4, 3), NONE, NONE, ints(2, high=4)), r"index.*\[2\]"),
    ((normal(2, 3), normal(4, 3), NONE, NONE, normal(2, 5)), r"index.*torch.float64"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_BLOCKS, ids=range(len(BAD_BLOCKS)))
def test_a_block_refuses_what_does_not_fit(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(kt.InvalidValueError, match=message):
        kt.Block(*arguments)


def test_pairs_refuse_blocks_of_different_anchors() -> None:
    blocks = [kt.Block(normal(a, 3), normal(4, 3), NONE, NONE) for a in (2, 3)]
    with pytest.raises(kt.InvalidValueError, match=r"must share their anchors, got blocks of \[2, 3\] rows"):
        kt.Pairs(tuple(blocks))
    with pytest.raises(kt.InvalidValueError, match=r"got blocks of \[\] rows"):
        kt.Pairs(())


def test_anchor_weights_are_one_number_per_anchor_and_only_for_who_heeds_them() -> None:
    (pairs,) = kt.InBatch().pairs(kt.embedded(torch.randn(3, 4), torch.randn(3, 4)))
    with pytest.raises(kt.InvalidValueError, match=r"must be floating \[6\], one per anchor, got torch.float32 \[5\]"):
        replace(pairs, anchor_weights=torch.ones(5))
    weighted = replace(pairs, anchor_weights=torch.arange(6.0))
    assert weighted.per_positive().anchor_weights is not None
    assert pairs.weighted(torch.ones(6)).tolist() == [1.0] * 6
    assert weighted.weighted(torch.ones(6)).tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]

    class Deaf(kt.Objective):
        """Does not say that it heeds weights."""

        def forward(self, pairs: kt.Pairs) -> kt.Loss:
            return kt.Loss.over_rows(kt.row_statistics(pairs).positive_mean)

    with pytest.raises(kt.IncompatibleError, match="the sampler weighs its anchors, and Deaf does not heed weights"):
        Deaf()(weighted)
