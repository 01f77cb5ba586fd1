"""Full precision for scores and statistics, whatever the encoders run under."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

__all__ = ["full_precision", "precisely"]


@contextmanager
def full_precision(like: Tensor) -> Iterator[None]:
    """Switch off autocast and reduced float32 products (TF32, bf16) on the device of `like`.

    A temperature of 0.05 multiplies the rounding of a score by 20: the three digits that TF32 keeps are too few.
    """
    before, device = torch.get_float32_matmul_precision(), like.device.type
    if before == "highest" and not torch.is_autocast_enabled(device):
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def precisely(
    function: Callable[..., tuple[Tensor, ...]], tensors: Sequence[Tensor | None], parameters: Sequence[Tensor] = ()
) -> tuple[Tensor, ...]:
    """Return `function(*tensors)`, whose backward pass too is in full precision wherever it is called.

    Autocast is switched for the moment: products in a graph that is walked inside an autocast region would be reduced.

    Args:
        function: differentiable in the tensors, and in parameters that it reads by itself.
        tensors: its arguments.
        parameters: those.
    """
    result: tuple[Tensor, ...] = _Precisely.apply(function, len(tensors), *tensors, *parameters)
    return result


class _Precisely(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, function: Callable[..., tuple[Tensor, ...]], count: int, *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        wanted = ctx.needs_input_grad[2:]
        leaves = [
            None if tensor is None else tensor.detach().requires_grad_(want)
            for tensor, want in zip(tensors[:count], wanted, strict=False)
        ]
        with torch.enable_grad():
            ctx.outputs = function(*leaves)
        ctx.inputs = [*leaves, *tensors[count:]]
        results = tuple(output.detach() for output in ctx.outputs)
        ctx.mark_non_differentiable(
            *(r for r, output in zip(results, ctx.outputs, strict=True) if not output.requires_grad)
        )
        return results

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        live = [n for n, output in enumerate(ctx.outputs) if output.requires_grad]
        wanted = ctx.needs_input_grad[2:]
        inputs = [part for part, want in zip(ctx.inputs, wanted, strict=True) if want]
        outputs, upstream = [ctx.outputs[n] for n in live], [gradients[n] for n in live]
        with full_precision(upstream[0]):
            found = iter(torch.autograd.grad(outputs, inputs, upstream, allow_unused=True, retain_graph=True))
        return (None, None, *(next(found) if want else None for want in wanted))
