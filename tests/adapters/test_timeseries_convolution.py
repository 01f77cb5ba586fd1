"""The convolutions of the dilated encoder are torch's own, wherever a series ends.

Shapes: B series, C channels, T time steps.
"""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from kontrast.adapters import timeseries
from kontrast.adapters.timeseries.convolution import convolved


def layer(dilation: int, width: int = 3, dtype: torch.dtype = torch.float64) -> nn.Conv1d:
    torch.manual_seed(dilation)
    return nn.Conv1d(3, 5, width, padding=dilation * (width // 2), dilation=dilation, dtype=dtype)


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("dilation", [1, 2, 3, 6, 7, 8, 20])
@pytest.mark.parametrize("steps", [1, 2, 7, 8])
def test_values_and_gradients_are_those_of_the_plain_convolution(steps: int, dilation: int, width: int) -> None:
    one, two = layer(dilation, width), layer(dilation, width)
    # Steps that do not follow one another in memory.
    x = torch.randn(4, 3, 2 * steps, dtype=torch.float64)[:, :, ::2].requires_grad_()
    weights = torch.randn(4, 5, steps, dtype=torch.float64)
    found = []
    for made, own in ((convolved(one, x), one), (two(x), two)):
        (grad_x,) = torch.autograd.grad((made * weights).sum(), x, retain_graph=True)
        (made * weights).sum().backward(inputs=list(own.parameters()))
        found.append([made.detach(), grad_x, own.weight.grad, own.bias.grad])  # type: ignore[union-attr]
    for ours, plain in zip(*found, strict=True):
        assert ours is not None
        torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
    assert torch.equal(convolved(one, x), convolved(one, x))
    with torch.no_grad():
        assert torch.equal(convolved(one, x), found[0][0])  # type: ignore[arg-type]


@pytest.mark.parametrize(("steps", "dilation"), [(7, 1), (7, 6), (5, 2), (1, 1), (4, 9)])
def test_derivatives_of_first_and_second_order(steps: int, dilation: int) -> None:
    own = layer(dilation)
    x = torch.randn(2, 3, steps, dtype=torch.float64, requires_grad=True)

    def made(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        own_ = copy.copy(own)
        own_._parameters = {"weight": weight, "bias": bias}  # type: ignore[dict-item]
        return convolved(own_, x)

    inputs = [x, *own.parameters()]
    assert torch.autograd.gradcheck(made, inputs)
    assert torch.autograd.gradgradcheck(made, inputs)


# Some of its products go through torch's slow way, one series after the other, as it says.
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_gradients_of_each_series_by_itself() -> None:
    encoder = timeseries.DilatedCNN(2, 6, hidden_size=4, depth=2, dropout=0.0).double()
    series = torch.randn(3, 9, 2, dtype=torch.float64)
    parameters: dict[str, Tensor] = dict(encoder.named_parameters())

    def loss(parameters: dict[str, Tensor], one: Tensor) -> Tensor:
        made: Tensor = functional_call(encoder, parameters, (one[None],))
        return made.square().sum()

    each = vmap(grad(loss), in_dims=(None, 0))(parameters, series)
    for number in range(3):
        encoder.zero_grad()
        encoder(series[number : number + 1]).square().sum().backward()
        for name, parameter in parameters.items():
            torch.testing.assert_close(each[name][number], parameter.grad)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_once(dtype: torch.dtype) -> None:
    x = torch.randn(4, 3, 30)
    own, plain = layer(4, dtype=torch.float32), layer(4, dtype=torch.float32)
    with torch.autocast("cpu", dtype=dtype):
        made, expected = convolved(own, x), plain(x)
    assert made.dtype == dtype
    assert torch.equal(made, expected)
    made.float().square().sum().backward()
    expected.float().square().sum().backward()
    assert own.weight.grad is not None
    assert plain.weight.grad is not None
    torch.testing.assert_close(own.weight.grad, plain.weight.grad)
    half = layer(4).to(dtype)
    assert torch.equal(convolved(half, x.to(dtype)), half(x.to(dtype)))


def test_a_backward_pass_inside_an_autocast_region() -> None:
    own, plain = layer(2, dtype=torch.float32), layer(2, dtype=torch.float32)
    x = torch.randn(4, 3, 30)
    found = [convolved(own, x).square().sum(), plain(x).square().sum()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for loss in found:
            loss.backward()
    assert own.weight.grad is not None
    torch.testing.assert_close(own.weight.grad, plain.weight.grad)


def test_the_exported_encoder_has_the_plain_convolutions() -> None:
    encoder = timeseries.DilatedCNN(2, 6, hidden_size=4, depth=2).eval()
    series = torch.randn(3, 9, 2)
    program = torch.export.export(encoder, (series,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert sum("conv" in name for name in called) == 7
    assert not [name for name in called if "autograd" in name or "addmm" in name]
    more = torch.randn(5, 9, 2)
    torch.testing.assert_close(program.module()(more), encoder(more))


def test_an_empty_batch() -> None:
    assert convolved(layer(1), torch.ones(0, 3, 6, dtype=torch.float64)).shape == (0, 5, 6)
