"""Row statistics, row sums and top negatives of every kind of block, cut in every way, against loops.

Shapes: A anchors, k entries of a row.
"""

import math
from dataclasses import replace
from typing import Any, cast

import engine_oracle
import pytest
import torch
from engine_scenes import CUTS, SCENES, agree, cut, leaves, scene
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

import kontrast as kt

NAMES = ("positive_count", "negative_count", "positive_mean", "positive_logsumexp", "negative_logsumexp", "logsumexp")


def softplus(value: float) -> float:
    return math.log1p(math.exp(-abs(value))) + max(value, 0.0)


def statistics(pairs: kt.Pairs, offset: Tensor) -> dict[str, Tensor]:
    found = kt.row_statistics(pairs, temperature=0.4)
    return {name: getattr(found, name) for name in NAMES}


def statistics_oracle(pairs: kt.Pairs, offset: list[float]) -> dict[str, list[float]]:
    return engine_oracle.statistics(pairs, 0.4)


def sums(pairs: kt.Pairs, offset: Tensor) -> dict[str, Tensor]:
    return {
        f"{of}, {shifted}": kt.row_sums(
            pairs, functional.softplus, of=of, temperature=0.7, offset=offset if shifted else None
        )
        for of in ("positive", "negative")
        for shifted in (False, True)
    }


def sums_oracle(pairs: kt.Pairs, offset: list[float]) -> dict[str, list[float]]:
    rows = engine_oracle.cells(pairs)
    return {
        f"{of}, {shifted}": engine_oracle.sums(
            rows, softplus, of=of, temperature=0.7, offset=offset if shifted else None
        )
        for of in ("positive", "negative")
        for shifted in (False, True)
    }


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("how", CUTS)
def test_row_statistics(monkeypatch: pytest.MonkeyPatch, name: str, how: str) -> None:
    cut(monkeypatch, how)
    for frozen in (False, True):
        agree(scene(name), statistics, statistics_oracle, frozen=frozen)


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("how", ["whole", "tiles of 4", "tiles of 4, kept"])
def test_row_sums(monkeypatch: pytest.MonkeyPatch, name: str, how: str) -> None:
    cut(monkeypatch, how)
    agree(scene(name), sums, sums_oracle)


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("how", ["whole", "tiles of 4"])
@pytest.mark.parametrize("lowest", [False, True])
def test_top_negatives(monkeypatch: pytest.MonkeyPatch, name: str, how: str, lowest: bool) -> None:
    cut(monkeypatch, how)
    pairs = scene(name)
    scores = [
        {(cell.block, cell.slot): cell.score for cell in row if not cell.positive} for row in engine_oracle.cells(pairs)
    ]
    for k in (1, 3, 50):
        found = kt.top_negatives(pairs, k, lowest=lowest)
        for i, best in enumerate(engine_oracle.top(pairs, k, lowest=lowest)):
            missing = [math.inf if lowest else -math.inf] * (k - len(best))
            assert found.scores[i].tolist() == pytest.approx([cell.score for cell in best] + missing, abs=1e-12)
            places = list(zip(found.block[i].tolist(), found.slot[i].tolist(), strict=True))
            assert places[len(best) :] == [(-1, -1)] * len(missing)
            assert len(set(places[: len(best)])) == len(best)
            assert [scores[i][place] for place in places[: len(best)]] == pytest.approx(
                found.scores[i, : len(best)].tolist(), abs=1e-12
            )


class Products(TorchDispatchMode):
    """Counts the matrix products within."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.bmm, torch.ops.aten.baddbmm_):
            self.count += 1
        return func(*args, **(kwargs or {}))


def products() -> Products:
    return cast("Products", cast("Any", Products)())  # the mode's constructor is untyped


@pytest.mark.parametrize("name", ["views, mirrored", "match", "log-weights", "slots", "equal scopes"])
def test_a_cut_is_one(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The settings that the tests here vary decide how many tiles there are, and whether they are made twice."""
    counts: dict[str, tuple[int, int]] = {}
    for how in CUTS:
        cut(monkeypatch, how)
        pairs = scene(name)
        for tensor in leaves(pairs):
            tensor.requires_grad_()
        with products() as forward:
            total = kt.row_statistics(pairs, temperature=0.4).negative_logsumexp.sum()
        with products() as backward:
            total.backward()
        counts[how] = forward.count, backward.count
    assert counts["tiles of 4"][0] == counts["tiles of 4, kept"][0] > counts["tiles of 18"][0] > counts["whole"][0]
    assert counts["tiles of 4"][1] > counts["tiles of 4, kept"][1]


@pytest.mark.parametrize("name", ["two labels, mirrored", "two labels", "dense alias", "more slots than candidates"])
def test_the_dense_scenes_are_dense(name: str) -> None:
    """Otherwise their pairs would be listed, and the general way through the engine not taken."""
    (block,) = scene(name).blocks
    relation = block.relation()
    many = block.anchors.shape[0] + block.candidates.shape[0]
    listed = relation[1].numel() - int(relation[1].sum()) if block.index is None else relation[1].numel()
    assert listed > 8 * many


def counted(pairs: kt.Pairs) -> tuple[int, int]:
    """Return how many products the log-sum-exp of the negatives takes, forward and backward."""
    with products() as forward:
        total = kt.row_statistics(pairs, temperature=0.4).negative_logsumexp.sum()
    with products() as backward:
        total.backward()
    return forward.count, backward.count


def test_rows_against_themselves_share_their_products(monkeypatch: pytest.MonkeyPatch) -> None:
    cut(monkeypatch, "tiles of 4")
    for similarity in (kt.Cosine(), kt.LearnedTemperature().double()):
        pairs = scene("views, mirrored", similarity)
        pairs.anchors.requires_grad_()
        twice = replace(pairs, blocks=(replace(pairs.blocks[0], candidates=pairs.anchors.clone()),))
        for once, both in zip(counted(pairs), counted(twice), strict=True):
            assert once < 0.75 * both


def test_with_frozen_candidates_no_product_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    cut(monkeypatch, "tiles of 4")
    pairs = scene("a queue")
    pairs.anchors.requires_grad_()
    assert counted(pairs)[1] <= 1  # of the lengths of the rows
    pairs.blocks[0].candidates.requires_grad_()
    assert counted(pairs)[1] > 10


@pytest.mark.parametrize("name", SCENES)
def test_counts_are_those_of_the_keys(name: str) -> None:
    pairs = scene(name)
    found = [counts.tolist() for counts in kt.pair_counts(pairs)]
    rows = engine_oracle.cells(pairs)
    assert found == [[sum(cell.positive == wanted for cell in row) for row in rows] for wanted in (True, False)]
