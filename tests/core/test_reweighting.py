"""Hard and debiased negatives against loops from the papers, on both ways through the engine.

Shapes: A anchors, C candidates.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import engine_oracle
import pytest
import torch
from engine_scenes import agree, cut, leaves, normal, on, scene
from torch import Tensor

import kontrast as kt
from kontrast.plugins.objectives import NTXent

NAMES = ("positive_count", "negative_count", "positive_mean", "positive_logsumexp", "negative_logsumexp", "logsumexp")
TEMPERATURE = 0.4
# The fast way, mirrored and not, with frozen candidates beside it; then labels, slots, scopes, log-weights and rules.
SCENES = [
    "views, mirrored",
    "match",
    "a queue",
    "several blocks",
    "two labels",
    "slots",
    "ragged scopes",
    "log-weights",
    "log-weights of slots",
    "two rules, one of them ignores",
    "a rule that ignores all",
    "no candidates",
    "one row",
]


def statistics(pairs: kt.Pairs, offset: Tensor) -> dict[str, Tensor]:
    found = kt.row_statistics(pairs, temperature=TEMPERATURE)
    return {name: getattr(found, name) for name in NAMES}


def hold(pairs: kt.Pairs, *, frozen: bool = False) -> None:
    """Hold values and slopes to the loops; what the gradient takes as constant is constant there too."""
    origin = on(pairs, [tensor.clone() for tensor in leaves(pairs)])
    agree(
        pairs,
        statistics,
        lambda moved, _: engine_oracle.statistics(moved, TEMPERATURE, held=origin),
        frozen=frozen,
        tolerance=1e-10,
    )


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("how", ["whole", "tiles of 4", "tiles of 4, kept"])
def test_hard_and_debiased(monkeypatch: pytest.MonkeyPatch, name: str, how: str) -> None:
    cut(monkeypatch, how)
    plain = scene(name)
    for hardness, prior in ((0.3, 0.05), (0.3, 0.3), (1.0, 0.0), (1.0, 0.05), (2.0, 0.0), (2.0, 0.3), (0.0, 0.3)):
        for frozen in (False, True):
            if name != "two labels" or (hardness, frozen) == (0.3, False):
                hold(replace(plain, hardness=hardness, positive_prior=prior), frozen=frozen)
    hold(replace(plain, hardness=1.5, detach_hardness=True))
    hold(replace(plain, hardness=0.5, detach_hardness=True, positive_prior=0.1), frozen=True)


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("how", ["whole", "tiles of 4"])
def test_without_hardness_and_prior_it_is_plain(monkeypatch: pytest.MonkeyPatch, name: str, how: str) -> None:
    cut(monkeypatch, how)
    plain = scene(name)
    none = kt.row_statistics(replace(plain, hardness=0.0, positive_prior=0.0), temperature=TEMPERATURE)
    for field in NAMES:
        assert torch.equal(getattr(none, field), getattr(kt.row_statistics(plain, temperature=TEMPERATURE), field))
    # Nor does it jump there: a little hardness and prior are little.
    little = kt.row_statistics(replace(plain, hardness=1e-9, positive_prior=1e-9), temperature=TEMPERATURE)
    for field in NAMES:
        assert torch.allclose(getattr(little, field).double(), getattr(none, field).double(), atol=1e-6)


def authors_sum(positive: float, negatives: Sequence[float], n: float, t: float, h: float, p: float) -> float:
    """Return the authors' estimate of the negatives' sum, in the order of their code (HCL, github.com/joshr17/HCL)."""
    neg = [math.exp(s / t) for s in negatives]
    imp = [math.exp(h * math.log(x)) for x in neg]
    mean = math.fsum(imp) / len(imp)
    reweighted = math.fsum(i * x for i, x in zip(imp, neg, strict=True)) / mean
    return max((-p * n * math.exp(positive / t) + reweighted) / (1 - p), n * math.exp(-1 / t))


@pytest.mark.parametrize("hardness", [0.0, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("prior", [0.0, 0.1, 0.3])
def test_the_loss_of_the_papers(hardness: float, prior: float) -> None:
    """-log(pos / (pos + Ng)) of each of the 2B views, as both papers' code has it."""
    views = [normal(5, 4, seed=seed) for seed in (1, 2)]
    sampler = kt.Debiased(kt.HardNegatives(kt.InBatch(), hardness), prior)
    (pairs,) = sampler.pairs(kt.embedded(*views))
    rows = torch.cat(views).tolist()
    losses = []
    for i, row in enumerate(rows):
        scores = [engine_oracle.score(kt.Cosine(), row, other) for other in rows]
        negatives = [s for j, s in enumerate(scores) if j % 5 != i % 5]
        positive = scores[(i + 5) % 10]
        ng = authors_sum(positive, negatives, len(negatives), 0.5, hardness, prior)
        losses.append(-math.log(math.exp(positive / 0.5) / (math.exp(positive / 0.5) + ng)))
    assert NTXent(0.5)(pairs).reduced().value.item() == pytest.approx(math.fsum(losses) / 10, rel=1e-12)


