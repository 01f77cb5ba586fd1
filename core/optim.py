"""Optimizers as settings, and the learning-rate schedule: linear warm-up, then a half cosine or nothing."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import nn

from .errors import InvalidValueError
from .lars import Lars

__all__ = ["LARS", "SGD", "AdamW", "OptimizerSettings", "Schedule", "learning_rate_factor"]

Schedule = Literal["cosine", "constant"]


@dataclass(frozen=True)
class OptimizerSettings(ABC):
    """What a run builds its optimizer from: a frozen dataclass, whose fields are its options.

    Ours neither decay nor adapt biases and the scales of norms.
    """

    learning_rate: float

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            raise InvalidValueError(f"`learning_rate` must be > 0, got {self.learning_rate!r}")
        for entry in fields(self):
            value, below_one = getattr(self, entry.name), entry.name in ("momentum", "beta1", "beta2")
            if not isinstance(value, (int, float)):
                continue  # a plugin's own, which it checks itself
            if not value >= 0 or (below_one and value >= 1):
                rule = "in [0, 1)" if below_one else ">= 0"
                raise InvalidValueError(f"`{entry.name}` must be {rule}, got {value!r}")

    @abstractmethod
    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer over the trainable parameters of `module`."""


@dataclass(frozen=True)
class AdamW(OptimizerSettings):
    """AdamW.

    Args:
        learning_rate: at the end of the warm-up; not scaled by the batch size.
        weight_decay: decoupled; of matrices and kernels, not of vectors (biases, scales of norms).
        beta1: decay of the gradient's mean.
        beta2: decay of its square's mean.

    Source:
        Loshchilov and Hutter 2019, arXiv:1711.05101. Differs from it, and from torch's default: vectors do not decay,
        as is usual for networks with norms; an optimizer setting of one's own (`OptimizerSettings`) may decay them.
    """

    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """Return torch's AdamW."""
        groups = _groups(module, weight_decay=0.0)
        return torch.optim.AdamW(
            groups,
            lr=self.learning_rate,
            betas=(self.beta1, self.beta2),
            weight_decay=self.weight_decay,
            fused=_all_at_once(groups) or None,
        )


@dataclass(frozen=True)
class SGD(OptimizerSettings):
    """SGD with momentum.

    Args:
        learning_rate: at the end of the warm-up; not scaled by the batch size.
        momentum: of the velocity.
        weight_decay: added to the gradient.
    """

    learning_rate: float = 0.06
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """Return torch's SGD."""
        groups = _groups(module, weight_decay=0.0)
        return torch.optim.SGD(
            groups,
            lr=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )


@dataclass(frozen=True)
class LARS(OptimizerSettings):
    """LARS, for large batches (`kontrast.lars.Lars`).

    Args:
        learning_rate: at the end of the warm-up; not scaled by the batch size.
        momentum: of the velocity.
        weight_decay: inside the trust ratio.
        trust_coefficient: share of a weight's norm that one step may move it.
    """

    learning_rate: float = 0.3
    momentum: float = 0.9
    weight_decay: float = 1e-4
    trust_coefficient: float = 0.001

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """Return a Lars."""
        groups = _groups(module, weight_decay=0.0, adapt=False)
        return Lars(
            groups,
            self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            trust_coefficient=self.trust_coefficient,
        )


def learning_rate_factor(step: int, total_steps: int, warmup_steps: int, schedule: Schedule = "cosine") -> float:
    """Return what the learning rate is multiplied by in step `step` of `total_steps`, counted from 0.

    It rises linearly to 1 over the warm-up; then it falls to 0 by a half cosine, or stays.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule == "constant":
        return 1.0
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return (1 + math.cos(math.pi * min(1.0, progress))) / 2


def _groups(module: nn.Module, **for_vectors: object) -> list[dict[str, Any]]:
    """Return the trainable matrices, and the trainable vectors (biases, scales of norms) with settings of their own."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not trainable:
        raise InvalidValueError(f"{type(module).__name__} has no parameter that requires a gradient: nothing to train")
    matrices = [parameter for parameter in trainable if parameter.ndim > 1]
    vectors = [parameter for parameter in trainable if parameter.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, **for_vectors}]
    return [group for group in groups if group["params"]]


def _all_at_once(groups: list[dict[str, Any]]) -> bool:
    """Return whether torch's kernel for whole weights may be taken on the CPU, where its default is a loop of a dozen
    small operations per weight. It goes through memory as it lies, so weights and gradients must lie alike.
    """
    weights = [weight for group in groups for weight in group["params"]]
    return all(weight.is_cpu and weight.is_contiguous() and weight.is_floating_point() for weight in weights)
