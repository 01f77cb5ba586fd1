"""What a page of docs/ shows, run in its order as a reader would.

- A block with a title is a file of that name, written where the reader stands.
- A `python` block without one is run; all of a page share one namespace. A `text` block below it is what it prints.
- A `console` block is commands behind `$`, each with what it prints; `...` stands for anything; one with
  `|| true` behind it fails.
- `bash` blocks are not run here: they take several machines or minutes.
"""

import io
import os
import re
import shlex
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fresh import python

from kontrast.cli import main

__all__ = ["DOCS", "Block", "blocks", "run"]

DOCS = Path(__file__).parents[2] / "docs"
_FENCE = re.compile(r'^( *)```(\w+)(?: title="([^"]+)")?\n(.*?)^\1```$', re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block: what it is written in, the file that it is (or none), its text, and the line it begins at."""

    language: str
    title: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = [
        Block(
            match[2],
            match[3] or "",
            "".join(line.removeprefix(match[1]) for line in match[4].splitlines(keepends=True)),
            text[: match.start(4)].count("\n") + 1,
        )
        for match in _FENCE.finditer(text)
    ]
    assert text.count("```") == 2 * len(found), f"{page}: a fence that this reader does not understand"
    return found


def run(page: Path, folder: Path) -> dict[str, Any]:
    """Run a page in a folder of its own, the working directory; return the namespace of its Python blocks.

    Args:
        page: a Markdown file.
        folder: empty, on `sys.path`, and where `pip install` puts what a page installs: `folder / "site"`.
    """
    namespace: dict[str, Any] = {"__name__": "page"}
    printed: str | None = None
    for block in blocks(page):
        where = f"{page.name}:{block.line}"
        if block.title:
            file = folder / block.title
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            out = io.StringIO()
            code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
            with redirect_stdout(out):
                exec(code, namespace)
            printed = out.getvalue()
            continue
        elif block.language == "text" and printed is not None:
            _compare(where, printed, block.text)
        elif block.language == "console":
            for command, expected in _commands(block.text):
                _compare(f"{where}, {command}", _command(command, folder), expected)
        printed = None
    return namespace


def _commands(text: str) -> list[tuple[str, str]]:
    """Return (command, what it prints) of a console block."""
    parts = re.split(r"^\$ ", text.replace("\\\n", ""), flags=re.MULTILINE)
    assert not parts[0], f"a console block begins with `$ `, not {parts[0]!r}"
    return [(command, expected) for command, _, expected in (part.partition("\n") for part in parts[1:])]


def _command(command: str, folder: Path) -> str:
    """Return what a command prints. What it says on standard error is shown where it fails."""
    fails = command.endswith(" || true")
    words = shlex.split(command.removesuffix(" || true"))
    site = folder / "site"
    if words[0] == "kontrast" and not site.exists():  # here: importing torch takes longer than most commands
        out = io.StringIO()
        with redirect_stdout(out):
            status = main(words[1:])
        assert (status != 0) == fails, f"{command}: exit status {status}"
        return out.getvalue()
    if words[:2] == ["pip", "install"]:
        offline = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet")
        words = ["python", "-m", "pip", "install", *offline, "--target", str(site), *words[2:]]
    elif words[0] in ("kontrast", "pytest"):
        words = ["python", "-m", *words]
    assert words[0] == "python", f"how is `{command}` run?"
    environment = {"PYTHONPATH": os.pathsep.join(map(str, (site, folder))), "COLUMNS": "120"}
    done = python(*words[1:], folder=folder, environment=environment)
    assert (done.returncode != 0) == fails, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def _compare(where: str, printed: str, expected: str) -> None:
    """Compare as text, but numbers with a decimal point to a tenth: another processor rounds otherwise."""
    lines = "\n".join(line.rstrip() for line in printed.splitlines()).rstrip()
    pattern = re.escape(expected.rstrip()).replace(re.escape("..."), ".*")
    pattern = re.sub(r"(\\ ){2,}", "  +", pattern)  # a column is as wide as its longest entry
    pattern = re.sub(r"\d+\\\.\d+", r"(\\d+\\.\\d+)", pattern)
    found = re.fullmatch(pattern, lines, re.DOTALL)
    assert found, f"{where} prints\n{printed}\nand the page says\n{expected}"
    numbers = [float(number) for number in re.findall(r"\d+\.\d+", expected)]
    assert [float(number) for number in found.groups()] == pytest.approx(numbers, rel=0.1), where
