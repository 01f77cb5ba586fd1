"""LARS: SGD with momentum whose step is scaled, per layer, by the size of the weights over that of the gradient."""

# pyright: reportPrivateImportUsage=false
# The foreach functions are what torch's own optimizers use; torch does not export them by a public name.

from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor

__all__ = ["Lars"]


class Lars(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling.

    For a weight w with gradient g::

        g <- g + weight_decay x w
        g <- g x trust_coefficient x |w| / |g|       (where both norms are positive)
        v <- momentum x v + lr x g;   w <- w - v

    A group with `adapt=False` (biases, norms) takes the plain SGD step.

    Args:
        params: as for any torch optimizer; groups may set `adapt`.
        lr: learning rate, > 0.
        momentum: of the velocity, usually 0.9.
        weight_decay: coupled, inside the trust ratio.
        trust_coefficient: usually 0.001 (ImageNet) to 0.02 (CIFAR).

    Source:
        You et al. 2017, arXiv:1708.03888, algorithm 1, with the weight decay inside the norm, as SimCLR's code has it.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
            "adapt": True,
        }
        super().__init__(params, defaults)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                self._update(group, weights)
        return loss

    def _update(self, group: dict[str, Any], weights: list[Tensor]) -> None:
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        if group["weight_decay"]:
            gradients = list(torch._foreach_add(gradients, weights, alpha=group["weight_decay"]))
        if group["adapt"]:
            sizes = torch.stack(torch._foreach_norm(weights))
            steps = torch.stack(torch._foreach_norm(gradients))
            both = (sizes > 0) & (steps > 0)
            ratios = torch.where(both, group["trust_coefficient"] * sizes / torch.where(both, steps, 1.0), 1.0)
            gradients = list(torch._foreach_mul(gradients, ratios.unbind()))
        velocities = []
        for weight in weights:
            state = self.state[weight]
            if "velocity" not in state:
                state["velocity"] = torch.zeros_like(weight)
            velocities.append(state["velocity"])
        torch._foreach_mul_(velocities, group["momentum"])
        torch._foreach_add_(velocities, gradients, alpha=group["lr"])
        torch._foreach_sub_(weights, velocities)
