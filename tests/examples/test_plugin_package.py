"""`examples/plugin_package` installed as a third party's package is, and used from the command line.

It is copied first, as its README says to, so that building it leaves nothing in this repository.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PACKAGE = Path(__file__).parent.parent.parent / "examples" / "plugin_package"
pytestmark = pytest.mark.xdist_group("plugin-package")  # installed once
TORCHRUN = ("-P", "-m", "torch.distributed.run", "--nproc-per-node", "2")


class Installed:
    """The package in a folder of its own."""

    def __init__(self, source: Path, site: Path) -> None:
        self.source = source
        self.site = site

    def python(self, *arguments: str, folder: Path) -> str:
        environment = {**os.environ, "PYTHONPATH": str(self.site), "OMP_NUM_THREADS": "1"}
        command = (sys.executable, *arguments)
        result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stderr + result.stdout
        return result.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("package")
    source, site = folder / "copy", folder / "site"
    shutil.copytree(PACKAGE, source, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__", ".*"))
    offline = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet")
    pip = (sys.executable, "-m", "pip", "install", *offline, "--target", str(site), str(source))
    result = subprocess.run(pip, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return Installed(source, site)


# One process for all that one process does: importing torch takes longer than most of these commands.
COMMANDS = """
import io, json, runpy, sys
from contextlib import redirect_stdout

from kontrast.cli import main

said = {}
for name, words in json.loads(sys.argv[1]).items():
    out = io.StringIO()
    with redirect_stdout(out):
        status = main(words)
    assert status == 0, (name, status, out.getvalue())
    said[name] = out.getvalue()
    said.setdefault("torch after", "torch" in sys.modules)
sys.argv[1:] = ["--epochs", "1", "--seeds", "0"]
out = io.StringIO()
with redirect_stdout(out):
    runpy.run_module("kontrast_recsys", run_name="__main__")
print(json.dumps({**said, "script": out.getvalue()}))
"""
# 1600 interactions and an odd batch: the last one of an epoch, and one part of each, are uneven.
SGL = "train sgl --adapter recsys --epochs 2 --batch_size 333 --drop_last false --optimizer.weight_decay 0"
SGL += " --optimizer.learning_rate 0.01 --encoder.size 16 --encoder.l2 0.1"
CLREC = "train clrec --adapter recsys --encoder.num_layers 0 --encoder.l2 0 --epochs 1 --batch_size 200"
CLREC += " --method.queue_size 300"


@pytest.fixture(scope="module")
def used(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder in which every command ran, and what each printed."""
    folder = tmp_path_factory.mktemp("used")
    two = installed.python(*TORCHRUN, "-m", "kontrast", *SGL.split(), "--out", "two", folder=folder)
    commands = {
        "list": "list methods",
        "plugins": "plugins --json",
        "one": f"{SGL} --out one",
        "evaluate": "evaluate two --json",
        "clrec": f"{CLREC} --out clrec",
    }
    words = json.dumps({name: line.split() for name, line in commands.items()})
    return folder, {"two": two, **json.loads(installed.python("-P", "-c", COMMANDS, words, folder=folder))}


def _losses(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_it_is_listed_with_all_that_it_provides_without_torch(used: tuple[Path, dict[str, Any]]) -> None:
    _, said = used
    (plugin,) = [entry for entry in json.loads(said["plugins"]) if entry["name"] == "recsys"]
    assert (plugin["distribution"], plugin["state"]) == ("kontrast-recsys", "loaded")
    for name in ("clrec", "lightgcn", "sgl"):
        (line,) = [line for line in said["list"].splitlines() if name in line.split()]
        assert line.endswith("kontrast-recsys 0.1.0")
    assert said["torch after"] is False  # after the first command, the listing


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(used: tuple[Path, dict[str, Any]]) -> None:
    folder, said = used
    assert said["one"].splitlines()[-1].startswith("loss ")
    assert said["two"].count("in the last epoch") == 1
    single, double = _losses(folder / "one"), _losses(folder / "two")
    assert len(single) == len(double) == 10
    for ours, theirs in zip(single, double, strict=True):
        for name in ("loss", "ranking/loss", "lengths", "all-users/loss", "all-items/loss"):
            assert theirs[name] == pytest.approx(ours[name], rel=1e-4), (ours["step"], name)
    assert single[-1]["loss"] < single[0]["loss"]
    (result,) = json.loads(said["evaluate"])["results"]  # the probe of the domain
    assert result["probe"] == "ranking"
    assert 0.02 < result["scores"]["recall"] < 1


def test_clrec_trains_from_the_command_line(used: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = used
    assert [row["step"] for row in _losses(folder / "clrec")] == list(range(8))


def test_its_script_compares_the_methods(used: tuple[Path, dict[str, Any]]) -> None:
    lines = [line.split()[:2] for line in used[1]["script"].splitlines()]
    assert lines == [[method, word] for method in ("lightgcn", "sgl") for word in ("on", "seed", "mean")]


def test_its_own_tests_pass_where_it_is_installed(installed: Installed, tmp_path: Path) -> None:
    output = installed.python("-m", "pytest", "-q", str(installed.source / "tests"), folder=tmp_path)
    assert " passed" in output
    assert " failed" not in output
