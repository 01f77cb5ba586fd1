"""One pytest test for each check. pytest is imported when this is called, and by nothing else here."""

from collections.abc import Iterable
from functools import wraps
from typing import TYPE_CHECKING, Any

from .checks import Check, ConformanceError, NotCheckedError

if TYPE_CHECKING:
    import pytest

__all__ = ["parametrize_with_checks"]


def parametrize_with_checks(checks: Iterable[Check]) -> "pytest.MarkDecorator":
    """Return a decorator that makes one test of each check, for a test function with the parameter `check`::

        @parametrize_with_checks(objective_checks("my-loss", oracle=my_loss_in_plain_loops))
        def test_my_loss(check):
            check()

    A check with nothing to look at is skipped with its reason; an expected failure is a strict xfail with its own.

    Args:
        checks: of one subject or of several, from `objective_checks` and its like.
    """
    import pytest

    def skipping(check: Check) -> Any:
        @wraps(check.function)
        def run() -> None:
            try:
                check()
            except NotCheckedError as error:
                pytest.skip(str(error))

        return run

    def marks(check: Check) -> list[pytest.MarkDecorator]:
        expected = pytest.mark.xfail(reason=check.expected, strict=True, raises=ConformanceError)
        return [expected] if check.expected else []

    parameters = [
        pytest.param(skipping(check), id=f"{check.subject}: {check.name}".replace(" ", "-"), marks=marks(check))
        for check in checks
    ]
    return pytest.mark.parametrize("check", parameters)
