"""What a check is, how a list of them is run, and the report that comes of it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kontrast import InvalidValueError, KontrastError, UnknownNameError

__all__ = ["Check", "ConformanceError", "NotCheckedError", "Report", "Result", "checks_of", "run_checks"]

State = Literal["passed", "failed", "expected failure", "not given", "not applicable"]


class ConformanceError(KontrastError, AssertionError):
    """Something breaks what its interface promises; the message says what was found."""


class NotCheckedError(KontrastError):
    """There was nothing to check: the author gave no oracle, or the check does not concern this one.

    Args:
        reason: one sentence.
        given: False where the author could have given what is missing.
    """

    def __init__(self, reason: str, *, given: bool = True) -> None:
        super().__init__(reason)
        self.given = given


@dataclass(frozen=True)
class Check:
    """One named check of one subject; calling it raises a `ConformanceError` where the fault it names is there.

    Args:
        name: such as `"sums-and-counts"`.
        about: one line: the fault that it names.
        subject: what is checked, such as `"objective info-nce"`.
        function: raises where the fault is there, `NotCheckedError` where there is nothing to check.
        expected: why it is known to fail; empty: it is not.
    """

    name: str
    about: str
    subject: str
    function: Callable[[], None]
    expected: str = ""

    def __call__(self) -> None:
        """Run it. Whatever the subject raises on the way is a fault too."""
        try:
            self.function()
        except (ConformanceError, NotCheckedError):
            raise
        except Exception as error:
            raise ConformanceError(f"{type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class Result:
    """What became of one check.

    Args:
        check: the check.
        state: passed, failed, expected failure, not given, not applicable.
        message: what was found; with an expected failure the reason that was given.
        error: what it raised.
    """

    check: Check
    state: State
    message: str = ""
    error: BaseException | None = None


@dataclass(frozen=True)
class Report:
    """The results of all checks of one subject, in their order."""

    subject: str
    results: tuple[Result, ...]

    @property
    def failed(self) -> tuple[Result, ...]:
        """The results that are faults: failed, or passed in spite of being expected to fail."""
        return tuple(result for result in self.results if result.state == "failed")

    def state(self, name: str) -> State:
        """Return the state of the check called `name`."""
        states: dict[str, State] = {result.check.name: result.state for result in self.results}
        if name not in states:
            raise UnknownNameError("check", name, states)
        return states[name]

    def raise_failures(self) -> None:
        """Raise one error that names every failed check with its sentence, if there is any."""
        if not self.failed:
            return
        lines = "".join(f"\n  {result.check.name}: {result.message}" for result in self.failed)
        error = ConformanceError(f"{self.subject} fails {len(self.failed)} of {len(self.results)} checks:{lines}")
        raise error from self.failed[0].error

    def __str__(self) -> str:
        counts = {result.state: 0 for result in self.results}
        for result in self.results:
            counts[result.state] += 1
        return f"{self.subject}: {', '.join(f'{count} {state}' for state, count in sorted(counts.items()))}"


def checks_of(
    subject: str, functions: Iterable[Callable[[Any], None]], case: Any, expected_failures: Mapping[str, str]
) -> list[Check]:
    """Return one check for each function of a case; a function's name is the check's, its docstring what it is about.

    Args:
        subject: what is checked, in words.
        functions: the checks.
        case: their argument.
        expected_failures: by the name of the check, why it fails.

    Raises:
        UnknownNameError: if a failure is expected of a check that does not exist.
        InvalidValueError: if its reason is empty.
    """
    checks = []
    for function in functions:
        name = function.__name__.replace("_", "-")
        about = (function.__doc__ or "").strip().partition("\n")[0]
        reason = expected_failures.get(name, "")
        if name in expected_failures and not reason.strip():
            raise InvalidValueError(f"an expected failure must give its reason, got {reason!r} for `{name}`")
        checks.append(Check(name, about, subject, lambda run=function: run(case), reason))  # type: ignore[misc]
    names = [check.name for check in checks]
    for name in expected_failures:
        if name not in names:
            raise UnknownNameError("check", name, names)
    return checks


def run_checks(checks: Iterable[Check]) -> Report:
    """Run checks of one subject one after the other; none stops the others."""
    results = [_run(check) for check in checks]
    return Report(results[0].check.subject if results else "", tuple(results))


def _run(check: Check) -> Result:
    remedy = f"; take it out of expected_failures, where it has the reason: {check.expected}"
    try:
        check()
    except NotCheckedError as error:
        if check.expected:
            return Result(check, "failed", f"is expected to fail and there is nothing to check ({error}){remedy}")
        return Result(check, "not applicable" if error.given else "not given", str(error))
    except ConformanceError as error:
        if check.expected:
            return Result(check, "expected failure", check.expected, error)
        return Result(check, "failed", str(error), error)
    if check.expected:
        return Result(check, "failed", f"is expected to fail and passes{remedy}")
    return Result(check, "passed")
