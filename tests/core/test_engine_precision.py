"""The engine's arithmetic: huge logits, many rows, half precision, and the memory it takes.

Shapes: M rows, N pairs, D embedding size.
"""

from dataclasses import replace
from pathlib import Path

import engine_oracle
import pytest
import torch
from engine_scenes import cut, leaves, normal, on, scene
from fresh import python
from torch import Tensor

import kontrast as kt

HOWS = ["whole", "tiles of 4", "tiles of 4, kept"]
FIELDS = ("positive_mean", "positive_logsumexp", "negative_logsumexp", "logsumexp")


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("name", ["views, mirrored", "match", "two labels, mirrored", "slots", "log-weights"])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("frozen", [False, True])
def test_huge_logits(monkeypatch: pytest.MonkeyPatch, name: str, how: str, sign: int, frozen: bool) -> None:
    """Dot products of +-1e4 at a temperature of 0.001: values as in the loops, gradients those of the largest alone."""
    cut(monkeypatch, how)
    (block,) = scene(name).blocks
    # All products of one sign, so that the sums are of logits that are all huge.
    anchors = (block.anchors.abs() * 100).requires_grad_()
    candidates = anchors if block.mirrored else (block.candidates.abs() * 100 * sign).requires_grad_(not frozen)
    pairs = kt.Pairs((replace(block, anchors=anchors, candidates=candidates),), kt.Dot())
    for hardness in (0.0, 0.5):
        hard = replace(pairs, hardness=hardness)
        found = kt.row_statistics(hard, temperature=0.001)
        expected = engine_oracle.statistics(hard, 0.001)
        for field in FIELDS:
            assert getattr(found, field).tolist() == pytest.approx(expected[field], rel=1e-12, abs=1e-6), field
        assert found.logsumexp.detach().abs().max() > 1e6
        some = found.negative_logsumexp > -torch.inf
        (gradient,) = torch.autograd.grad(found.negative_logsumexp, anchors, some.double())
        assert gradient.isfinite().all()
        if not block.mirrored:
            top = kt.top_negatives(pairs, 1)
            slot = top.slot[:, 0].clamp(min=0)
            index = slot if block.index is None else block.index.gather(1, slot[:, None])[:, 0]
            nearest = torch.where(some[:, None], candidates.detach()[index] / 0.001, 0.0)
            torch.testing.assert_close(gradient, nearest, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("how", HOWS)
def test_shifted_is_unshifted(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """The cosine of unit rows is their dot product; only for the first is a bound of the logits known."""
    cut(monkeypatch, how)
    for name in ("views, mirrored", "match", "a queue"):
        (block,) = scene(name).blocks
        found = []
        for similarity in (kt.Cosine(), kt.Dot()):
            anchors = torch.nn.functional.normalize(block.anchors).requires_grad_()
            candidates = anchors if block.mirrored else torch.nn.functional.normalize(block.candidates)
            unit = replace(block, anchors=anchors, candidates=candidates)
            for hardness, temperature in ((0.0, 0.1), (1.0, 0.1), (0.3, 0.1), (0.3, 0.01)):
                statistics = kt.row_statistics(
                    kt.Pairs((unit,), similarity, hardness=hardness), temperature=temperature
                )
                (slope,) = torch.autograd.grad(statistics.negative_logsumexp.sum(), anchors)
                # The cosine's gradient has no part along the row.
                slope = slope - (slope * anchors).sum(1, keepdim=True) * anchors
                found.append((statistics.negative_logsumexp.detach(), slope.detach()))
        for ours, theirs in zip(found[:4], found[4:], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def nt_xent(rows: Tensor, match: Tensor, temperature: float, **options: float) -> tuple[Tensor, Tensor]:
    """Return each row's loss and the gradient of their mean."""
    leaf = rows.clone().requires_grad_()
    own = kt.Keys(row=torch.arange(len(rows)), match=match)
    pairs = kt.Pairs((kt.Block(leaf, leaf, own, own),), **options)  # type: ignore[arg-type]
    found = kt.row_statistics(pairs, temperature=temperature)
    losses = found.logsumexp - found.positive_mean
    losses.mean().backward()
    assert leaf.grad is not None
    return losses.detach().double(), leaf.grad.double()


@pytest.mark.parametrize(("temperature", "labels"), [(0.01, None), (0.1, 10)])
def test_float32_of_4096_rows(temperature: float, labels: int | None) -> None:
    rows = normal(4096, 16, seed=1, dtype=torch.float32)
    sample = torch.arange(4096) % 2048
    match = sample if labels is None else sample % labels
    loss, gradient = nt_xent(rows, match, temperature, positive_prior=0.05, hardness=0.5)
    exact, slope = nt_xent(rows.double(), match, temperature, positive_prior=0.05, hardness=0.5)
    assert (loss - exact).abs().max() < 5e-6 / temperature
    assert (gradient - slope).norm() < 2e-6 / temperature * slope.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["views, mirrored", "a queue", "two labels", "slots", "ragged scopes", "log-weights"])
@pytest.mark.parametrize("similarity", [kt.Cosine(), kt.NegativeDistance(), kt.LearnedTemperature(bias=-1.0)])
def test_half_embeddings_are_float32_rounded(dtype: torch.dtype, name: str, similarity: kt.Similarity) -> None:
    (block,) = scene(name).blocks
    found = []
    for wide in (dtype, torch.float32):
        anchors = block.anchors.to(dtype).to(wide).requires_grad_()
        candidates = anchors if block.mirrored else block.candidates.to(dtype).to(wide).requires_grad_()
        pairs = kt.Pairs((replace(block, anchors=anchors, candidates=candidates),), similarity, hardness=0.5)
        statistics = kt.row_statistics(pairs, temperature=0.2)
        values = [getattr(statistics, field) for field in FIELDS]
        total = sum((value.nan_to_num(neginf=0.0).sum() for value in values), torch.zeros(()))
        gradients = torch.autograd.grad(total, [anchors] if block.mirrored else [anchors, candidates])
        assert all(value.dtype == torch.float32 for value in values)
        assert all(gradient.dtype == wide for gradient in gradients)
        found.append((values, gradients))
    for ours, theirs in zip(found[0][0], found[1][0], strict=True):
        assert torch.equal(ours, theirs)
    ulp = torch.finfo(dtype).eps
    for ours, theirs in zip(found[0][1], found[1][1], strict=True):  # rounded at the end, once or for each side
        assert (ours.float() - theirs).abs().max() <= (ulp if similarity.symmetric else 2 * ulp) * theirs.abs().max()


@pytest.mark.parametrize("how", ["whole", "tiles of 4", "tiles of 4, kept"])
@pytest.mark.parametrize("name", ["views, mirrored", "match", "a queue"])
def test_backward_under_autocast(monkeypatch: pytest.MonkeyPatch, name: str, how: str) -> None:
    """A backward pass called where autocast is still on is as exact as one called outside."""
    cut(monkeypatch, how)
    (block,) = scene(name).blocks
    found = []
    for enabled in (False, True):
        anchors = block.anchors.float().requires_grad_()
        candidates = anchors if block.mirrored else block.candidates.float().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            rows = kt.row_statistics(
                kt.Pairs((replace(block, anchors=anchors, candidates=candidates),)), temperature=0.1
            )
            (rows.negative_logsumexp.sum() - rows.positive_mean.sum()).backward()
        assert anchors.grad is not None
        found.append(anchors.grad)
    assert torch.equal(*found)


MEASURED = """
import sys
import torch
from fresh import python
import kontrast as kt
torch.set_num_threads(1)

def peak():  # of this program alone; what getrusage tells begins with the peak of the process that started it
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])

def step(n):
    views = [torch.randn(n, 32).requires_grad_() for _ in range(2)]
    labels = torch.arange(n) % 50 if sys.argv[1] == "labels" else None
    inner = kt.InBatch(match="ids" if labels is None else "labels")
    if sys.argv[1] == "queue":
        inner = kt.Queue(inner, size=n)
        inner.commit(kt.embedded(torch.randn(n, 32), torch.randn(n, 32)))
    (pairs,) = kt.HardNegatives(inner, 0.5).pairs(kt.embedded(*views, ids=torch.arange(n), labels=labels))
    rows = kt.row_statistics(pairs, temperature=0.1)
    (rows.logsumexp - rows.positive_mean).mean().backward()

step(64)
before = peak()
step(4096)
print((peak() - before) / 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
@pytest.mark.parametrize("kind", ["plain", "queue", pytest.param("labels", marks=pytest.mark.slow)])
def test_memory_of_4096_pairs_is_far_from_the_matrix(kind: str) -> None:
    """8192 x 8192 float32 scores are 256 MB, and autograd holds several of them."""
    result = python("-c", MEASURED, kind)
    assert 0 < float(result.stdout) < 100, "MB more at the peak than before"


@pytest.mark.parametrize("name", ["match", "log-weights", "two labels", "slots"])
@pytest.mark.parametrize("kind", ["cosine", "bilinear", "mlp"])
def test_a_backward_pass_inside_autocast_is_in_full_precision(name: str, kind: str) -> None:
    torch.manual_seed(0)
    similarity = {"cosine": kt.Cosine(), "bilinear": kt.Bilinear(3), "mlp": kt.MLP(3, 5)}[kind]
    pairs = scene(name, similarity)
    found = []
    for enabled in (False, True):
        tensors = [tensor.float().requires_grad_() for tensor in leaves(pairs)]
        rows = kt.row_statistics(on(pairs, tensors), temperature=0.1)
        sums = kt.row_sums(on(pairs, tensors), torch.sigmoid, of="positive")
        total = torch.where(rows.logsumexp > -torch.inf, rows.logsumexp, 0.0).sum() + rows.positive_mean.sum()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            wanted = [*tensors, *similarity.parameters()]
            found.append(torch.autograd.grad(total + sums.sum(), wanted, allow_unused=True, materialize_grads=True))
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-6)
