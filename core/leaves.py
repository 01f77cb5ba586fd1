"""What a value holds, by path: tensors and plain values inside dataclasses, mappings, sequences and foreign objects."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from inspect import isroutine
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["Leaves", "difference", "leaves"]

Leaves = dict[str, Any]


def leaves(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield (path, part) for all that a value holds: `.views[0].ids`. Modules and functions are left out."""
    return _leaves(value, "", set())


def difference(first: Leaves, second: Leaves, *, rtol: float = 0.0) -> str:
    """Return where two values' leaves differ first, in words; empty: nowhere.

    Args:
        first: one.
        second: the other.
        rtol: how far floating numbers may be apart, of the largest; 0: not at all (NaN equals NaN).
    """
    for path in [*first, *(path for path in second if path not in first)]:
        name = f"`{path.lstrip('.')}`" if path else "it"
        if path not in first or path not in second:
            return f"{name} is there once and once not"
        a, b = first[path], second[path]
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            if a.shape != b.shape or a.dtype != b.dtype:
                return f"{name} is {a.dtype} {list(a.shape)} and {b.dtype} {list(b.shape)}"
            if not _equal(a, b, rtol):
                return f"{name} has other values"
        elif a is not b and a != b and not (a != a and b != b):
            return f"{name} is {a!r} and {b!r}"
    return ""


def _equal(a: Tensor, b: Tensor, rtol: float) -> bool:
    if not a.is_floating_point():
        return torch.equal(a, b)
    scale = float(a.abs().nan_to_num(0.0, 0.0, 0.0).max()) if a.numel() else 0.0
    return torch.allclose(a, b, rtol=0.0, atol=rtol * scale, equal_nan=True)


def _leaves(value: Any, path: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, np.ndarray):
        value = torch.as_tensor(value) if value.dtype.kind in "biuf" else value.tolist()
    if isinstance(value, (Tensor, str, bytes, int, float, bool, type(None))):
        yield path, value
    elif is_dataclass(value) and not isinstance(value, type):
        for entry in fields(value):
            yield from _leaves(getattr(value, entry.name), f"{path}.{entry.name}", seen)
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from _leaves(part, f"{path}[{name!r}]" if path else str(name), seen)
    elif isinstance(value, (list, tuple)):
        for number, part in enumerate(value):
            yield from _leaves(part, f"{path}[{number}]", seen)
    elif (
        not isinstance(value, nn.Module)
        and not isinstance(value, type)
        and not isroutine(value)  # a batch of graphs can be called, too
        and hasattr(value, "__dict__")
        and id(value) not in seen
    ):
        seen.add(id(value))  # a domain's own inputs, such as a batch of graphs, may hold what holds them
        yield from _leaves(dict(vars(value)), path, seen)
