"""The examples run as a newcomer runs them: as scripts, offline, from an empty folder."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fresh import python

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2")


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a script of this folder in an empty one and returns what it prints."""

    def run(name: str, *options: str) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, *options])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def _torchrun(folder: Path, name: str, *options: str) -> str:
    result = python(*TORCHRUN, str(EXAMPLES / name), *options, folder=folder)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("name", ["custom_objective", "custom_sampler"])
def test_an_own_part_trains_and_beats_the_encoder_as_drawn(name: str, said: Callable[..., str]) -> None:
    last = said(f"{name}.py").splitlines()[-1]
    untrained, trained = (float(word.strip(",")) for word in last.split() if word[0].isdigit())
    assert trained > untrained + 3


def _table(output: str) -> dict[str, list[float]]:
    rows = [line.rsplit(maxsplit=2) for line in output.splitlines() if "encoder" in line or line.startswith("raw")]
    return {name.strip(): [float(knn), float(linear)] for name, knn, linear in rows}


def test_the_demo_prints_a_table_leaves_a_picture_and_replaces_an_earlier_demo(
    tmp_path: Path, said: Callable[..., str]
) -> None:
    earlier = tmp_path / "demo" / "seed-0"
    earlier.mkdir(parents=True)
    (earlier / "metrics.jsonl").touch()
    (tmp_path / "demo" / "demo.txt").touch()
    table = _table(said("simclr.py", "--out", "demo", "--epochs", "8"))
    assert table["trained encoder"][0] > table["untrained encoder"][0] + 10
    assert table["trained encoder"][1] > table["raw pixels"][1] + 10
    assert (tmp_path / "demo" / "seed-0" / "embedding.png").stat().st_size > 10_000
    assert (tmp_path / "demo" / "seed-0" / "encoder.safetensors").exists()


@pytest.mark.slow
def test_graphcl_beats_the_encoder_as_drawn_and_ends_with_its_accuracy(
    tmp_path: Path, said: Callable[..., str]
) -> None:
    lines = said("graphcl.py", "--epochs", "10").splitlines()
    assert lines[-1].startswith("accuracy ")
    drawn, trained = (float(line.rsplit(maxsplit=1)[1]) for line in lines[-2:])
    assert trained > max(drawn, 98.0)
    assert (tmp_path / "runs" / "graphcl" / "ba2motifs-10-128-0.1-0" / "embedding.png").stat().st_size > 10_000


def _tiny(folder: Path) -> tuple[str, ...]:
    """Write a data set of two easy kinds of graphs and return the options that train on it."""
    (folder / "data" / "TINY").mkdir(parents=True)
    graphs = ["3 0\n0 1 1\n0 2 0 2\n1 1 1", "2 1\n1 1 1\n0 1 0"] * 20
    (folder / "data" / "TINY" / "TINY.txt").write_text("\n".join([str(len(graphs)), *graphs]))
    return ("--dataset", "Tiny", "--root", "data", "--epochs", "2", "--batch-size", "16")


def test_graphcl_draws_a_picture_and_ends_with_its_accuracy(tmp_path: Path, said: Callable[..., str]) -> None:
    lines = said("graphcl.py", *_tiny(tmp_path)).splitlines()
    assert lines[-2].startswith("accuracy of the encoder as it was drawn ")
    assert lines[-1] == "accuracy 100.0"
    assert (tmp_path / "runs" / "graphcl" / "Tiny-2-16-0.1-0" / "embedding.png").stat().st_size > 10_000


def test_graphcl_gives_no_results_of_other_settings_and_goes_on_where_it_is_asked(
    tmp_path: Path, said: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = _tiny(tmp_path)
    first = said("graphcl.py", *tiny)
    run = tmp_path / "runs" / "graphcl" / "Tiny-2-16-0.1-0"
    before = (run / "metrics.jsonl").read_text()
    with pytest.raises(SystemExit, match="2"):  # the script may have been changed meanwhile
        said("graphcl.py", *tiny)
    told = capsys.readouterr()
    assert told.out == ""
    assert "holds one; choose another, remove it, or resume it (resume='auto', --resume auto)" in told.err
    assert said("graphcl.py", *tiny, "--resume", "auto") == first
    assert (run / "metrics.jsonl").read_text() == before
    said("graphcl.py", *tiny, "--ratio", "0.6")
    said("graphcl.py", *tiny, "--ratio", "0", "--batch-size", "8")
    runs = {path.name: (path / "metrics.jsonl").read_text() for path in run.parent.iterdir()}
    assert sorted(runs) == ["Tiny-2-16-0.1-0", "Tiny-2-16-0.6-0", "Tiny-2-8-0.0-0"]
    assert len(set(runs.values())) == 3


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--ratio", "1"), "graphcl.py: `ratio` must be in [0, 1), got 1.0"),
        (("--root", "own/config.json"), "graphcl.py: `root` must be a folder of data sets, got own/config.json"),
        (("--out", "own"), "graphcl.py: `out` must be a folder without a run, and own holds one; choose another"),
    ],
)
def test_what_is_wrong_with_graphcls_options_is_a_sentence(
    options: tuple[str, str],
    sentence: str,
    tmp_path: Path,
    said: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "config.json").touch()
    with pytest.raises(SystemExit, match="2"):
        said("graphcl.py", *_tiny(tmp_path), *options)
    told = capsys.readouterr().err
    assert sentence in told
    assert "Traceback" not in told


@pytest.mark.slow
def test_graphcl_under_torchrun(tmp_path: Path) -> None:
    output = _torchrun(tmp_path, "graphcl.py", *_tiny(tmp_path))
    assert output.splitlines()[-1] == "accuracy 100.0"
    assert output.count("accuracy") == 2


@pytest.mark.slow
def test_the_demo_wins_clearly(said: Callable[..., str]) -> None:
    table = _table(said("simclr.py", "--out", "demo"))
    for column in (0, 1):
        baseline = min(100 - table[name][column] for name in ("raw pixels", "untrained encoder"))
        assert 100 - table["trained encoder"][column] < baseline / 3


@pytest.mark.slow
def test_the_same_script_under_torchrun_gives_one_table(tmp_path: Path) -> None:
    output = _torchrun(tmp_path, "simclr.py", "--epochs", "2", "--out", "demo")
    assert output.count("trained encoder") == 2  # untrained and trained, once each
    rows = (tmp_path / "demo" / "seed-0" / "metrics.jsonl").read_text().splitlines()
    assert len(rows) == 2 * (1297 // 256)
