"""Projection and prediction heads."""

from itertools import pairwise
from typing import Literal

from torch import nn

from .errors import InvalidValueError

__all__ = ["mlp"]


def mlp(
    *sizes: int, norm: Literal["batch", "none"] = "batch", last_norm: bool = False, last_bias: bool = True
) -> nn.Sequential:
    """Return Linear (-> BatchNorm) -> ReLU layers, ended by a Linear.

    Args:
        sizes: input, hidden and output widths, e.g. 512, 2048, 128.
        norm: what stands between a hidden Linear and its ReLU; a Linear before a BatchNorm has no bias of its own.
        last_norm: whether the output passes a BatchNorm too.
        last_bias: whether the last Linear has a bias; never with `last_norm`.

    Raises:
        InvalidValueError: if there are fewer than two sizes, or one is not >= 1.
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise InvalidValueError(f"`sizes` of an mlp must be two or more widths >= 1, got {sizes}")
    if norm not in ("batch", "none"):
        raise InvalidValueError(f"`norm` must be batch or none, got {norm!r}")
    layers: list[nn.Module] = []
    *hidden, (last_in, last_out) = pairwise(sizes)
    for width_in, width_out in hidden:
        layers.append(nn.Linear(width_in, width_out, bias=norm == "none"))
        if norm == "batch":
            layers.append(nn.BatchNorm1d(width_out))
        layers.append(nn.ReLU())
    layers.append(nn.Linear(last_in, last_out, bias=last_bias and not last_norm))
    if last_norm:
        layers.append(nn.BatchNorm1d(last_out))
    return nn.Sequential(*layers)
