"""Groups of rows by scope, the engine's fast way, against plain loops over pairs.

Shapes: M rows, D embedding size.
"""

import math
import weakref
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

import kontrast as kt
from kontrast import exponentials
from kontrast.arrays import cut
from kontrast.block import Block
from kontrast.groups import meetings
from kontrast.keys import Keys, join
from kontrast.pairs import Pairs

SCOPES = {
    "equal groups": [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3],
    "in two runs": [0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0],
    "mixed up": [2, 0, 1, 2, 1, 0, 0, 1, 2, 3, 3, 3],
    "unequal": [5, 5, 5, 5, 5, 1, 1, 2, 7, 7, 7, 7],
    "of three and four": [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, -1, -1],
    "row by row": [0, 1, 2, 3] * 3,
    "some compared with nothing": [0, -1, 0, 1, 1, -1, 0, 1, 1, 4, -1, 4],
    "one": [3] * 12,
    "nothing": [-1] * 12,
}


def scene(scope: list[int], alias: bool = False) -> Pairs:
    generator = torch.Generator().manual_seed(len(set(scope)))
    rows = torch.randn(12, 4, dtype=torch.float64, generator=generator).requires_grad_()
    own = torch.arange(12)
    keys = Keys(torch.tensor(scope), own, own % 5, own % 2 if alias else None)
    return Pairs((Block(rows, rows, keys, keys),), kt.Dot())


def oracle(pairs: Pairs, temperature: float, hardness: float) -> list[tuple[int, int, float, float]]:
    """Return (positives, negatives, log-sum of positives, of the negatives) of every row."""
    block = pairs.blocks[0]
    keys = block.anchor_keys
    assert keys.scope is not None
    assert keys.match is not None
    result = []
    for i in range(12):
        positive, negative = [], []
        for j in range(12):
            if i == j or keys.scope[i] != keys.scope[j] or keys.scope[i] == -1:
                continue
            logit = float((block.anchors[i] @ block.anchors[j]).detach()) / temperature
            if keys.match[i] == keys.match[j]:
                positive.append(logit)
            elif keys.alias is None or keys.alias[i] != keys.alias[j]:
                negative.append(logit)
        total = sum(math.exp(x) for x in negative)
        if hardness and negative:
            weight = sum(math.exp(hardness * x) for x in negative)
            total = len(negative) * sum(math.exp((1 + hardness) * x) for x in negative) / weight
        of_positives = sum(math.exp(x) for x in positive)
        first, second = (math.log(x) if x else -math.inf for x in (of_positives, total))
        result.append((len(positive), len(negative), first, second))
    return result


def value(pairs: Pairs, temperature: float) -> Tensor:
    rows = kt.row_statistics(pairs, temperature=temperature)
    return torch.where(rows.logsumexp > -torch.inf, rows.logsumexp, 0.0).square().sum() + rows.positive_mean.sum()


