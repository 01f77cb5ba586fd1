"""Each method on 2 and 3 processes, uneven last batch included, against one process on the joined batch."""

import functools
from collections.abc import Callable

import pytest
import torch
from gloo import GlooPool
from torch import Tensor, nn

import kontrast as kt
from kontrast.adapters import vision
from kontrast.norm import sync_batch_norms
from kontrast.plugins.byol import byol
from kontrast.plugins.moco_v2 import moco_v2
from kontrast.plugins.objectives import InfoNCE
from kontrast.plugins.simclr import simclr
from kontrast.plugins.vicreg import vicreg


def _memory(encoder: kt.Encoder) -> kt.Method:
    """A queue of both views that wraps: what it lets go must not depend on the number of processes."""
    return kt.Method(
        encoder, projector=kt.mlp(8, 6), sampler=kt.Queue(kt.InBatch("cross"), size=7), objective=InfoNCE()
    )


METHODS: dict[str, Callable[[kt.Encoder], kt.Method]] = {
    "byol": functools.partial(byol, hidden_size=12, projection_size=6, momentum=0.9),
    "memory beside the batch": _memory,
    "moco-v2": functools.partial(moco_v2, projection_size=6, queue_size=13, momentum=0.9),
    "simclr": functools.partial(simclr, hidden_size=12, projection_size=6),
    "vicreg": functools.partial(vicreg, projection_size=6),
}
BATCHES = (8, 8, 7)  # the last is uneven for 2 and for 3 processes


def _method(name: str) -> kt.Method:
    torch.manual_seed(0)
    method = METHODS[name](vision.SmallCNN(1, width=2)).double()
    assert any(isinstance(module, nn.BatchNorm2d) for module in method.modules())
    return method


def _images() -> kt.ArrayData:
    return kt.ArrayData(torch.rand(sum(BATCHES), 1, 8, 8, generator=torch.Generator().manual_seed(2)).double())


def _gradients(name: str) -> list[dict[str, Tensor]]:
    """Every parameter's gradient in each of three steps, averaged over ranks as DDP does."""
    method, data, augmenter = _method(name), _images(), vision.AffineViews()
    if kt.world_size() > 1:
        sync_batch_norms(method)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    steps = []
    for number, joined in enumerate(torch.arange(sum(BATCHES)).split(BATCHES)):
        own = joined.tensor_split(kt.world_size())[kt.rank()]
        loss, encoded = method(augmenter(data.batch(own), kt.Draws(0)))
        optimizer.zero_grad()
        loss.reduced().backward.backward()
        gradients = {}
        for key, parameter in method.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, key
                parameter.grad = kt.all_sum(parameter.grad) / kt.world_size()
                gradients[key] = parameter.grad.clone()
        optimizer.step()
        method.after_step([view.detach() for view in encoded], (number + 1) / len(BATCHES))
        steps.append(gradients)
    return steps


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("world", [2, 3])
def test_gradients_of_every_parameter_equal_those_of_one_process(gloo: GlooPool, name: str, world: int) -> None:
    expected = _gradients(name)
    for steps in gloo.run(world, _gradients, name):
        for step, (gradients, one) in enumerate(zip(steps, expected, strict=True)):
            assert gradients.keys() == one.keys()
            for key, gradient in gradients.items():
                torch.testing.assert_close(gradient, one[key], rtol=1e-6, atol=1e-9, msg=f"step {step}: {key}")


def _trained(name: str) -> tuple[dict[str, Tensor], float]:
    """The weights, buffers and queue after a run, through DDP where there are several processes."""
    method = _method(name)
    run = kt.Run(
        method,
        _images(),
        augmenter=vision.AffineViews(),
        epochs=2,
        batch_size=8,
        optimizer=kt.SGD(0.05),
        drop_last=False,
        device="cpu",
        observers=(),
    )
    metrics = run.fit()
    state = {key: value for key, value in method.state_dict().items() if isinstance(value, Tensor)}
    return state, metrics["loss"]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("world", [2, 3])
def test_a_run_ends_with_the_weights_and_queue_of_one_process(gloo: GlooPool, name: str, world: int) -> None:
    expected, loss = _trained(name)
    for state, rank_loss in gloo.run(world, _trained, name):
        assert rank_loss == pytest.approx(loss, rel=1e-9)
        for key, value in state.items():
            torch.testing.assert_close(value, expected[key], rtol=1e-6, atol=1e-9, msg=key)
