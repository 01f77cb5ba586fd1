"""The kit's frame: reports, expected failures, the pool of processes, the pytest parametriser and the command."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fresh import python
from gloo import GlooPool

import kontrast as kt
import kontrast.registry
from kontrast.cli import main
from kontrast.plugins.objectives import InfoNCE, NTXent
from kontrast.testing import (
    Check,
    ConformanceError,
    NotCheckedError,
    ProcessError,
    Report,
    adapter_checks,
    augmenter_checks,
    check_objective,
    check_sampler,
    encoder_checks,
    method_checks,
    objective_checks,
    parametrize_with_checks,
    run_checks,
    sampler_checks,
)
from kontrast.testing.command import CHECKABLE


def right() -> None: ...


def wrong() -> None:
    raise ConformanceError("it is blue; it must be green")


def broken() -> None:
    raise RuntimeError("no such colour")


def nothing() -> None:
    raise NotCheckedError("no colour was given", given=False)


def report(**functions: Any) -> Report:
    return run_checks(Check(name, "Wrong colour.", "paint", function) for name, function in functions.items())


def test_all_checks_run_and_one_error_names_those_that_failed() -> None:
    found = report(first=wrong, second=right, third=broken, fourth=nothing)
    assert [result.state for result in found.results] == ["failed", "passed", "failed", "not given"]
    assert str(found) == "paint: 2 failed, 1 not given, 1 passed"
    sentence = (
        "paint fails 2 of 4 checks:\n  first: it is blue; it must be green\n  third: RuntimeError: no such colour"
    )
    with pytest.raises(ConformanceError) as caught:
        found.raise_failures()
    assert str(caught.value) == sentence
    assert isinstance(caught.value, (kt.KontrastError, AssertionError))
    report(second=right, fourth=nothing).raise_failures()
    with pytest.raises(kt.UnknownNameError, match="no check `secnd`; did you mean `second`"):
        found.state("secnd")


@pytest.mark.parametrize(
    ("function", "state", "message"),
    [
        (wrong, "expected failure", "known"),
        (broken, "expected failure", "known"),
        (right, "failed", "is expected to fail and passes; take it out of expected_failures, where .*: known"),
        (nothing, "failed", r"is expected to fail and there is nothing to check \(no colour was given\); take it out"),
    ],
)
def test_an_expected_failure_that_does_not_fail_is_one(function: Any, state: str, message: str) -> None:
    (result,) = run_checks([Check("first", "Wrong colour.", "paint", function, "known")]).results
    assert result.state == state
    with pytest.raises(ConformanceError, match=message):
        raise ConformanceError(result.message)


def test_expected_failures_are_of_checks_that_exist_and_have_a_reason() -> None:
    with pytest.raises(kt.UnknownNameError, match="no check `sing`; did you mean `sign`"):
        objective_checks(InfoNCE, expected_failures={"sing": "known"})
    with pytest.raises(kt.InvalidValueError, match="an expected failure must give its reason, got ' ' for `sign`"):
        objective_checks(InfoNCE, expected_failures={"sign": " "})


# Made in the test: each process of the pool imports this module.
EVERY_KIND: dict[str, Callable[[], list[Check]]] = {
    "objective": lambda: objective_checks(InfoNCE),
    "sampler": lambda: sampler_checks(kt.InBatch),
    "augmenter": lambda: augmenter_checks("affine-views"),
    "encoder": lambda: encoder_checks("small-cnn"),
    "adapter": lambda: adapter_checks("vision"),
    "method": lambda: method_checks("simclr"),
}


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_every_check_says_in_one_line_what_fault_it_names(kind: str) -> None:
    checks = EVERY_KIND[kind]()
    assert len({check.name for check in checks}) == len(checks)
    for check in checks:
        assert check.about.endswith(".")
        assert 20 < len(check.about) < 120


@parametrize_with_checks(sampler_checks("queue"))
@pytest.mark.usefixtures("gloo")
def test_parametrised(check: Any) -> None:
    check()


def test_the_parametriser_skips_and_expects_failures(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_it.py").write_text(
        "from kontrast.testing import Check, ConformanceError, NotCheckedError, parametrize_with_checks\n"
        "def wrong(): raise ConformanceError('blue')\n"
        "def right(): pass\n"
        "def nothing(): raise NotCheckedError('no colour was given')\n"
        "checks = [Check(f.__name__ + why, '', 'the paint', f, why)\n"
        "          for f, why in ((right, ''), (wrong, ''), (wrong, 'known'), (right, 'known'), (nothing, ''))]\n"
        "@parametrize_with_checks(checks)\n"
        "def test_paint(check): check()\n"
    )
    done = python("-m", "pytest", "-v", "-rs", "-p", "no:cacheprovider", str(tmp_path), folder=tmp_path)
    assert "test_paint[the-paint:-right] PASSED" in done.stdout
    assert "test_paint[the-paint:-wrong] FAILED" in done.stdout
    assert "test_paint[the-paint:-wrongknown] XFAIL" in done.stdout
    assert "test_paint[the-paint:-rightknown] FAILED" in done.stdout
    assert "no colour was given" in done.stdout
    assert "2 failed, 1 passed, 1 skipped, 1 xfailed" in done.stdout


def test_neither_pytest_nor_the_processes_are_there_before_they_are_used() -> None:
    code = (
        "import sys, kontrast.testing, multiprocessing\n"
        "kontrast.testing.sampler_checks('queue')\n"
        "print('pytest' in sys.modules, multiprocessing.active_children())"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["False", "[]"]


@pytest.mark.usefixtures("gloo")
def test_the_command_prints_a_table_and_its_status_says_whether_all_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "queue"]) == 0
    first, head, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("sampler queue: ")
    assert head.split()[:2] == ["name", "result"]
    assert [line.split()[0] for line in lines] == [check.name for check in sampler_checks("queue")]
    assert {line.split()[1] for line in lines} == {"passed", "not"}  # not given: no oracle, no reference value
    assert {line.index(line.split()[1], len(line.split()[0])) for line in lines} == {head.index("result")}
    assert main(["check", "queue", "--json", "--expect", "arrange=it is known"]) == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["name"], found["passed"]) == ("sampler", "queue", False)
    (failed,) = [entry for entry in found["checks"] if entry["state"] == "failed"]
    assert failed["name"] == "arrange"
    assert failed["message"].endswith("where it has the reason: it is known")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("quue", "did you mean `queue`"),
        (
            "progress",
            "`progress` is registered as observer, for which there are no checks; there are some for adapter, ",
        ),
        ("queue --kind objective", "no objective `queue`"),
        ("queue --kind methd", "argument --kind: invalid choice: 'methd'"),
        ("queue --expect arrange", "`--expect` must be CHECK=REASON, got 'arrange'; say why"),
        ("queue --expect arange=it --kind sampler", "no check `arange`; did you mean `arrange`"),
        ("", "the following arguments are required: name (see kontrast check --help)"),
    ],
)
def test_what_the_command_refuses(arguments: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", *arguments.split()]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert sentence in captured.err


def _loud() -> kt.PairSampler:
    print("what a plugin has to say")
    raise OSError("its file is frozen")


def test_what_a_plugin_prints_is_not_in_the_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def checks(name: str, **_: Any) -> list[Check]:
        return [Check("loud", "It prints.", f"sampler {name}", lambda: print("hello"))]

    monkeypatch.setitem(CHECKABLE, "sampler", (kt.SamplerRecord, checks))
    assert main(["check", "queue", "--kind", "sampler", "--json"]) == 0
    captured = capsys.readouterr()
    (found,) = json.loads(captured.out)
    assert (found["passed"], captured.err) == (True, "hello\n")


@pytest.fixture
def frozen() -> Iterator[None]:
    kt.register(kt.SamplerRecord("frz", _loud))
    yield
    kontrast.registry._registered.clear()  # pyright: ignore[reportPrivateUsage]


@pytest.mark.usefixtures("frozen")
def test_a_factory_that_raises_is_one_sentence_that_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "frz"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    said, sentence = captured.err.splitlines()
    assert said == "what a plugin has to say"
    assert "sampler `frz`" in sentence
    assert "raised OSError: its file is frozen" in sentence


def _output_is_where_errors_go() -> bool:
    return os.path.sameopenfile(1, 2)


def test_processes_print_where_errors_go(gloo: GlooPool) -> None:
    assert gloo.run(2, _output_is_where_errors_go) == [True, True]


def _world(number: int) -> tuple[int, int, int]:
    return kt.rank(), kt.world_size(), number


def _one_fails(number: int) -> None:
    if kt.rank() == number:
        raise ValueError(f"rank {number} has had enough")
    kt.all_sum(torch.zeros(1))


def _one_dies() -> None:
    if kt.rank() == 1:
        os._exit(3)
    kt.all_sum(torch.zeros(1))


def test_processes_are_kept_and_survive_failures(gloo: GlooPool) -> None:
    assert gloo.run(3, _world, 7) == [(0, 3, 7), (1, 3, 7), (2, 3, 7)]
    start = time.monotonic()
    assert gloo.run(2, _world, 8) == [(0, 2, 8), (1, 2, 8)]
    assert time.monotonic() - start < 2  # no process was started
    with pytest.raises(ProcessError, match="on rank 1 of 3: ValueError: rank 1 has had enough"):
        gloo.run(3, _one_fails, 1)
    with pytest.raises(ProcessError, match="on rank 1 of 2: the process ended; a script"):
        gloo.run(2, _one_dies)
    with pytest.raises(ProcessError, match=r"must be pickled, and this cannot.*at the top of a module"):
        gloo.run(2, lambda: 0)
    assert gloo.run(3, _world, 9) == [(0, 3, 9), (1, 3, 9), (2, 3, 9)]


@pytest.mark.slow
def test_a_script_without_a_guard_is_told_so(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("from kontrast.testing import check_sampler\ncheck_sampler('in-batch')\n")
    done = subprocess.run([sys.executable, "-P", str(script)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "the process ended; a script that checks something must do it under `if __name__ ==" in done.stderr
    script.write_text(
        "from kontrast.testing import check_sampler\nif __name__ == '__main__':\n    check_sampler('in-batch')\n"
    )
    done = subprocess.run([sys.executable, "-P", str(script)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.usefixtures("gloo")
def test_a_third_party_author_needs_three_lines() -> None:
    assert not check_objective(lambda: NTXent(0.2)).failed
    assert not check_sampler("queue").failed