@pytest.mark.parametrize("hardness", [0.0, 0.7])
@pytest.mark.parametrize("prior", [0.0, 0.1])
def test_a_log_weight_counts_a_negative_several_times(hardness: float, prior: float) -> None:
    """A negative of weight 3 is three of them: in the sum, in its weights' mean and in n."""
    anchors, candidates = normal(4, 3, seed=1), normal(5, 3, seed=2)
    times = [1, 3, 1, 2, 1]
    repeated = torch.arange(5).repeat_interleave(torch.tensor(times))
    ours, theirs = torch.tensor([0, 2, 4, 9]), torch.tensor([0, 1, 2, 3, 4])  # of the positives each is there once
    options = {"hardness": hardness, "positive_prior": prior}
    results = []
    for block in (
        kt.Block(anchors, candidates[repeated], kt.Keys(match=ours), kt.Keys(match=theirs[repeated])),
        kt.Block(
            anchors,
            candidates,
            kt.Keys(match=ours),
            kt.Keys(match=theirs),
            log_weights=torch.tensor(times, dtype=torch.float64).log(),
        ),
    ):
        results.append(kt.row_statistics(kt.Pairs((block,), **options), temperature=0.5).negative_logsumexp)  # type: ignore[arg-type]
    assert torch.allclose(results[0], results[1], rtol=1e-12)


