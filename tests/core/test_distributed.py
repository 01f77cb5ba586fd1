"""Collectives and SyncBatchNorm on real processes against one process on the joined rows."""

import pytest
import torch
from gloo import GlooPool
from torch import Tensor, nn

import kontrast as kt
from kontrast.norm import sync_batch_norms

COUNTS = {2: (3, 5), 3: (4, 1, 2)}


def _rows(world: int, size: int = 4) -> Tensor:
    return torch.randn(sum(COUNTS[world]), size, dtype=torch.float64, generator=torch.Generator().manual_seed(world))


def _own(rows: Tensor, world: int) -> Tensor:
    own: Tensor = rows.split(COUNTS[world])[kt.rank()]
    return own.clone()


def _gathered(world: int) -> tuple[Tensor, Tensor]:
    own = _own(_rows(world), world).requires_grad_()
    joined = kt.all_gather(own)
    # Each rank asks something else of every row, so that a backward that forgets a rank shows.
    (joined * (kt.rank() + 1) * joined.detach().cos()).sum().backward()
    assert own.grad is not None
    return joined.detach(), own.grad


@pytest.mark.parametrize("world", [2, 3])
def test_all_gather_joins_uneven_ranks_and_its_backward_sums_over_all_of_them(gloo: GlooPool, world: int) -> None:
    rows = _rows(world)
    results = gloo.run(world, _gathered, world)
    factor = sum(range(1, world + 1))
    for joined, _ in results:
        assert torch.equal(joined, rows)
    torch.testing.assert_close(torch.cat([gradient for _, gradient in results]), factor * rows.cos())


def _summed(world: int) -> tuple[Tensor, Tensor]:
    own = _own(_rows(world), world).requires_grad_()
    total = kt.all_sum(own.sum(0))
    (total.square().sum() * (kt.rank() + 1)).backward()
    assert own.grad is not None
    return total.detach(), own.grad


@pytest.mark.parametrize("world", [2, 3])
def test_all_sum_and_its_backward_are_sums_over_ranks(gloo: GlooPool, world: int) -> None:
    total = _rows(world).sum(0)
    factor = sum(range(1, world + 1))
    for value, gradient in gloo.run(world, _summed, world):
        torch.testing.assert_close(value, total)
        torch.testing.assert_close(gradient, (2 * factor * total).expand_as(gradient))


def _across(world: int) -> kt.Encoded:
    rows = _own(_rows(world), world)
    labels = torch.arange(len(rows)) + 10 * kt.rank()
    return kt.across_ranks(kt.embedded(rows, labels=labels)[0])


@pytest.mark.parametrize("world", [2, 3])
def test_across_ranks_carries_keys_that_no_two_ranks_share(gloo: GlooPool, world: int) -> None:
    for encoded in gloo.run(world, _across, world):
        assert encoded.rows is not None
        assert encoded.labels is not None
        assert torch.equal(encoded.rows, _rows(world))
        assert encoded.labels.tolist() == [10 * r + i for r, count in enumerate(COUNTS[world]) for i in range(count)]
        assert len(encoded.copies.unique()) == len(encoded.ids.unique()) == sum(COUNTS[world])
        assert encoded.groups is None


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    conv = nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 5))
    return nn.Sequential(conv, nn.BatchNorm1d(5, momentum=None), nn.Linear(5, 2)).double()


def _normalised(world: int, images: Tensor) -> dict[str, Tensor]:
    network = _network()
    sync_batch_norms(network)
    network(images.split(COUNTS[world])[kt.rank()]).square().sum().backward()
    result = {f"gradient of {name}": kt.all_sum(p.grad) for name, p in network.named_parameters() if p.grad is not None}
    return {**result, **dict(network.named_buffers())}


@pytest.mark.parametrize("world", [2, 3])
def test_sync_batch_norm_equals_batch_norm_on_the_joined_rows(gloo: GlooPool, world: int) -> None:
    images = torch.randn(sum(COUNTS[world]), 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    network = _network()
    network(images).square().sum().backward()
    expected = {f"gradient of {name}": p.grad for name, p in network.named_parameters()} | dict(network.named_buffers())
    for result in gloo.run(world, _normalised, world, images):
        assert result.keys() == expected.keys()
        for name, value in result.items():
            torch.testing.assert_close(value, expected[name], msg=name)


def _reduced(world: int) -> tuple[float, float, float]:
    own = _own(_rows(world), world)[:, 0].requires_grad_()
    valid = own.detach() > 0
    loss = kt.Loss(
        (
            *kt.Loss.over_rows(own.square(), valid, name="mean", weight=2.0).terms,
            kt.Term("sum", own.sum(), None, 0.5),
            kt.Term("same everywhere", kt.all_sum(own.sum()).square(), 1.0),
        )
    ).reduced()
    loss.backward.backward()
    assert own.grad is not None
    # What DDP would do with the gradient of a parameter that every row is multiplied by.
    averaged = kt.all_sum((own.grad * own.detach()).sum()) / world
    return float(loss.value), float(averaged), float(loss.terms["mean"])


@pytest.mark.parametrize("world", [2, 3])
def test_a_loss_over_uneven_ranks_is_that_of_the_joined_rows(gloo: GlooPool, world: int) -> None:
    rows = _rows(world)[:, 0]
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    scaled = rows * scale
    mean = scaled[rows > 0].square().mean()
    value = 2 * mean + 0.5 * scaled.sum() + scaled.sum().square()
    value.backward()
    assert scale.grad is not None
    for result in gloo.run(world, _reduced, world):
        assert result == pytest.approx((value.item(), scale.grad.item(), mean.item()), rel=1e-12)
