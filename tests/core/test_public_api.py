"""The public names and the hooks are a promise: a change of either is made on purpose, here and in the changelog."""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kontrast
from kontrast import hookspec, testing
from kontrast.registry import KINDS

FROZEN = json.loads((Path(__file__).parent.parent / "golden" / "public_api.json").read_text(encoding="utf-8"))
SAY_SO = "change tests/golden/public_api.json, and say so in the changelog"

# What third parties write subclasses of.
INTERFACES = ("Adapter", "Augmenter", "Encoder", "Objective", "Observer", "OptimizerSettings", "PairSampler")


def test_public_names_are_the_frozen_ones() -> None:
    assert sorted(kontrast.__all__) == FROZEN["names"], SAY_SO
    assert sorted(testing.__all__) == FROZEN["testing"], SAY_SO


def test_hooks_are_the_frozen_ones() -> None:
    hooks = {name: str(inspect.signature(getattr(hookspec, name))) for name in KINDS}
    assert hooks == FROZEN["hooks"], SAY_SO


def _form(function: Callable[..., Any]) -> str:
    """Return parameters and defaults; types are held by the type checkers."""
    parameters = inspect.signature(function).parameters.values()
    return str(inspect.Signature([entry.replace(annotation=inspect.Parameter.empty) for entry in parameters]))


def _forms() -> dict[str, str]:
    """Return the form of every hook of a run, method of an interface, record, getter and check."""
    forms = {kind.__name__: _form(kind) for kind in KINDS.values()}
    forms |= {name: _form(getattr(kontrast, name)) for name in kontrast.__all__ if name.startswith("get_")}
    forms["register"] = _form(kontrast.register)
    forms |= {f"testing.{name}": _form(getattr(testing, name)) for name in testing.__all__ if "check" in name}
    for interface in INTERFACES:
        for name, member in vars(getattr(kontrast, interface)).items():
            if inspect.isfunction(member) and (not name.startswith("_") or name == "__call__"):
                forms[f"{interface}.{name}"] = _form(member)
    return forms


@pytest.mark.parametrize("name", sorted({*_forms(), *FROZEN["forms"]}))
def test_what_is_called_or_overridden_is_as_it_was(name: str) -> None:
    assert _forms().get(name) == FROZEN["forms"].get(name), SAY_SO
