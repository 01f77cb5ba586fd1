"""Every block of every page, and of the README, runs and prints what stands below it."""

import json
import shlex
import sys
from pathlib import Path

import pytest
from docs_page import DOCS, blocks, run

import kontrast.registry
from kontrast.cli import main

ROOT = DOCS.parent
PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in DOCS.rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_does_what_it_shows(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    try:
        run(ROOT / page, tmp_path)
    finally:
        kontrast.registry._registered.clear()  # pyright: ignore[reportPrivateUsage]
        for name in sorted(set(sys.modules) - before):  # another page may have a file of the same name
            if str(tmp_path) in (getattr(sys.modules[name], "__file__", None) or ""):
                del sys.modules[name]


# Names of packages that pages make: those of authors/publishing.md, and of authors/hooks.md, whose test runs the lines.
ELSEWHERE = ("margin-info-nce", "plain-table", "train plain ")

# What takes several machines or minutes is not run, but its options are read.
TRAININGS = [
    pytest.param(shlex.split(line.partition("kontrast train ")[2], comments=True), id=line)
    for page in PAGES
    for block in blocks(ROOT / page)
    if block.language == "bash"
    for line in block.text.replace("\\\n", "").splitlines()
    if "kontrast train " in line and not any(name in line for name in ELSEWHERE)
]


@pytest.mark.parametrize("options", TRAININGS)
def test_a_training_that_is_shown_has_options_that_there_are(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *options, "--print-config"]) == 0
    assert json.loads(capsys.readouterr().out)["method"]
