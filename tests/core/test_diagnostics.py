"""What a run says of its embeddings, against the formulas in plain loops."""

import math
import warnings
from collections import deque
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from gloo import GlooPool
from torch import Tensor, nn

import kontrast as kt
from kontrast.diagnostics import CollapseWarning, CollapseWatch, diagnose, effective_rank
from kontrast.plugins.objectives import CosineRegression, InfoNCE, NTXent


def _rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _method(**parts: Any) -> kt.Method:
    torch.manual_seed(0)
    return kt.Method(**{"encoder": nn.Linear(4, 3), "sampler": kt.InBatch(), "objective": NTXent(), **parts})


def _view(rows: Tensor | None, ids: Tensor, **streams: kt.Encoded) -> kt.Encoded:
    return kt.Encoded(rows, ids, ids, streams=streams)


def _unit(rows: Tensor) -> list[list[float]]:
    """Rows of length 1, in Python's float64."""
    lists = rows.double().tolist()
    return [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in lists]


def _dot(one: list[float], other: list[float]) -> float:
    return sum(x * y for x, y in zip(one, other, strict=True))


def _distance(one: list[float], other: list[float]) -> float:
    return sum((x - y) ** 2 for x, y in zip(one, other, strict=True))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _in_loops(anchors: Tensor, ids: Tensor, others: Tensor | None = None, other_ids: Tensor | None = None) -> Any:
    """All of it from the definitions, over the first 128 anchors."""
    rows, own = _unit(anchors)[:128], ids.tolist()
    singular = torch.linalg.svdvals(torch.tensor(rows, dtype=torch.float64)).tolist()
    shares = [value / sum(singular) for value in singular]
    deviations = []
    for column in zip(*rows, strict=True):
        centre = _mean(list(column))
        deviations.append(math.sqrt(sum((x - centre) ** 2 for x in column) / (len(column) - 1)))
    couples = [(i, j) for i in range(len(rows)) for j in range(len(rows)) if own[i] != own[j]]
    found = {
        "effective_rank": math.exp(-sum(share * math.log(share) for share in shares if share > 0)),
        "embedding_std": _mean(deviations) * math.sqrt(len(rows[0])),
    }
    if couples:
        found["negative_similarity"] = _mean([_dot(rows[i], rows[j]) for i, j in couples])
        found["uniformity"] = math.log(_mean([math.exp(-2 * _distance(rows[i], rows[j])) for i, j in couples]))
    if others is not None and other_ids is not None:
        candidates, theirs = _unit(others), other_ids.tolist()
        matched = [(row, candidates[theirs.index(one)]) for row, one in zip(rows, own, strict=False) if one in theirs]
        if matched:
            found["positive_similarity"] = _mean([_dot(*couple) for couple in matched])
            found["alignment"] = _mean([_distance(*couple) for couple in matched])
    return found


def _numbers(found: Mapping[str, Tensor]) -> dict[str, float]:
    assert all(value.shape == () for value in found.values())
    return {name: value.item() for name, value in found.items()}


@pytest.mark.parametrize(("rows", "size"), [(2, 1), (2, 5), (9, 3), (5, 40), (128, 16), (150, 7)])
def test_numbers_are_those_of_their_definitions(rows: int, size: int) -> None:
    first, second, ids = _rows(rows, size), _rows(rows, size, seed=1), torch.arange(rows) + 7
    second = first + 0.5 * second
    found = _numbers(diagnose(_method(), [_view(first, ids), _view(second, ids)]))
    expected = _in_loops(first, ids, second, ids)
    assert set(expected) == set(found)
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_positives_are_found_by_id_wherever_they_stand() -> None:
    first = _rows(200, 6)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(3))
    ids = torch.arange(200) * 5
    shuffled = _view((first + 0.1 * _rows(200, 6, seed=1))[order], ids[order])
    found = _numbers(diagnose(_method(), [_view(first, ids), shuffled]))
    assert found["positive_similarity"] > 0.9
    assert shuffled.rows is not None
    assert found == pytest.approx(_in_loops(first, ids, shuffled.rows, ids[order]), rel=1e-4, abs=1e-5)


