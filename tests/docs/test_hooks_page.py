"""Every hook is in the guide as it is declared, with an example that works."""

import inspect
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from docs_page import DOCS, blocks, run

import kontrast as kt
import kontrast.registry
from kontrast import hookspec
from kontrast.cli import main
from kontrast.records import Record
from kontrast.registry import KINDS

PAGE = DOCS / "authors" / "hooks.md"


@pytest.fixture
def namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_package"]:
        monkeypatch.delitem(sys.modules, name)
    try:
        return run(PAGE, tmp_path)
    finally:
        kontrast.registry._registered.clear()  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize(("hook", "kind"), KINDS.items())
def test_a_hook_is_declared_as_in_the_core_and_its_example_works(
    hook: str, kind: type[Record], namespace: dict[str, Any]
) -> None:
    signature = inspect.signature(getattr(hookspec, hook))
    declared = re.sub(r"[\w.]+\.(?=\w)", "", str(signature))
    assert f"\n## {hook}{declared}\n" in PAGE.read_text(encoding="utf-8")
    assert inspect.signature(namespace[hook]).parameters == signature.parameters
    records = list(namespace[hook]())
    assert records
    for record in records:
        assert type(record) is kind
        assert record.summary
        assert callable(record.load())


USED = [
    shlex.split(line)[1:]
    for block in blocks(PAGE)
    if block.language == "bash"
    for line in block.text.splitlines()
    if line.startswith("kontrast ")
]


@pytest.mark.usefixtures("gloo")
def test_what_the_examples_provide_is_used_as_the_page_says(
    namespace: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert {command[0] for command in USED} == {"check", "evaluate", "train"}
    provided = [record for hook in KINDS for record in namespace[hook]()]
    assert all(any(record.name in " ".join(command) for command in USED) for record in provided)
    try:
        for record in provided:
            kt.register(record)
        for command in USED:
            assert main(command) == 0, f"kontrast {shlex.join(command)}: {capsys.readouterr()}"
    finally:
        kontrast.registry._registered.clear()  # pyright: ignore[reportPrivateUsage]


def test_the_turns_of_a_run_are_those_of_an_observer() -> None:
    turns = {
        f"{name}({', '.join(list(inspect.signature(turn).parameters)[1:])})"
        for name, turn in vars(kt.Observer).items()
        if callable(turn) and not name.startswith("_")
    }
    table = PAGE.read_text(encoding="utf-8").partition("## While a run goes on")[2]
    assert set(re.findall(r"^\| `(.+?)` \|", table, re.MULTILINE)) == turns