@pytest.mark.parametrize("stacked", [1 << 18, 20, 4], ids=["stacked", "two at a time", "one by one"])
@pytest.mark.parametrize("hardness", [0.0, 1.0, 0.7])
@pytest.mark.parametrize("alias", [False, True])
@pytest.mark.parametrize("name", SCOPES)
def test_statistics_of_scopes(
    name: str, alias: bool, hardness: float, stacked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(exponentials.STACKED, "cpu", stacked)
    pairs = replace(scene(SCOPES[name], alias), hardness=hardness)
    rows = kt.row_statistics(pairs, temperature=0.7)
    expected = oracle(pairs, 0.7, hardness)
    assert rows.positive_count.tolist() == [row[0] for row in expected]
    assert rows.negative_count.tolist() == [row[1] for row in expected]
    assert rows.positive_logsumexp.tolist() == pytest.approx([row[2] for row in expected], rel=1e-12)
    assert rows.negative_logsumexp.tolist() == pytest.approx([row[3] for row in expected], rel=1e-12)


@pytest.mark.parametrize("stacked", [1 << 18, 20, 4], ids=["stacked", "two at a time", "one by one"])
@pytest.mark.parametrize(
    "name", ["mixed up", "unequal", "of three and four", "row by row", "some compared with nothing"]
)
def test_gradient_of_scopes(name: str, stacked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(exponentials.STACKED, "cpu", stacked)
    pairs = replace(scene(SCOPES[name]), hardness=0.5)
    block = pairs.blocks[0]

    def of(rows: Tensor) -> Tensor:
        return value(replace(pairs, blocks=(replace(block, anchors=rows, candidates=rows),)), 0.7)

    assert torch.autograd.gradcheck(of, block.anchors)


@pytest.mark.parametrize("entries", [1 << 18, 9], ids=["whole", "in tiles"])
@pytest.mark.parametrize("hardness", [0.0, 0.5])
@pytest.mark.parametrize("name", ["unequal", "row by row", "one"])
@pytest.mark.parametrize("longest", [1.0, 7.0, 30.0])
def test_rows_of_very_different_length_in_one_scope(
    name: str, longest: float, hardness: float, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Greatest logits of rows of a scope lie 2, 90 and 2,000 apart: in float32 a common shift would lose the least."""
    monkeypatch.setitem(exponentials.ENTRIES, "cpu", entries)
    pairs = replace(scene(SCOPES[name]), hardness=hardness)
    block = pairs.blocks[0]
    found = []
    for dtype, dense in ((torch.float64, True), (torch.float32, False)):
        rows = block.anchors.detach().to(dtype) * torch.linspace(1, longest, 12, dtype=dtype)[:, None]
        rows.requires_grad_()
        own = replace(pairs, blocks=(replace(block, anchors=rows, candidates=rows),))
        sums = dense_log_sums(own) if dense else kt.row_statistics(own).negative_logsumexp
        kept = torch.where(sums > -torch.inf, sums, 0.0)
        found.append((kept.detach().double(), torch.autograd.grad(kept.sum(), rows)[0].double()))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def dense_log_sums(pairs: Pairs) -> Tensor:
    """Return the log-sums of the negatives, hard ones, from whole matrices."""
    block = pairs.blocks[0]
    logits, negative = block.anchors @ block.anchors.T, block.relation()[1]

    def log_sum(power: float) -> Tensor:
        some = negative.any(1)
        masked = torch.where(negative | ~some[:, None], power * logits, -torch.inf)
        return torch.where(some, masked.logsumexp(1), -torch.inf)

    if not pairs.hardness:
        return log_sum(1.0)
    some, count = negative.any(1), negative.sum(1).double()
    hard = torch.where(some, log_sum(1 + pairs.hardness), 0.0) - torch.where(some, log_sum(pairs.hardness), 0.0)
    return torch.where(some, hard + count.clamp(min=1).log(), -torch.inf)


@pytest.mark.parametrize("keys", [[1, 2, 3], [-1, 4, 9], [5, 5, 2], [3, -1, 3, -1, 3, 7], [-1, -1], [4], []])
def test_a_join_with_itself_is_that_of_any_two(keys: list[int]) -> None:
    first = torch.tensor(keys, dtype=torch.int64)
    expected = [(i, j) for i, a in enumerate(keys) for j, b in enumerate(keys) if a == b != -1]
    for second in (first, first.clone()):
        found = join(first, second)
        assert sorted(zip(*(part.tolist() for part in found), strict=True)) == expected
        assert found[0].tolist() == [i for i, _ in expected]
        if len(expected) > len(keys):
            assert join(first, second, limit=len(expected) - 1) is None


def test_what_is_not_finite_is_said() -> None:
    pairs = scene(SCOPES["equal groups"])
    block = pairs.blocks[0]
    rows = block.anchors.detach().clone()
    rows[4, 1] = torch.nan
    with pytest.raises(kt.NonFiniteLossError):
        kt.row_statistics(replace(pairs, blocks=(replace(block, anchors=rows, candidates=rows),)))


@pytest.mark.parametrize(
    "scope", [[0, 0, 1, 1, 2, 2], [0, 1, 2, 0, 1, 2], [7, 1, 9, 4, 1, 7, 4, 9], [3] * 4, [2, 1, 0]]
)
@pytest.mark.parametrize("together", [8, 2, 1])
def test_rows_at_even_distances_are_read_where_they_lie(scope: list[int], together: int) -> None:
    rows = torch.randn(len(scope), 3)
    meeting = meetings(torch.tensor(scope), torch.tensor(scope))
    where = [[i for i, own in enumerate(scope) if own == s] for s in dict.fromkeys(scope)]
    for which, n, _ in meeting.classes():
        for groups in cut(which, together):
            members = meeting.rows(groups, 0, n)
            own = [where[group] for group in groups.tolist()]
            even = (
                len({b[0] - a[0] for a, b in pairwise(own)}) <= 1
                and len({tuple(x - o[0] for x in o) for o in own}) == 1
            )
            assert (members.lattice is not None) == even
            read = members.read(rows)
            assert torch.equal(read, rows[torch.tensor(own)])
            assert (read.untyped_storage().data_ptr() == rows.untyped_storage().data_ptr()) == even
            total = torch.zeros_like(rows)
            members.add(total, read)
            members.put(total, 2 * members.read(total))
            assert torch.equal(total[torch.tensor(own)], 2 * read)


def test_rows_are_let_go_of_by_the_backward_pass() -> None:
    """Else they would be held while the encoder's gradients are made, as long as there is the loss."""
    pairs = scene(SCOPES["equal groups"])
    block = pairs.blocks[0]
    rows = block.anchors * 2.0
    held = weakref.ref(rows)
    loss = value(replace(pairs, blocks=(replace(block, anchors=rows, candidates=rows),)), 0.7)
    del rows
    assert held() is not None
    loss.backward()
    assert held() is None


@pytest.mark.parametrize("hardness", [0.0, 1.0])
def test_padding_has_no_part_in_gradients_whatever_row_it_is_read_as(hardness: float) -> None:
    """A short group is padded with the next group's first row, whose log-sum here is about -900: 2^900 is infinite."""
    scope = torch.tensor([0] * 5 + [1] * 7)
    drawn = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    drawn[5:, 0] = -30.0
    drawn[5, 0] = 30.0
    keys = Keys(scope=scope, row=torch.arange(12), match=torch.arange(12) // 2)
    found = []
    for dtype in (torch.float64, torch.float32):
        rows = drawn.to(dtype, copy=True).requires_grad_()
        pairs = Pairs((Block(rows, rows, keys, keys),), kt.Dot(), hardness=hardness)
        sums = kt.row_statistics(pairs).negative_logsumexp
        assert float(sums[5].detach()) < -500
        found.append(torch.autograd.grad(sums.sum(), rows)[0].double())
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-2)  # logits of 900 in float32