def test_views_of_other_length_and_with_samples_of_their_own() -> None:
    first, second = _rows(4, 5), _rows(6, 5, seed=1)
    ids, others = torch.tensor([3, 1, 1, 9]), torch.tensor([8, 1, 8, 3, 3, 2])  # 9 has no copy there
    found = _numbers(diagnose(_method(), [_view(first, ids), _view(second, others)]))
    assert found == pytest.approx(_in_loops(first, ids, second, others), rel=1e-4, abs=1e-5)
    apart = _numbers(diagnose(_method(), [_view(first, ids), _view(second, others + 100)]))
    assert apart == pytest.approx(_in_loops(first, ids), rel=1e-4, abs=1e-5)
    assert "positive_similarity" not in apart
    # A projection of another size cannot be compared.
    assert "alignment" not in diagnose(_method(), [_view(first, ids), _view(_rows(4, 2), ids)])
    # The same sample alone, twice: there is no negative.
    alone = _numbers(diagnose(_method(), [_view(first[:2], torch.tensor([1, 1]))]))
    assert set(alone) == {"effective_rank", "embedding_std"}


def test_a_momentum_method_is_judged_by_its_target_in_a_view_without_anchors() -> None:
    method = _method(target=kt.Momentum(0.9), sampler=kt.Positives("forward"), objective=CosineRegression())
    ids = torch.arange(5)
    views = [kt.View(_rows(5, 4), ids), kt.View(_rows(5, 4, seed=1), ids)]
    with torch.no_grad():
        for parameter in method.towers.parameters():
            parameter.mul_(1.5)
    query, key = method.encode(views)
    assert key.rows is None
    found = _numbers(diagnose(method, [query, key]))
    target = key.stream("target").rows
    assert query.rows is not None
    assert target is not None
    expected = _in_loops(query.rows.detach(), ids, target, ids)
    assert found == pytest.approx({**expected, "momentum_drift": 1 / 3}, rel=1e-4)
    # The view before the anchors' has none.
    assert _numbers(diagnose(method, [key, query])) == pytest.approx(found, rel=1e-6)


def test_drift_is_the_distance_of_all_weights_over_their_length() -> None:
    method = _method(target=kt.Momentum(0.9), sampler=kt.Positives("forward"), objective=CosineRegression())
    online, target = list(method.towers.parameters()), list(method.target_towers.parameters())  # type: ignore[union-attr]
    for seed, parameter in enumerate(online):
        parameter.data += _rows(*parameter.shape, seed=seed)
    moved = sum(
        (x - y) ** 2
        for one, other in zip(online, target, strict=True)
        for x, y in zip(one.flatten().tolist(), other.flatten().tolist(), strict=True)
    )
    length = sum(x * x for one in online for x in one.flatten().tolist())
    found = diagnose(method, [_view(_rows(3, 3), torch.arange(3))])
    assert found["momentum_drift"].item() == pytest.approx(math.sqrt(moved / length), rel=1e-5)
    # Without weights there is nothing to drift.
    bare = _method(encoder=nn.Identity(), target=kt.Momentum(0.9))
    assert "momentum_drift" not in diagnose(bare, [_view(_rows(3, 3), torch.arange(3))])


