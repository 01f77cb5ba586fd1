"""What the tests of broken plugins share."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest
import torch

import kontrast as kt
from kontrast.testing import Check, run_checks

__all__ = ["caught_by", "faults", "vectors"]


def vectors(samples: int = 12) -> kt.ArrayData:
    """Return vectors of five numbers with labels and groups."""
    ids = torch.arange(samples)
    inputs = torch.randn(samples, 5, generator=torch.Generator().manual_seed(0))
    return kt.ArrayData(inputs, labels=ids // 2, groups=ids % 2)


def faults(broken: Mapping[str, Sequence[Any]]) -> pytest.MarkDecorator:
    """Return one test for each (name of a check, what is broken); those on several processes share one pool of them."""

    def marks(name: str) -> list[pytest.MarkDecorator]:
        several = any(word in name for word in ("processes", "ranks", "local", "counts"))
        return [pytest.mark.xdist_group("gloo")] if several else []

    return pytest.mark.parametrize(
        ("name", "broken"),
        [pytest.param(name, part, marks=marks(name)) for name, parts in broken.items() for part in parts],
    )


def caught_by(name: str, checks: Iterable[Check], says: str = "") -> None:
    """Assert that the check called `name` finds a fault and says in one sentence what it is, which matches `says`."""
    (result,) = run_checks(check for check in checks if check.name == name).results
    assert result.state == "failed", result
    assert "\n" not in result.message
    assert len(result.message) > 20
    assert re.search(says, result.message), result.message
