"""What the tests of broken plugins share."""

from collections.abc import Iterable

from kontrast.testing import Check, run_checks

__all__ = ["caught_by"]


def caught_by(name: str, checks: Iterable[Check]) -> None:
    """Assert that the check called `name` finds a fault and says in one sentence what it is."""
    (result,) = run_checks(check for check in checks if check.name == name).results
    assert result.state == "failed", result
    assert "\n" not in result.message
    assert len(result.message) > 20
