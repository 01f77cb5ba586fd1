"""The recorded losses come out again; every registered method of ours has a record."""

import json

import pytest
from golden import FILE, curve

import kontrast as kt

RECORDED: dict[str, list[float]] = json.loads(FILE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", sorted(kt.get_records(kt.MethodRecord)))
def test_the_curve_has_not_moved(name: str) -> None:
    assert name in RECORDED, f"add `{name}` to SMALL in golden.py and run `make golden`"
    losses = curve(name)
    assert len(losses) == 20
    assert losses == pytest.approx(RECORDED[name], rel=1e-6)
