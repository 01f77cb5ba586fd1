"""Copies of values, to see afterwards what was changed in them."""

from typing import Any

from torch import Tensor

from ..leaves import Leaves, difference, leaves

__all__ = ["difference", "snapshot"]


def snapshot(value: Any) -> Leaves:
    """Return a copy of all that a value holds, by path: `views[0].ids`. Modules and functions are left out."""
    return {path: part.detach().clone() if isinstance(part, Tensor) else part for path, part in leaves(value)}
