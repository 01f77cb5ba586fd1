"""`kontrast check NAME`: the conformance checks of something registered, as a table or as JSON."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from typing import Any, NoReturn

from kontrast import (
    AdapterRecord,
    AugmenterRecord,
    EncoderRecord,
    IncompatibleError,
    InvalidValueError,
    MethodRecord,
    ObjectiveRecord,
    ObserverRecord,
    OptimizerRecord,
    PluginError,
    ProbeRecord,
    RecipeRecord,
    SamplerRecord,
    UnknownNameError,
    get_record,
    get_records,
)
from kontrast.table import print_table

from .adapter import adapter_checks
from .augmenter import augmenter_checks
from .checks import Check, Report, run_checks
from .encoder import encoder_checks
from .method import method_checks
from .objective import objective_checks
from .sampler import sampler_checks

__all__ = ["CHECKABLE", "check"]

CHECKABLE: dict[str, tuple[type[Any], Callable[..., list[Check]]]] = {
    "adapter": (AdapterRecord, adapter_checks),
    "augmenter": (AugmenterRecord, augmenter_checks),
    "encoder": (EncoderRecord, encoder_checks),
    "method": (MethodRecord, method_checks),
    "objective": (ObjectiveRecord, objective_checks),
    "sampler": (SamplerRecord, sampler_checks),
}


UNCHECKED: tuple[type[Any], ...] = (ObserverRecord, OptimizerRecord, ProbeRecord, RecipeRecord)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InvalidValueError(f"{message} (see {self.prog} --help)")


def check(arguments: Sequence[str]) -> int:
    """Run the command; return 1 if a check failed, else 0.

    Args:
        arguments: behind `kontrast check`.
    """
    parser = _Parser("kontrast check", description="Hold something registered to what its interface promises.")
    parser.add_argument("name", help="a registered name, or distribution:name")
    parser.add_argument("--kind", choices=sorted(CHECKABLE), help="where several kinds have the name; default: each")
    parser.add_argument(
        "--expect", action="append", default=[], metavar="CHECK=REASON", help="a check that is known to fail, and why"
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    options = parser.parse_args(arguments)
    expected = dict(_expectation(text) for text in options.expect)
    kinds = _kinds(options.name) if options.kind is None else [options.kind]
    if options.kind is not None:
        get_record(CHECKABLE[options.kind][0], options.name)  # an unknown name is said here
    reports = []
    with redirect_stdout(sys.stderr):  # what a plugin prints must not stand in the JSON
        for kind in kinds:
            checks = CHECKABLE[kind][1](options.name, expected_failures=expected)
            reports.append((kind, run_checks(checks)))
    if options.json:
        print(json.dumps([_as_json(kind, options.name, report) for kind, report in reports], indent=2))
    else:
        for _, report in reports:
            _print(report)
    return int(any(report.failed for _, report in reports))


def _kinds(name: str) -> list[str]:
    kinds = []
    for kind, (record, _) in CHECKABLE.items():
        try:
            get_record(record, name)
        except UnknownNameError:
            continue
        except PluginError:  # two plugins claim the name: the sentence that says so is raised by the check
            pass
        kinds.append(kind)
    if not kinds:
        for record in UNCHECKED:
            if name in get_records(record):
                raise IncompatibleError(
                    f"`{name}` is registered as {record.kind}, for which there are no checks; there are some for "
                    f"{', '.join(sorted(CHECKABLE))}"
                )
        known = {known for record, _ in CHECKABLE.values() for known in get_records(record)}
        raise UnknownNameError("registered name that can be checked", name, known)
    return kinds


def _expectation(text: str) -> tuple[str, str]:
    name, equals, reason = text.partition("=")
    if not equals or not reason.strip():
        raise InvalidValueError(f"`--expect` must be CHECK=REASON, got {text!r}; say why it is known to fail")
    return name, reason


def _as_json(kind: str, name: str, report: Report) -> dict[str, Any]:
    return {
        "kind": kind,
        "name": name,
        "passed": not report.failed,
        "checks": [
            {
                "name": result.check.name,
                "state": result.state,
                "about": result.check.about,
                "message": result.message,
            }
            for result in report.results
        ],
    }


def _print(report: Report) -> None:
    print(report)
    rows = [[result.check.name, result.state, result.message or result.check.about] for result in report.results]
    print_table(["name", "result", "fault it looks for, or what was found"], rows)
