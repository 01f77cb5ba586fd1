"""Everything this package registers, held to kontrast's conformance kit."""
# ruff: noqa: D103
# pyright: reportMissingImports=false

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from kontrast_recsys.augment import SGLViews
from kontrast_recsys.data import blocks, load
from kontrast_recsys.encoder import LightGCN
from kontrast_recsys.methods import clrec, lightgcn, sgl
from kontrast_recsys.objectives import BPR
from kontrast_recsys.samplers import Clicks, Ranking

import kontrast as kt
from kontrast.testing import (
    Check,
    adapter_checks,
    augmenter_checks,
    encoder_checks,
    method_checks,
    objective_checks,
    parametrize_with_checks,
    sampler_checks,
)

DATA = load("blocks")


def small(make: Callable[..., kt.Method], **options: int) -> kt.Method:
    torch.manual_seed(0)
    return make(LightGCN(**DATA.about, size=6, num_layers=2, l2=0.1), **options)


@parametrize_with_checks([*adapter_checks("recsys"), *encoder_checks("lightgcn"), *augmenter_checks("sgl-views")])
def test_the_domain(check: Check) -> None:
    check()


@parametrize_with_checks(
    [
        *method_checks(small(lightgcn), data=DATA.train, augmenter=SGLViews()),
        *method_checks(small(sgl), data=DATA.train, augmenter=SGLViews()),
        *method_checks(small(clrec, queue_size=13), data=DATA.train, augmenter=SGLViews()),
    ]
)
def test_the_methods(check: Check) -> None:
    check()


def bpr_in_loops(views: list[list[list[float]]]) -> float:
    rows = [row for view in views for row in view]
    samples = len(views[0])

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)

    terms = []
    for i, anchor in enumerate(rows):
        for p, positive in enumerate(rows):
            if p == i or p % samples != i % samples:
                continue
            for n, negative in enumerate(rows):
                if n % samples != i % samples:
                    gap = cosine(anchor, positive) - cosine(anchor, negative)
                    terms.append(-math.log(1 / (1 + math.exp(-gap))))
    return sum(terms) / len(terms)


@parametrize_with_checks(objective_checks(BPR, oracle=bpr_in_loops))
def test_the_objective(check: Check) -> None:
    check()


def with_items(encoded: list[kt.Encoded]) -> list[kt.Encoded]:
    """Add what LightGCN's streams hold: view 1 as the chosen items, and items that are no row of any batch."""
    chosen = kt.Encoded(encoded[1].rows, encoded[1].ids, encoded[1].copies)
    assert chosen.rows is not None
    drawn = replace(chosen, rows=-chosen.rows, ids=chosen.ids + 1000)
    more = {"positives": chosen, "negatives": drawn}
    return [replace(view, streams={**view.streams, **more}) for view in encoded]


@parametrize_with_checks([*sampler_checks(Clicks, dress=with_items), *sampler_checks(Ranking, dress=with_items)])
def test_the_samplers(check: Check) -> None:
    check()


def test_the_generated_set_is_the_same_every_time_and_has_popular_items() -> None:
    first, second = blocks(), blocks()
    assert all(torch.equal(first[part], second[part]) for part in ("train", "valid", "test"))
    chosen = torch.cat(list(first.values()), dim=1)
    assert torch.unique(chosen, dim=1).shape == chosen.shape == (2, 2000)
    rank = torch.arange(160) // 8  # within the block
    times = torch.zeros(20).index_add_(0, rank[chosen[1]], torch.ones(2000))
    assert times[0] > 1.3 * times[2] > 2 * times[10]
    assert 0.6 < float((chosen[0] % 8 == chosen[1] % 8).float().mean()) < 0.9