def test_nobody_is_asked_for_more_than_128_rows() -> None:
    # What lies beyond would spoil every number.
    first, second, ids = _rows(400, 5), _rows(400, 5, seed=1), torch.arange(400)
    expected = _in_loops(first, ids, second, ids)
    first[128:], second[128:] = torch.nan, torch.inf
    assert _numbers(diagnose(_method(), [_view(first, ids), _view(second, ids)])) == pytest.approx(
        expected, rel=1e-4, abs=1e-5
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions(dtype: torch.dtype) -> None:
    first, ids = _rows(20, 8).to(dtype), torch.arange(20)
    found = _numbers(diagnose(_method(), [_view(first, ids), _view(first.clone(), ids)]))
    assert found == pytest.approx(_in_loops(first, ids, first, ids), rel=1e-4, abs=1e-5)
    assert found["positive_similarity"] == pytest.approx(1)


def test_no_graph_is_kept_and_no_row_changed() -> None:
    rows = _rows(6, 3).requires_grad_()
    before = rows.detach().clone()
    found = diagnose(_method(), [_view(rows, torch.arange(6)), _view(rows, torch.arange(6))])
    assert not any(value.requires_grad for value in found.values())
    assert torch.equal(rows, before)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_rows_say_nothing(count: int) -> None:
    view = _view(_rows(count, 3), torch.arange(count))
    assert diagnose(_method(), [view, view]) == {}


# Effective rank


@pytest.mark.parametrize(("n", "size"), [(1, 1), (2, 2), (4, 9), (9, 9), (9, 4)])
def test_the_effective_rank_of_orthonormal_rows_is_their_number(n: int, size: int) -> None:
    basis = torch.linalg.qr(_rows(9, 9)).Q[: min(n, size), :size] if n == size == 9 else torch.eye(n, size)
    assert effective_rank(3 * basis).item() == pytest.approx(min(n, size), rel=1e-5)


@pytest.mark.parametrize("scale", [1.0, 1e-20, 1e25])
@pytest.mark.parametrize(("n", "size"), [(128, 256), (128, 8), (2, 2)])
def test_the_effective_rank_of_identical_rows_is_one(n: int, size: int, scale: float) -> None:
    rows = scale * _rows(1, size).expand(n, size)
    assert effective_rank(rows).item() == pytest.approx(1, abs=1e-3)
    signs = torch.where(torch.arange(n) % 2 == 0, 1.0, -2.0)[:, None]  # multiples of one row
    assert effective_rank(rows * signs).item() == pytest.approx(1, abs=1e-3)


def test_the_effective_rank_of_two_sizes_in_closed_form() -> None:
    # Singular values 3 and 1: shares 3/4 and 1/4.
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert effective_rank(torch.tensor([[3.0, 0.0], [0.0, 1.0]])).item() == pytest.approx(expected, rel=1e-6)


def test_the_effective_rank_of_rows_that_are_almost_alike_is_not_lost_in_rounding() -> None:
    rows = _rows(1, 256) + 1e-4 * _rows(128, 256, seed=1)
    singular = torch.linalg.svdvals(rows.double())
    shares = singular / singular.sum()
    expected = (-(shares * shares.log()).sum()).exp().item()
    assert effective_rank(rows).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("everywhere", [False, True])
def test_rows_that_are_not_finite_raise_nothing(bad: float, everywhere: bool) -> None:
    rows = _rows(5, 3)
    rows[slice(None) if everywhere else 2] = bad
    found = diagnose(_method(), [_view(rows, torch.arange(5)), _view(rows, torch.arange(5))])
    assert "effective_rank" in found
    kept = rows[:0] if everywhere else rows[[0, 1, 3, 4]]
    expected = 1.0 if everywhere else effective_rank(kept).item()
    assert effective_rank(rows).item() == pytest.approx(expected, rel=1e-6)
    zeros = _numbers(diagnose(_method(), [_view(torch.zeros(5, 3), torch.arange(5))]))
    assert zeros["effective_rank"] == 1
    assert zeros["embedding_std"] == 0


# The queue


def test_a_queue_says_how_full_it_is_and_how_old() -> None:
    queue = kt.Queue(kt.InBatch("forward"), size=10)
    method = _method(sampler=queue, objective=InfoNCE())
    assert queue.metrics() == {"queue_fill": 0, "queue_age": 0}
    born: deque[int] = deque(maxlen=10)
    for commit, rows in enumerate([3, 4, 1, 5, 2, 25, 3, 3]):  # fills in the fourth, wraps, and is outrun once
        views = kt.embedded(_rows(rows, 3), _rows(rows, 3, seed=1))
        queue.commit(views)
        born.extend([commit] * rows)
        found = _numbers(diagnose(method, kt.embedded(_rows(4, 3), _rows(4, 3, seed=1))))
        assert found["queue_fill"] == pytest.approx(len(born) / 10)
        # An entry of the last commit is one step old for the next step.
        assert found["queue_age"] == pytest.approx(_mean([commit + 1.0 - one for one in born]))
    loaded = kt.Queue(kt.InBatch("forward"), size=10)
    loaded.load_state_dict(queue.state_dict())
    assert loaded.metrics() == queue.metrics()


# Several processes

UNEVEN = {"both": (5, 9), "one row": (5, 1), "no row": (4, 0), "too few": (1, 1), "no positive": (5, 6)}


class Talks(NTXent):
    """Says something under names that others have."""

    def metrics(self) -> dict[str, float]:
        return {"queue_fill": 7.0, "embedding_std": 8.0, "loss": 9.0, "own": 10.0}


class Beside(kt.Wrapper):
    """A sampler that holds a second one."""

    def __init__(self, inner: kt.PairSampler, other: kt.PairSampler) -> None:
        super().__init__(inner)
        self.other = other


def test_what_several_modules_say_under_one_name_goes_behind_their_paths() -> None:
    inner = kt.Queue(kt.InBatch(), size=4)
    method = _method(sampler=Beside(inner, kt.Queue(kt.InBatch(), size=16)), objective=Talks())
    view = _view(_rows(8, 3), torch.arange(8))
    inner.commit([view])
    found = _numbers(diagnose(method, [view], taken=("loss",)))
    assert {name: value for name, value in found.items() if "/" in name or name == "own"} == {
        "sampler.other/queue_fill": 0.0,
        "sampler.other/queue_age": 0.0,
        "sampler.inner/queue_fill": 1.0,
        "sampler.inner/queue_age": 1.0,
        "objectives.default/queue_fill": 7.0,
        "objectives.default/embedding_std": 8.0,
        "objectives.default/loss": 9.0,
        "own": 10.0,
    }
    assert not {"queue_fill", "queue_age", "loss"} & found.keys()
    assert found["embedding_std"] < 2


def _rank_views(case: str, rank: int) -> list[kt.Encoded]:
    count = UNEVEN[case][rank]
    ids = torch.arange(count) + 100 * rank
    other_ids = ids + 50 if case == "no positive" and rank == 1 else ids
    first = _rows(count, 4, seed=rank)
    return [_view(first, ids), _view(first + 0.3 * _rows(count, 4, seed=7), other_ids)]


def _diagnosed(case: str) -> dict[str, float]:
    method = _method(sampler=kt.Queue(kt.InBatch(), size=8))
    return _numbers(diagnose(method, _rank_views(case, kt.rank())))


@pytest.mark.parametrize("case", UNEVEN)
def test_two_processes_have_the_mean_of_those_that_know(gloo: GlooPool, case: str) -> None:
    single = []
    for rank in range(2):
        (first, second) = _rank_views(case, rank)
        assert first.rows is not None
        if len(first.rows) > 1:
            single.append(_in_loops(first.rows, first.ids, second.rows, second.ids))
    names = {name for one in single for name in one}
    expected = {name: _mean([one[name] for one in single if name in one]) for name in names}
    ranks = gloo.run(2, _diagnosed, case)
    assert ranks[0] == ranks[1]
    assert ranks[0] == pytest.approx({**expected, "queue_fill": 0.0, "queue_age": 0.0}, rel=1e-4, abs=1e-5)


# The watch

ALIKE = {"effective_rank": 1.1, "negative_similarity": 0.995}
APART = {"effective_rank": 9.0, "negative_similarity": 0.3}


def _watched(total: int, *rows: tuple[int, Mapping[str, float]]) -> list[str]:
    """What the watch says about rows (step, metrics)."""
    watch = CollapseWatch(total)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step, row in rows:
            watch.look([{"step": step, **row}])
    assert all(one.category is CollapseWarning for one in caught)
    return [str(one.message) for one in caught]


def test_the_watch_says_once_what_it_saw_and_what_causes_it() -> None:
    again = ((1000, APART), (1050, ALIKE), (1100, ALIKE))
    (sentence,) = _watched(1000, *((step, ALIKE) for step in range(0, 1000, 50)), *again)
    assert sentence == (
        "the embeddings collapse: in step 150 different samples have a cosine of 0.995 and an effective rank of 1.1; "
        "likely causes are a method without negatives that lost its predictor, stop-gradient or variance term, "
        "a learning rate too high, or a temperature too high"
    )


def test_the_watch_wants_two_looks_in_a_row_after_a_tenth_of_the_run() -> None:
    assert not _watched(1000, (0, ALIKE), (50, ALIKE), (99, ALIKE), (100, ALIKE))
    assert _watched(1000, (100, ALIKE), (101, ALIKE))
    assert not _watched(1000, *((step, APART if step % 2 else ALIKE) for step in range(200, 300)))
    # Steps without a look do not interrupt.
    assert _watched(1000, (200, ALIKE), (201, {"loss": 1.0}), (202, ALIKE))
    assert _watched(5, (0, ALIKE), (1, ALIKE))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"effective_rank": 1.1, "negative_similarity": 0.5}, True),
        ({"effective_rank": 1.3, "negative_similarity": 0.0}, False),  # two dimensions
        ({"effective_rank": 9.0, "negative_similarity": 0.995}, True),
        ({"effective_rank": 9.0, "negative_similarity": 0.98}, False),
        ({"effective_rank": 1.0}, False),  # one sample alone
        ({"effective_rank": math.nan, "negative_similarity": math.nan}, False),
        ({"loss": 1.0}, False),
    ],
)
def test_the_watchs_bounds(row: Mapping[str, float], says: bool) -> None:
    assert bool(_watched(10, (5, row), (6, row))) == says


