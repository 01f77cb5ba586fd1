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
from fresh import python

PACKAGE = Path(__file__).parent.parent.parent / "examples" / "plugin_package"
pytestmark = pytest.mark.xdist_group("plugin-package")  # installed once
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2")


class Installed:
    """The package in a folder of its own."""

    def __init__(self, source: Path, site: Path) -> None:
        self.source = source
        self.site = site

    def python(self, *arguments: str, folder: Path) -> str:
        result = python(*arguments, folder=folder, environment={"PYTHONPATH": str(self.site)})
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


# One process for all that one process does.
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
    commands = {
        "plugins": "plugins --json",
        "sgl": f"{SGL} --out one",
        "evaluate": "evaluate one --json",
        "clrec": f"{CLREC} --out clrec",
    }
    words = json.dumps({name: line.split() for name, line in commands.items()})
    return folder, json.loads(installed.python("-c", COMMANDS, words, folder=folder))


def _losses(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_it_is_listed_with_all_that_it_provides_without_torch(
    installed: Installed, used: tuple[Path, dict[str, Any]]
) -> None:
    (plugin,) = [entry for entry in json.loads(used[1]["plugins"]) if entry["name"] == "recsys"]
    assert (plugin["distribution"], plugin["state"]) == ("kontrast-recsys", "loaded")
    code = "import sys; from kontrast.cli import main; main(['list', 'methods']); print('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(installed.site)}
    new = subprocess.run([sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True)
    *lines, has_torch = new.stdout.splitlines()
    assert has_torch == "False"
    for name in ("clrec", "lightgcn", "sgl"):
        (line,) = [line for line in lines if name in line.split()]
        assert line.endswith("kontrast-recsys 0.1.0")


def test_sgl_trains_and_is_judged_from_the_command_line(used: tuple[Path, dict[str, Any]]) -> None:
    folder, said = used
    assert said["sgl"].splitlines()[-1].startswith("loss ")
    losses = [row["loss"] for row in _losses(folder / "one")]
    assert len(losses) == 10
    assert losses[-1] < losses[0]
    (result,) = json.loads(said["evaluate"])["results"]  # the probe of the domain
    assert result["probe"] == "ranking"
    assert 0.02 < result["scores"]["recall"] < 1


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(installed: Installed, used: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = used
    said = installed.python(*TORCHRUN, "-m", "kontrast", *SGL.split(), "--out", "two", folder=folder)
    assert said.count("in the last epoch") == 1
    for ours, theirs in zip(_losses(folder / "one"), _losses(folder / "two"), strict=True):
        for name in ("loss", "ranking/loss", "lengths", "all-users/loss", "all-items/loss"):
            assert theirs[name] == pytest.approx(ours[name], rel=1e-4), (ours["step"], name)


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
