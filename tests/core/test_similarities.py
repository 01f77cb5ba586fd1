"""Every similarity through the engine against loops: scores, statistics in tiles, gradients of its parameters too.

Shapes: A anchors, C candidates, D embedding size.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import engine_oracle
import pytest
import torch
from engine_scenes import agree, cut, leaves, normal, on, scene
from torch import Tensor
from torch.nn import functional

import kontrast as kt

D = 3


def bilinear() -> kt.Bilinear:
    similarity = kt.Bilinear(D)
    with torch.no_grad():
        similarity.weight.copy_(normal(D, D, seed=70))
    return similarity


def network() -> kt.MLP:
    similarity = kt.MLP(D, 3).double()
    with torch.no_grad():
        for n, parameter in enumerate(similarity.parameters()):
            parameter.copy_(normal(*parameter.shape, seed=71 + n))
    return similarity


def learned(inner: kt.Similarity, bias: float | None = None) -> kt.LearnedTemperature:
    return kt.LearnedTemperature(inner, initial=0.6, bias=bias)


SIMILARITIES: dict[str, Callable[[], kt.Similarity]] = {
    "cosine": kt.Cosine,
    "dot": kt.Dot,
    "bilinear": bilinear,
    "negative squared distance": kt.NegativeSquaredDistance,
    "negative distance": kt.NegativeDistance,
    "mlp": network,
    "learned cosine": lambda: learned(kt.Cosine()),
    "learned cosine, bias": lambda: learned(kt.Cosine(), -0.8),
    "learned dot, bias": lambda: learned(kt.Dot(), 0.4),
    "learned bilinear, bias": lambda: learned(bilinear(), -0.3),
    "learned negative squared distance": lambda: learned(kt.NegativeSquaredDistance()),
    "learned negative distance, bias": lambda: learned(kt.NegativeDistance(), -0.8),
    "learned mlp, bias": lambda: learned(network(), -0.8),
    "learned learned cosine": lambda: learned(learned(kt.Cosine()), 0.2),
}
MIRRORED_AND_NOT = ["views, mirrored", "match", "several blocks", "slots", "ragged scopes"]
NAMES = ("positive_count", "negative_count", "positive_mean", "positive_logsumexp", "negative_logsumexp", "logsumexp")


def make(name: str) -> kt.Similarity:
    return SIMILARITIES[name]().double()


def engine(pairs: kt.Pairs, offset: Tensor) -> dict[str, Tensor]:
    found = kt.row_statistics(pairs, temperature=0.8)
    return {
        **{name: getattr(found, name) for name in NAMES},
        **{
            of: kt.row_sums(pairs, functional.softplus, of=of, temperature=0.8, offset=offset)
            for of in ("positive", "negative")
        },
    }


def oracle(pairs: kt.Pairs, offset: list[float]) -> dict[str, list[float]]:
    rows = engine_oracle.cells(pairs)
    return {
        **engine_oracle.statistics(pairs, 0.8),
        **{
            of: engine_oracle.sums(
                rows, lambda x: math.log1p(math.exp(-abs(x))) + max(x, 0.0), of=of, temperature=0.8, offset=offset
            )
            for of in ("positive", "negative")
        },
    }


@pytest.mark.parametrize("where", MIRRORED_AND_NOT)
@pytest.mark.parametrize("how", ["whole", "tiles of 4"])
@pytest.mark.parametrize("name", SIMILARITIES)
def test_through_the_engine(monkeypatch: pytest.MonkeyPatch, name: str, how: str, where: str) -> None:
    cut(monkeypatch, how)
    agree(scene(where, make(name)), engine, oracle, tolerance=1e-9)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_with_many_positives(name: str) -> None:
    agree(scene("two labels, mirrored", make(name)), engine, oracle, tolerance=1e-9)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_without_any_gradient_for_the_embeddings(name: str) -> None:
    """The parameters of a similarity learn also where what it compares does not (a frozen encoder)."""
    similarity = make(name)
    parameters = list(similarity.parameters())
    if not parameters:
        return
    pairs = scene("match", similarity)
    found = []
    for wanted in (False, True):
        tensors = [tensor.clone().requires_grad_(wanted) for tensor in leaves(pairs)]
        rows = kt.row_statistics(on(pairs, tensors), temperature=0.8)
        total = (rows.negative_logsumexp - rows.positive_mean).sum()
        found.append(torch.autograd.grad(total, parameters, materialize_grads=True))
    for frozen, other in zip(*found, strict=True):
        assert torch.allclose(frozen, other, rtol=1e-12)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_one_by_one_in_pairs_and_in_tiles_are_the_same_scores(name: str) -> None:
    similarity, a, c = make(name), normal(4, D, seed=1), normal(5, D, seed=2)
    expected = [[engine_oracle.score(similarity, x, y) for y in c.tolist()] for x in a.tolist()]
    assert similarity.scores(a, c).tolist() == [pytest.approx(row, rel=1e-12) for row in expected]
    groups = similarity.scores(a[:, None], torch.stack([c] * 4))
    assert groups[:, 0].tolist() == [pytest.approx(row, rel=1e-12) for row in expected]
    assert similarity.paired(a, c[:4]).tolist() == pytest.approx([expected[i][i] for i in range(4)], rel=1e-12)
    best = kt.top_negatives(kt.Pairs((kt.Block(a, c, kt.Keys(), kt.Keys()),), similarity), 5)
    assert best.scores.tolist() == [pytest.approx(sorted(row, reverse=True), rel=1e-12) for row in expected]


@pytest.mark.parametrize("name", SIMILARITIES)
def test_symmetric_and_bounded_as_it_says(name: str) -> None:
    similarity, rows = make(name), normal(6, D, seed=3)
    scores = similarity.scores(rows, rows)
    if similarity.symmetric:
        assert torch.allclose(scores, scores.T, rtol=1e-12)
        assert torch.equal(similarity.prepare(rows), similarity.prepare_candidates(rows))
    if similarity.bound is not None:
        assert float(scores.detach().abs().max()) <= float(similarity.bound) * (1 + 1e-6)


@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize("mirrored", [False, True])
def test_gradcheck(monkeypatch: pytest.MonkeyPatch, name: str, mirrored: bool) -> None:
    similarity = make(name)
    if mirrored and not similarity.symmetric:
        return  # nothing is shared then
    cut(monkeypatch, "tiles of 4")
    own = kt.Keys(row=torch.arange(4), match=torch.tensor([0, 0, 1, 1]))
    theirs = own if mirrored else kt.Keys(match=torch.tensor([0, 1, 1, 2]))

    def statistics(anchors: Tensor, candidates: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        block = kt.Block(anchors, anchors if mirrored else candidates, own, theirs)
        found = kt.row_statistics(kt.Pairs((block,), similarity), temperature=0.8)
        return found.positive_mean, found.positive_logsumexp, found.negative_logsumexp

    inputs = normal(4, D, seed=1).requires_grad_(), normal(4, D, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(statistics, (*inputs, *similarity.parameters()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("similarity", [kt.NegativeDistance(), kt.NegativeSquaredDistance()])
def test_equal_rows_are_at_distance_zero_and_feel_nothing(similarity: kt.Similarity, dtype: torch.dtype) -> None:
    anchors = normal(50, 8, seed=1, dtype=dtype).requires_grad_()
    candidates = anchors.detach().clone()
    own = kt.Keys(match=torch.arange(50))
    found = kt.row_statistics(kt.Pairs((kt.Block(anchors, candidates, own, own),), similarity))
    assert found.positive_mean.abs().max() < 50 * math.sqrt(torch.finfo(dtype).eps)
    assert found.positive_mean.max() <= 0
    found.positive_mean.sum().backward()
    assert anchors.grad is not None
    assert anchors.grad.abs().max() < 1e-2


def test_a_temperature_is_held_at_the_smallest() -> None:
    similarity = kt.LearnedTemperature(initial=0.02, smallest=0.01).double()
    pairs = scene("match", similarity)
    sizes = []
    for log_inverse in (4.0, 4.5, 5.0, 8.0):  # 0.01 is 4.605
        with torch.no_grad():
            similarity.log_inverse_temperature.fill_(log_inverse)
        found = kt.row_statistics(pairs)
        expected = engine_oracle.statistics(pairs, 1.0)
        for name in NAMES:
            assert getattr(found, name).tolist() == pytest.approx(expected[name], rel=1e-10)
        (slope,) = torch.autograd.grad(found.negative_logsumexp.sum(), [similarity.log_inverse_temperature])
        sizes.append(abs(slope.item()))
        assert similarity.metrics()["temperature"] == pytest.approx(max(math.exp(-log_inverse), 0.01))
    assert sizes[0] > 0
    assert sizes[1] > 0
    assert sizes[2:] == [0, 0]


def test_a_learned_temperature_falls_where_it_should() -> None:
    """Alike positives and unlike negatives want it sharper: the loss falls with the temperature, and so does it."""
    similarity = kt.LearnedTemperature(initial=0.5).double()
    optimizer = torch.optim.SGD(similarity.parameters(), lr=0.5)
    rows = torch.eye(6, dtype=torch.float64)
    values = []
    for _ in range(8):
        own = kt.Keys(match=torch.arange(6))
        found = kt.row_statistics(kt.Pairs((kt.Block(rows, rows.clone(), own, own),), similarity))
        loss = (found.logsumexp - found.positive_mean).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(similarity.metrics()["temperature"])
    assert all(later < earlier for earlier, later in pairwise(values))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kt.Bilinear(0), "`size` must be >= 1, got 0"),
        (lambda: kt.MLP(0), "`size` and `hidden_size` must be >= 1, got 0 and 128"),
        (lambda: kt.MLP(2, 0), "`size` and `hidden_size` must be >= 1, got 2 and 0"),
        (lambda: kt.LearnedTemperature(initial=0.0), "`initial` >= `smallest` > 0, got 0.0 and 0.01"),
        (lambda: kt.LearnedTemperature(initial=0.1, smallest=0.2), "`initial` >= `smallest` > 0, got 0.1 and 0.2"),
    ],
)
def test_what_a_similarity_refuses(make: Callable[[], kt.Similarity], message: str) -> None:
    with pytest.raises(kt.InvalidValueError, match=message):
        make()


def test_sides_that_are_prepared_differently_are_not_taken_for_one() -> None:
    class Doubled(kt.Dot):
        def prepare_candidates(self, rows: Tensor) -> Tensor:
            return 2 * rows

    class Named(Doubled):
        pass

    rows, own = normal(5, D, seed=1), kt.Keys(row=torch.arange(5))
    for similarity in (Doubled(), Named(), kt.LearnedTemperature(Named()).double()):
        assert not similarity.symmetric
        found = kt.row_statistics(kt.Pairs((kt.Block(rows, rows, own, own),), similarity)).negative_logsumexp
        scores = similarity.scores(rows, rows).masked_fill(torch.eye(5, dtype=torch.bool), -math.inf)
        torch.testing.assert_close(found, scores.logsumexp(1))