def _said(total: int) -> list[str]:
    return _watched(total, (5, ALIKE), (6, ALIKE))


def test_the_first_process_alone_says_it(gloo: GlooPool) -> None:
    first, second = gloo.run(2, _said, 10)
    assert (len(first), len(second)) == (1, 0)


# Whole runs


class Noisy(kt.Augmenter):
    """Adds much more noise than two samples differ by."""

    def forward(self, batch: kt.Batch, draws: kt.Draws) -> list[kt.View]:
        noise = [draws.uniform(batch.ids, 8, view=view) for view in range(2)]
        return [kt.View.of(batch, batch.inputs + 6 * own - 3) for own in noise]


class Looks(kt.Observer):
    def __init__(self) -> None:
        self.rows: list[Mapping[str, float]] = []

    def step_ended(self, metrics: Mapping[str, float]) -> None:
        if "effective_rank" in metrics:
            self.rows.append(metrics)


def _fit(looks: Looks, **parts: Any) -> None:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16))
    kt.Run(
        kt.Method(encoder, projector=nn.Linear(16, 8), **parts),
        kt.ArrayData(_rows(64, 8)),
        augmenter=Noisy(),
        epochs=30,
        batch_size=16,
        device="cpu",
        observers=(looks,),
        diagnose_every=20,
        optimizer=kt.AdamW(1e-2),
    ).fit()


def test_byol_without_its_predictor_is_caught() -> None:
    looks = Looks()
    with pytest.warns(CollapseWarning, match=r"the embeddings collapse: in step \d+ .* lost its predictor") as caught:
        _fit(looks, target=kt.Momentum(0.9), sampler=kt.Positives(), objective=CosineRegression())
    assert len(caught) == 1
    assert [row["step"] for row in looks.rows] == [0, 20, 40, 60, 80, 100]
    assert looks.rows[-1]["effective_rank"] < 1.5 < looks.rows[0]["effective_rank"]
    assert looks.rows[-1]["embedding_std"] < 0.1 < looks.rows[0]["embedding_std"]


def test_a_healthy_simclr_run_is_left_in_peace() -> None:
    looks = Looks()
    _fit(looks, sampler=kt.InBatch(), objective=NTXent())  # a warning would be an error
    assert looks.rows[-1]["effective_rank"] > 4
    assert looks.rows[-1]["negative_similarity"] < 0.7
    assert looks.rows[-1]["positive_similarity"] > looks.rows[-1]["negative_similarity"]
