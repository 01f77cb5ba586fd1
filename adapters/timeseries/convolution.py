"""Dilated convolutions of width 3 on the CPU, as sums of products of matrices.

Shapes: B series, T time steps, C channels, D channels of the output.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["convolved"]


def convolved(layer: nn.Conv1d, x: Tensor) -> Tensor:
    """Return what a layer says of series [B, C, T], [B, D, T]; zeros stand before and behind a series.

    On the CPU the output lies in memory as [T, B, D], and an input that lies so is not copied.

    Args:
        layer: holds weights of width 1 or 3, of that the dilation and as much padding; has a bias.
        x: the series.
    """
    alone = layer.kernel_size[0] == 1 or layer.dilation[0] >= x.shape[2]  # other taps lie beyond the series
    middle = layer.kernel_size[0] // 2
    found: Tensor
    if _plainly(x):
        # On the CPU, torch has its fast convolutions of one step for dilated ones only, so that it is told a dilation.
        weight = layer.weight[:, :, middle : middle + 1]
        found = F.conv1d(x, weight, layer.bias, dilation=2) if alone else layer(x)
        return found
    x = x.permute(2, 0, 1)
    if alone:
        found = F.linear(x, layer.weight[:, :, middle].contiguous(), layer.bias)
    else:
        taps = layer.weight.permute(2, 0, 1).contiguous()
        found = _Dilated.apply(x.contiguous(), taps, layer.bias, layer.dilation[0])
    return found.permute(1, 2, 0)


def _plainly(x: Tensor) -> bool:
    """Return whether torch's own convolution is taken: on a GPU it is faster, in half precision it rounds once and not
    after every tap, and compilers know it.
    """
    half = x.dtype.itemsize < 4 or torch.is_autocast_enabled(x.device.type)
    return x.device.type != "cpu" or half or torch.compiler.is_compiling()


class _Dilated(torch.autograd.Function):
    """Convolve series [T, B, C] by taps [3, D, C] of dilation d < T::

        y_t = bias + taps_0 x_(t-d) + taps_1 x_t + taps_2 x_(t+d)

    With time first, the steps that a tap sees of all series lie together: one product reads them there and adds to the
    output where that lies. The derivatives are of the same form, and can be derived again.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, taps: Tensor, bias: Tensor, d: int) -> Tensor:
        """Return y, [T, B, D]."""
        skip = d * x.shape[1]
        shape, x = x.shape[:2], x.flatten(0, 1)
        y: Tensor = torch.addmm(bias, x, taps[1].mT)
        y[skip:].addmm_(x[:-skip], taps[0].mT)
        y[:-skip].addmm_(x[skip:], taps[2].mT)
        return y.view(*shape, len(bias))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, int], output: Tensor) -> None:
        """Keep what the backward pass needs."""
        x, taps, _, ctx.d = inputs
        ctx.save_for_backward(x, taps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Return the gradients of x, taps and bias."""
        (grad,) = gradients
        (x, taps), skip = ctx.saved_tensors, ctx.d * grad.shape[1]
        shape, x = x.shape, x.flatten(0, 1)
        grad = grad.contiguous().flatten(0, 1)
        with torch.autocast("cpu", enabled=False):
            grad_x = grad @ taps[1]
            grad_x[:-skip].addmm_(grad[skip:], taps[0])
            grad_x[skip:].addmm_(grad[:-skip], taps[2])
            grad_taps = torch.stack([grad[skip:].mT @ x[:-skip], grad.mT @ x, grad[:-skip].mT @ x[skip:]])
            return grad_x.view(shape), grad_taps, grad.sum(0), None