def near(prior: float = 0.5, **options: float) -> tuple[Tensor, Tensor, kt.Pairs]:
    """Anchor 0's positive is so near, and its negatives so far, that the estimate is floored; anchor 1's is not."""
    anchors = torch.tensor([[1.0, 0.1], [0.2, 1.0]], dtype=torch.float64).requires_grad_()
    candidates = torch.tensor(
        [[1.0, 0.0], [-0.8, -0.6], [-1.0, 0.3], [-0.9, 0.5]], dtype=torch.float64
    ).requires_grad_()
    block = kt.Block(anchors, candidates, kt.Keys(match=torch.tensor([0, 1])), kt.Keys(match=torch.arange(4)))
    return anchors, candidates, kt.Pairs((block,), positive_prior=prior, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("hardness", [0.0, 1.0])
def test_where_the_floor_holds_nothing_moves(hardness: float) -> None:
    anchors, candidates, pairs = near(hardness=hardness)
    found = kt.row_statistics(pairs, temperature=0.5).negative_logsumexp
    assert found[0].item() == pytest.approx(math.log(3) - 1 / 0.5, rel=1e-12)
    assert found[1].item() > math.log(3) - 1 / 0.5 + 0.1
    first = torch.autograd.grad(found[0], [anchors, candidates], retain_graph=True)
    assert not any(gradient.any() for gradient in first)
    second = torch.autograd.grad(found[1], [anchors, candidates])
    assert second[0][1].any()
    assert not second[0][0].any()


def test_the_floor_of_a_learned_temperature_is_exact() -> None:
    _, _, pairs = near()
    similarity = kt.LearnedTemperature(initial=0.37).double()
    found = kt.row_statistics(replace(pairs, similarity=similarity), temperature=0.5).negative_logsumexp
    scale = similarity.log_inverse_temperature.detach().exp().item()
    assert found[0].item() == pytest.approx(math.log(3) - scale / 0.5, rel=1e-14)
    assert not torch.autograd.grad(found[0], [similarity.log_inverse_temperature])[0].any()


@pytest.mark.parametrize("hardness", [0.0, 1.0])
def test_the_floor_is_the_least_score(hardness: float) -> None:
    for least in (-2.0, -0.5, 0.3):
        anchors, _, pairs = near(hardness=hardness)
        pairs = replace(pairs, similarity=kt.Dot(), least_score=least)
        found = kt.row_statistics(pairs, temperature=0.5)
        expected = engine_oracle.statistics(pairs, 0.5)
        assert found.negative_logsumexp.tolist() == pytest.approx(expected["negative_logsumexp"], rel=1e-12)
        assert found.negative_logsumexp[0].item() == pytest.approx(math.log(3) + least / 0.5, rel=1e-12)
        (gradient,) = torch.autograd.grad(found.negative_logsumexp[0], anchors)
        assert not gradient.any()


@pytest.mark.parametrize("bias", [None, -0.5])
def test_a_learned_temperature(bias: float | None) -> None:
    similarity = kt.LearnedTemperature(initial=0.6, bias=bias).double()
    pairs = replace(scene("several blocks", similarity), hardness=0.6, positive_prior=0.2)
    hold(replace(pairs, least_score=-3.0))
    if bias is None:  # the bound is the scale as it is now, and no path for a gradient
        hold(pairs)
    else:
        with pytest.raises(
            kt.IncompatibleError, match="LearnedTemperature has no bound; take Cosine, or give Debiased"
        ):
            kt.row_statistics(pairs)


@pytest.mark.parametrize("similarity", [kt.Dot(), kt.NegativeSquaredDistance(), kt.NegativeDistance(), kt.Bilinear(3)])
def test_a_prior_without_bound_or_least_score_is_refused(similarity: kt.Similarity) -> None:
    pairs = replace(scene("match", similarity), positive_prior=0.1)
    with pytest.raises(kt.IncompatibleError, match=f"{type(similarity).__name__} has no bound"):
        kt.row_statistics(pairs)
    assert kt.row_statistics(replace(pairs, least_score=-9.0)).negative_logsumexp.isfinite().all()


@pytest.mark.parametrize("hardness", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("prior", [0.0, 0.1])
def test_not_a_number_is_refused(hardness: float, prior: float) -> None:
    pairs = replace(scene("match"), hardness=hardness, positive_prior=prior)
    with torch.no_grad():
        pairs.blocks[0].candidates[3] = math.nan  # no positive of any anchor, so that no other statistic tells
    with pytest.raises(kt.NonFiniteLossError, match="in 1 of 9 candidates, the first in row 3"):
        kt.row_statistics(pairs, temperature=0.5)


@pytest.mark.parametrize("temperature", [0.001, 0.01, 10.0])
@pytest.mark.parametrize("prior", [0.0, 0.1])
def test_float32_at_all_temperatures(temperature: float, prior: float) -> None:
    results = []
    for dtype in (torch.float32, torch.float64):
        leaf = normal(40, 8, seed=1, dtype=torch.float32).to(dtype).requires_grad_()
        (inner,) = kt.InBatch().pairs(kt.embedded(leaf[:20], leaf[20:]))
        pairs = replace(inner, hardness=1.0, positive_prior=prior)
        found = kt.row_statistics(pairs, temperature=temperature).negative_logsumexp
        found.sum().backward()
        assert leaf.grad is not None
        results.append((found.detach().double(), leaf.grad.double()))
    (value, gradient), (exact, slope) = results
    assert torch.allclose(value, exact, rtol=1e-4, atol=1e-4)
    assert (gradient - slope).norm() < 2e-3 * slope.norm()
