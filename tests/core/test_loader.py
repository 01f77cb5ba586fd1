"""The order of a run: every sample once per epoch, whatever the processes, micro-batches and resumes."""

from itertools import chain

import pytest
import torch

import kontrast as kt
from kontrast.loader import Plan, micro_batches


@pytest.mark.parametrize(("length", "batch_size"), [(20, 5), (23, 5), (3, 5), (1, 1), (5, 5)])
@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_an_epoch_holds_every_sample_once_however_it_is_shared(
    length: int, batch_size: int, drop_last: bool, world: int
) -> None:
    def batches(world: int = 1, rank: int = 0, seed: int = 4, epoch: int = 7) -> list[list[int]]:
        plan = Plan(length, epoch + 1, batch_size, 0, seed, drop_last, world=world, rank=rank)
        return [part.indices.tolist() for part in plan.from_step(epoch * plan.steps_per_epoch)]

    alone = batches()
    rest = length % batch_size
    sizes = [batch_size] * (length // batch_size) + ([rest] if rest and not drop_last else [])
    assert [len(batch) for batch in alone] == sizes
    seen = sorted(sample for batch in alone for sample in batch)
    if drop_last:
        assert len(set(seen)) == len(seen)
        assert set(seen) <= set(range(length))
    else:
        assert seen == list(range(length))
    shares = [batches(world, rank) for rank in range(world)]
    assert [list(chain(*parts)) for parts in zip(*shares, strict=True)] == alone
    assert all(max(map(len, parts)) - min(map(len, parts)) <= 1 for parts in zip(*shares, strict=True))
    assert batches() == alone
    if length >= 20:
        in_order = [batch.tolist() for batch in torch.arange(length).split(batch_size)]
        assert all(other[0] != alone[0] for other in (batches(epoch=8), batches(seed=5), in_order))


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("drop_last", [True, False])
def test_micro_batches_are_as_many_on_every_rank_and_joined_are_the_batch(world: int, drop_last: bool) -> None:
    plans = [Plan(23, 2, 7, 2, 1, drop_last, world=world, rank=rank) for rank in range(world)]
    whole = [Plan(23, 2, 7, 0, 1, drop_last, world=world, rank=rank) for rank in range(world)]
    by_rank = [list(plan.from_step(0)) for plan in plans]
    marks = [[(part.step, part.epoch, part.last, round(part.share, 9)) for part in parts] for parts in by_rank]
    assert all(mark == marks[0] for mark in marks)
    assert all(len(part.indices) <= 2 for parts in by_rank for part in parts)
    for parts, plan in zip(by_rank, whole, strict=True):
        for step in plan.from_step(0):
            own = [part for part in parts if part.step == step.step]
            assert torch.equal(torch.cat([part.indices for part in own]), step.indices)
            assert sum(part.share for part in own) == pytest.approx(1)
            assert [part.last for part in own] == [False] * (len(own) - 1) + [True]


@pytest.mark.parametrize("start", [0, 1, 3, 5, 7])
def test_a_plan_taken_up_at_a_step_goes_on_as_if_it_had_not_stopped(start: int) -> None:
    plan = Plan(23, 2, 7, 3, 1, drop_last=False, world=2, rank=1)
    through, later = list(plan.from_step(0)), list(plan.from_step(start))
    expected = [part for part in through if part.step >= start]
    assert [part.indices.tolist() for part in later] == [part.indices.tolist() for part in expected]
    assert [part.step for part in later] == [part.step for part in expected]


class Noise(kt.Augmenter):
    """Two views, each with numbers of its own."""

    def forward(self, batch: kt.Batch, draws: kt.Draws) -> list[kt.View]:
        return [kt.View.of(batch, batch.inputs + draws.uniform(batch.ids, 3, view=view)) for view in range(2)]


def _views(workers: int, world: int = 1, rank: int = 0) -> dict[tuple[int, int], list[list[float]]]:
    """Every view of every sample, by epoch and id."""
    data = kt.ArrayData(torch.arange(30.0).reshape(10, 3))
    plan = Plan(10, 2, 4, 0, 5, drop_last=False, world=world, rank=rank)
    found: dict[tuple[int, int], list[list[float]]] = {}
    loaded = micro_batches(plan, data, Noise(), start=0, workers=workers, device=torch.device("cpu"))
    for part, views in loaded:
        for position, sample in enumerate(views[0].ids.tolist()):
            found[part.epoch, sample] = [view.inputs[position].tolist() for view in views]
    return found


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_views_are_the_same_for_any_number_of_workers_and_ranks() -> None:
    alone = _views(0)
    assert len(alone) == 20
    assert _views(2) == alone
    assert {key: views for rank in range(3) for key, views in _views(0, 3, rank).items()} == alone
    assert alone[0, 3] != alone[1, 3]


@pytest.mark.parametrize("start", [0, 2, 4])
def test_a_plan_of_so_many_steps_is_the_beginning_of_the_longer_one(start: int) -> None:
    whole = Plan(23, 2, 7, 3, 1, drop_last=False, world=2, rank=1)
    part = Plan(23, 2, 7, 3, 1, drop_last=False, world=2, rank=1, at_most=6)
    assert (whole.steps, part.steps) == (8, 6)

    def taken(plan: Plan) -> list[tuple[int, int, list[int]]]:
        return [(one.step, one.epoch, one.indices.tolist()) for one in plan.from_step(start)]

    assert taken(part) == [one for one in taken(whole) if one[0] < 6]
