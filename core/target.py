"""Copies that follow a tower: what embeds the candidates (momentum, or cut from the graph), and the mean weights."""

# pyright: reportPrivateImportUsage=false
# The foreach functions are what torch's own optimizers use; torch does not export them by a public name.

import copy
import math
from typing import TypeVar

import torch
from torch import Tensor, nn

from .errors import InvalidValueError

__all__ = ["Average", "Momentum", "StopGradient"]

M = TypeVar("M", bound=nn.Module)


class StopGradient:
    """The candidates are the tower's own projections, before the predictor and without gradient (SimSiam)."""

    def __repr__(self) -> str:
        return "StopGradient()"


class Momentum:
    """The candidates come from a copy of encoder and projector that follows them slowly.

    After each optimizer step: copy <- momentum x copy + (1 - momentum) x online. Buffers are not averaged: the copy's
    batch norms keep their own running statistics.

    Args:
        momentum: share of the old value kept, in [0, 1], usually 0.99 to 0.999.
        final: where it is at the end of training, rising by a half cosine (BYOL, DINO: 1.0); None: constant.

    Raises:
        InvalidValueError: if either is out of range.

    Source:
        He et al. 2020, arXiv:1911.05722, eq. 2; the schedule: Grill et al. 2020, arXiv:2006.07733, section 3.3.
    """

    def __init__(self, momentum: float = 0.996, final: float | None = None) -> None:
        for name, value in (("momentum", momentum), ("final", momentum if final is None else final)):
            if not 0 <= value <= 1:
                raise InvalidValueError(
                    f"`{name}` must be in [0, 1], got {value!r}; it is the share of the old value kept, usually 0.99"
                )
        self.momentum = momentum
        self.final = momentum if final is None else final

    def __repr__(self) -> str:
        return f"Momentum({self.momentum}, final={self.final})"

    def at(self, progress: float) -> float:
        """Return the momentum after `progress` of training, in [0, 1]."""
        return self.final - (self.final - self.momentum) * (1 + math.cos(math.pi * progress)) / 2

    @staticmethod
    def copy_of(module: M) -> M:
        """Return a copy that the optimizer does not see."""
        return copy.deepcopy(module).requires_grad_(False)

    @torch.no_grad()
    def update(self, target: nn.Module, online: nn.Module, progress: float) -> None:
        """Move the parameters of `target` towards those of `online`."""
        old: list[Tensor] = list(target.parameters())
        new: list[Tensor] = list(online.parameters())
        if old:
            torch._foreach_lerp_(old, new, 1 - self.at(progress))


class Average(nn.Module):
    """The equal-weight mean of a module's parameters after every step; buffers are the newest.

    Args:
        module: whose parameters are averaged.

    Source:
        Izmailov et al. 2018, arXiv:1803.05407 (stochastic weight averaging), from the first step on.
    """

    steps: Tensor

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = Momentum.copy_of(module)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take the parameters of `module` into the mean."""
        self.steps += 1
        old: list[Tensor] = list(self.module.parameters())
        if old:
            torch._foreach_lerp_(old, list(module.parameters()), 1 / int(self.steps))
        for mean, newest in zip(self.module.buffers(), module.buffers(), strict=True):
            mean.copy_(newest)
