"""Gradients of the engine: one relation told in several ways, rows that lack something, single precision.

Shapes: A anchors, C candidates, D embedding size.
"""

from dataclasses import replace

import pytest
import torch
from engine_scenes import SCENES, cut, ints, leaves, normal, on, scene
from torch import Tensor

import kontrast as kt

HOWS = ["whole", "tiles of 4", "tiles of 4, kept"]


def results(
    pairs: kt.Pairs, tensors: list[Tensor], *, temperature: float = 0.3, hardness: float = 0.5
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the statistics with hard negatives and without, and the gradients of the tensors."""
    values = []
    for h in (0.0, hardness):
        found = kt.row_statistics(replace(pairs, hardness=h), temperature=temperature)
        values += [found.positive_mean, found.positive_logsumexp, found.negative_logsumexp, found.logsumexp]
    upstream = [normal(*value.shape, seed=n).to(value.dtype) for n, value in enumerate(values)]
    live = [n for n, value in enumerate(values) if value.requires_grad]
    gradients = torch.autograd.grad(
        [values[n] for n in live], tensors, [upstream[n] for n in live], allow_unused=True, materialize_grads=True
    )
    return [value.detach() for value in values], list(gradients)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *((name, how) for name in ("views, mirrored", "row keys that repeat, mirrored") for how in HOWS),
        ("two labels, mirrored", "tiles of 18"),
        ("scopes in order, mirrored", "tiles of 4"),
    ],
)
@pytest.mark.parametrize("similarity", [kt.Cosine(), kt.Dot(), kt.LearnedTemperature(initial=0.6).double()])
def test_mirrored_is_unmirrored(
    monkeypatch: pytest.MonkeyPatch, name: str, how: str, similarity: kt.Similarity
) -> None:
    """Rows against themselves, against an equal tensor, with equal keys of another object: one result."""
    cut(monkeypatch, how)
    (block,) = scene(name).blocks
    rows = block.anchors.clone().requires_grad_()
    other = block.anchors.clone().requires_grad_()
    copied = block.anchor_keys.map(torch.clone)
    blocks = {
        "mirrored": replace(block, anchors=rows, candidates=rows),
        "other keys": replace(block, anchors=rows, candidates=rows, candidate_keys=copied),
        "other tensor": replace(block, anchors=rows, candidates=other),
    }
    assert [one.mirrored for one in blocks.values()] == [True, False, False]
    expected, slopes = results(kt.Pairs((blocks["mirrored"],), similarity), [rows])
    values, gradients = results(kt.Pairs((blocks["other keys"],), similarity), [rows])
    torch.testing.assert_close(values, expected, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(gradients, slopes, rtol=1e-9, atol=1e-10)
    values, parts = results(kt.Pairs((blocks["other tensor"],), similarity), [rows, other])
    torch.testing.assert_close(values, expected, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(parts[0] + parts[1], slopes[0], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("name", ["match", "a queue", "slots", "ragged scopes", "log-weights", "no keys"])
@pytest.mark.parametrize("similarity", [kt.Cosine(), kt.Dot()])
def test_frozen_candidates_leave_the_anchors_gradient_as_it_is(
    monkeypatch: pytest.MonkeyPatch, name: str, how: str, similarity: kt.Similarity
) -> None:
    cut(monkeypatch, how)
    pairs = scene(name, similarity)
    found = []
    for wanted in ((True, False), (True, True), (False, True)):
        tensors = [t.clone().requires_grad_(want) for t, want in zip(leaves(pairs), wanted, strict=True)]
        values, gradients = results(on(pairs, tensors), [t for t in tensors if t.requires_grad])
        found.append((values, gradients))
    for values, _ in found[1:]:
        torch.testing.assert_close(values, found[0][0], rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(found[0][1][0], found[1][1][0], rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(found[2][1][0], found[1][1][1], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", SCENES)
def test_no_cut_changes_anything(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    found = []
    for how in HOWS[:2]:
        with monkeypatch.context() as patch:
            cut(patch, how)
            pairs = scene(name)
            tensors = [tensor.clone().requires_grad_() for tensor in leaves(pairs)]
            found.append(results(on(pairs, tensors), tensors))
    for values, gradients in found[1:]:
        torch.testing.assert_close(values, found[0][0], rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(gradients, found[0][1], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("similarity", [kt.Cosine(), kt.Dot()])
def test_float32_is_float64_but_for_rounding(name: str, similarity: kt.Similarity) -> None:
    found = []
    pairs = scene(name, similarity)
    rounded = [tensor.float() for tensor in leaves(pairs)]
    for dtype in (torch.float32, torch.float64):
        tensors = [tensor.to(dtype).requires_grad_() for tensor in rounded]
        found.append(results(on(pairs, tensors), tensors))
    assert all(value.dtype == torch.float32 for value in found[0][0] + found[0][1])
    for ours, theirs in zip(found[0][0], found[1][0], strict=True):
        assert torch.allclose(ours.double(), theirs, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(found[0][1], found[1][1], strict=True):
        assert (ours.double() - theirs).norm() <= 2e-5 * theirs.norm()


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("positives", [False, True])
@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_row_that_lacks_something_asks_for_nothing(
    monkeypatch: pytest.MonkeyPatch, how: str, labelled: bool, positives: bool, frozen: bool
) -> None:
    """Anchor 0 has positives alone, 1 negatives alone, 2 neither, 3 both; every gradient handed back is 1."""
    cut(monkeypatch, how)
    count = 60 if labelled else 3  # positives beyond what is listed
    anchors = normal(4, 3, seed=1).requires_grad_()
    candidates = normal(2 * count, 3, seed=2).requires_grad_(not frozen)
    of, others = [0] * count, [1] * count
    ours = kt.Keys(match=torch.tensor([0, 5, 5, 0]), alias=torch.tensor([1, 8, 9, 7]), row=torch.tensor([-1, 3, 4, 5]))
    theirs = kt.Keys(
        match=torch.tensor(of + others), alias=torch.tensor([7] * count + others), row=torch.tensor([6] * 2 * count)
    )
    block = kt.Block(anchors, candidates, ours, theirs)
    # Anchor 2 is alone in its scope.
    scoped = replace(
        block,
        anchor_keys=replace(ours, scope=torch.tensor([0, 0, 1, 0])),
        candidate_keys=replace(theirs, scope=torch.zeros(2 * count, dtype=torch.int64)),
    )
    found = kt.row_statistics(kt.Pairs((scoped,), hardness=0.5, positive_prior=0.1), temperature=0.3)
    assert (found.positive_count > 0).tolist() == [True, False, False, True]
    assert (found.negative_count > 0).tolist() == [False, True, False, True]
    value = found.positive_logsumexp + found.positive_mean if positives else found.negative_logsumexp
    value.backward(torch.ones_like(value))
    assert anchors.grad is not None
    assert anchors.grad.isfinite().all()
    assert anchors.grad.any(1).tolist() == ([True, False, False, True] if positives else [False, True, False, True])
    if not frozen:
        assert candidates.grad is not None
        assert candidates.grad.isfinite().all()
        assert candidates.grad[:count].any(1).all()


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("frozen", [False, True])
def test_an_anchor_whose_every_candidate_is_excepted(monkeypatch: pytest.MonkeyPatch, how: str, frozen: bool) -> None:
    """The same on the fast way, shifted and not: anchor 0 has positives alone, 1 only aliases of itself, 2 both."""
    cut(monkeypatch, how)
    for similarity in (kt.Cosine(), kt.Dot()):
        anchors = normal(3, 3, seed=1).requires_grad_()
        candidates = normal(7, 3, seed=2).requires_grad_(not frozen)
        theirs = kt.Keys(match=torch.zeros(7, dtype=torch.int64), alias=torch.ones(7, dtype=torch.int64))
        some = replace(theirs, match=torch.tensor([0, 0, 0, 0, 0, 2, 3]), alias=torch.tensor([1] * 5 + [9, 9]))
        for keys, negative in ((theirs, [False, False, True]), (some, [True, True, True])):
            ours = kt.Keys(match=torch.tensor([0, 7, 2]), alias=torch.tensor([4, 1, 6]))
            pairs = kt.Pairs((kt.Block(anchors, candidates, ours, keys),), similarity)
            value = kt.row_statistics(pairs, temperature=0.3).negative_logsumexp
            assert (value > -torch.inf).tolist() == negative
            (gradient,) = torch.autograd.grad(value, anchors, torch.ones_like(value))
            assert gradient.any(1).tolist() == negative
            assert gradient.isfinite().all()


def test_backward_may_be_called_twice() -> None:
    for name in ("views, mirrored", "match", "two labels", "slots"):
        pairs = scene(name)
        for tensor in leaves(pairs):
            tensor.requires_grad_()
        total = kt.row_statistics(pairs, temperature=0.3).logsumexp.nan_to_num(neginf=0.0).sum()
        first, second = (torch.autograd.grad(total, pairs.anchors, retain_graph=True)[0] for _ in range(2))
        assert torch.equal(first, second)


def test_nothing_is_written_into_what_is_given() -> None:
    for name in SCENES:
        pairs = scene(name)
        before = [tensor.clone() for tensor in leaves(pairs)]
        tensors = [tensor.requires_grad_() for tensor in leaves(pairs)]
        results(pairs, tensors)
        kt.top_negatives(pairs, 2)
        for ours, theirs in zip(leaves(pairs), before, strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("labels", [2, 1000])
def test_order_of_rows_is_of_no_matter(monkeypatch: pytest.MonkeyPatch, labels: int) -> None:
    cut(monkeypatch, "tiles of 18")
    rows, match = normal(50, 4, seed=1), ints(50, high=labels, low=0, seed=2)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(3))
    found = []
    for at in (torch.arange(50), order):
        leaf = rows[at].requires_grad_()
        own = kt.Keys(row=at, match=match[at])
        statistics = kt.row_statistics(kt.Pairs((kt.Block(leaf, leaf, own, own),), hardness=0.5), temperature=0.2)
        statistics.negative_logsumexp.square().sum().backward()
        assert leaf.grad is not None
        found.append((statistics.negative_logsumexp.detach(), leaf.grad))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours[order], theirs, rtol=1e-10, atol=1e-12)
