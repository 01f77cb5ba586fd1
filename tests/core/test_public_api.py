"""The public names and the hooks are a promise: a change of either is made on purpose, here and in the changelog."""

import inspect
import json
from pathlib import Path

import kontrast
from kontrast import hookspec
from kontrast.registry import KINDS

FROZEN = json.loads((Path(__file__).parent.parent / "golden" / "public_api.json").read_text(encoding="utf-8"))


def test_public_names_are_the_frozen_ones() -> None:
    assert sorted(kontrast.__all__) == FROZEN["names"], (
        "change tests/golden/public_api.json, and say so in the changelog"
    )


def test_hooks_are_the_frozen_ones() -> None:
    hooks = {name: str(inspect.signature(getattr(hookspec, name))) for name in KINDS}
    assert hooks == FROZEN["hooks"], "change tests/golden/public_api.json, and say so in the changelog"
