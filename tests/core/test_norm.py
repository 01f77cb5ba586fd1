from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

import kontrast as kt
import kontrast.norm
from kontrast.norm import sync_batch_norms


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "cumulative": {"momentum": None},
    "no affine": {"affine": False},
    "no statistics": {"track_running_stats": False},
    "own settings": {"eps": 0.1, "momentum": 0.4},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5), (4, 3, 2, 2)])
@pytest.mark.parametrize("world", [1, 2])
def test_batch_norm_over_one_rank_is_batch_norm(
    monkeypatch: pytest.MonkeyPatch, world: int, shape: tuple[int, ...], options: dict[str, Any]
) -> None:
    plain = (nn.BatchNorm1d if len(shape) < 4 else nn.BatchNorm2d)(3, **options).double()
    # World 2 takes the way of several ranks, whose sums are those of this one as no process group is there.
    monkeypatch.setattr(kontrast.norm, "world_size", lambda: world)
    ours = kt.SyncBatchNorm(3, **options).double()
    for module in (plain, ours):
        for i, parameter in enumerate(module.parameters()):
            nn.init.constant_(parameter, 0.5 + i)
    for step in range(4):
        for module in (plain, ours):
            module.train(step < 3)
        inputs = [random(*shape, seed=step).mul(3).add(1).requires_grad_() for _ in range(2)]
        outputs = [module(rows) for module, rows in zip((plain, ours), inputs, strict=True)]
        for output in outputs:
            (output * random(*shape, seed=9)).sum().backward()
        torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(inputs[1].grad, inputs[0].grad, rtol=1e-10, atol=1e-12)
    for first, second in zip(plain.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(second.grad, first.grad, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(ours.state_dict(), plain.state_dict(), rtol=1e-12, atol=1e-12)


def test_batch_norm_refuses_one_dimension() -> None:
    with pytest.raises(kt.InvalidValueError, match=r"SyncBatchNorm takes \[M, C\] or \[M, C, \.\.\.\], got \[3\]"):
        kt.SyncBatchNorm(3)(torch.ones(3))


def test_converted_norms_keep_parameters_and_state() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2, eps=0.5), nn.Sequential(nn.BatchNorm2d(2).eval()))
    parameters = dict(module.named_parameters())
    keys = list(module.state_dict())
    converted = sync_batch_norms(module)
    norms = [part for part in converted.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    assert [(type(norm), norm.eps, norm.training) for norm in norms] == [
        (kt.SyncBatchNorm, 0.5, True),
        (kt.SyncBatchNorm, 1e-5, False),
    ]
    # An optimizer made before holds these very objects.
    assert all(value is parameters[name] for name, value in converted.named_parameters())
    assert list(converted.state_dict()) == keys
    assert sync_batch_norms(norms[0]) is norms[0]
    assert isinstance(sync_batch_norms(nn.BatchNorm1d(2)), kt.SyncBatchNorm)


def test_a_norm_used_twice_is_converted_in_both_places() -> None:
    shared = nn.BatchNorm1d(2)
    converted = sync_batch_norms(nn.Sequential(shared, nn.ReLU(), shared))
    assert [type(part) for part in cast(nn.Sequential, converted)] == [kt.SyncBatchNorm, nn.ReLU, kt.SyncBatchNorm]
