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


def _losses(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_it_is_listed_with_all_that_it_provides(installed: Installed, tmp_path: Path) -> None:
    found = installed.python("-P", "-m", "kontrast", "plugins", "--json", folder=tmp_path)
    (plugin,) = [entry for entry in json.loads(found) if entry["name"] == "recsys"]
    assert (plugin["distribution"], plugin["state"]) == ("kontrast-recsys", "loaded")
    methods = installed.python("-P", "-m", "kontrast", "list", "methods", folder=tmp_path)
    for name in ("clrec", "lightgcn", "sgl"):
        (line,) = [line for line in methods.splitlines() if name in line.split()]
        assert line.endswith("kontrast-recsys 0.1.0")


def test_listing_it_imports_no_torch(installed: Installed, tmp_path: Path) -> None:
    code = "import sys, kontrast as kt; kt.get_record(kt.MethodRecord, 'sgl'); print('torch' in sys.modules)"
    assert installed.python("-P", "-c", code, folder=tmp_path) == "False\n"


def test_two_processes_have_the_losses_of_one(installed: Installed, tmp_path: Path) -> None:
    # 1600 interactions and an odd batch: the last one of an epoch, and one part of each, are uneven.
    options: tuple[str, ...] = (
        "train",
        "sgl",
        "--adapter",
        "recsys",
        "--epochs",
        "2",
        "--batch_size",
        "333",
        "--drop_last",
        "false",
    )
    options += ("--optimizer.weight_decay", "0", "--optimizer.learning_rate", "0.01")
    options += ("--encoder.size", "16", "--encoder.l2", "0.1")
    one = installed.python("-P", "-m", "kontrast", *options, "--out", "one", folder=tmp_path)
    two = installed.python(*TORCHRUN, "-m", "kontrast", *options, "--out", "two", folder=tmp_path)
    assert one.splitlines()[-1].startswith("loss ")
    assert two.count("in the last epoch") == 1
    single, double = _losses(tmp_path / "one"), _losses(tmp_path / "two")
    assert len(single) == len(double) == 10
    for ours, theirs in zip(single, double, strict=True):
        for name in ("loss", "ranking/loss", "lengths", "all-users/loss", "all-items/loss"):
            assert theirs[name] == pytest.approx(ours[name], rel=1e-4), (ours["step"], name)
    assert single[-1]["loss"] < single[0]["loss"]
    judged = json.loads(installed.python("-P", "-m", "kontrast", "evaluate", "two", "--json", folder=tmp_path))
    (result,) = judged["results"]  # the probe of the domain
    assert result["probe"] == "ranking"
    assert 0.02 < result["scores"]["recall"] < 1


def test_clrec_trains_from_the_command_line(installed: Installed, tmp_path: Path) -> None:
    options: tuple[str, ...] = (
        "train",
        "clrec",
        "--adapter",
        "recsys",
        "--encoder.num_layers",
        "0",
        "--encoder.l2",
        "0",
        "--epochs",
        "1",
    )
    options += ("--batch_size", "200", "--method.queue_size", "300", "--out", "run")
    installed.python("-P", "-m", "kontrast", *options, folder=tmp_path)
    assert [row["step"] for row in _losses(tmp_path / "run")] == list(range(8))


def test_its_script_compares_the_methods(installed: Installed, tmp_path: Path) -> None:
    output = installed.python("-P", "-m", "kontrast_recsys", "--epochs", "1", "--seeds", "0", folder=tmp_path)
    lines = [line.split()[:2] for line in output.splitlines()]
    assert lines == [[method, word] for method in ("lightgcn", "sgl") for word in ("on", "seed", "mean")]


def test_its_own_tests_pass_where_it_is_installed(installed: Installed, tmp_path: Path) -> None:
    output = installed.python("-m", "pytest", "-q", str(installed.source / "tests"), folder=tmp_path)
    assert " passed" in output
    assert " failed" not in output
