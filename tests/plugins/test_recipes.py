"""Recipes: what stands in a file trains what the benchmark that it names trains."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

import kontrast as kt
from kontrast.adapters import graph, vision
from kontrast.cli import main
from kontrast.plugins.graphcl import graphcl

ROOT = Path(__file__).parent.parent.parent


def _benchmark(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", ["byol", "moco-v2", "simclr", "vicreg"])
def test_a_digits_recipe_is_the_benchmarks_run(name: str, tmp_path: Path) -> None:
    options = ["--epochs=1", "--seed=3", "--observers=", f"--out={tmp_path / 'recipe'}"]
    assert main(["train", "--recipe", f"{name}-digits", *options]) == 0
    digits = _benchmark("digits")
    build, batch_size, learning_rate = digits.METHODS[name]
    torch.manual_seed(3)
    kt.Run(
        build(vision.SmallCNN(in_channels=1, width=16)),
        vision.load("digits").train,
        augmenter=digits.MOVES,
        epochs=1,
        batch_size=batch_size,
        optimizer=kt.AdamW(learning_rate),
        seed=3,
        out=tmp_path / "benchmark",
        observers=(),
    ).fit()
    assert _losses(tmp_path / "recipe") == _losses(tmp_path / "benchmark")
    assert kt.get_recipe(f"{name}-digits")["epochs"] == 120  # the benchmark's


def test_the_graph_recipe_is_the_benchmarks_run(tmp_path: Path) -> None:
    options = ["--epochs=1", "--seed=3", "--observers=", f"--out={tmp_path / 'recipe'}"]
    assert main(["train", "--recipe", "graphcl-tu", *options]) == 0
    data = graph.load("ba2motifs").train
    torch.manual_seed(3)
    kt.Run(  # as in benchmarks/tu.py
        graphcl(graph.GIN(data.num_features)),
        data,
        augmenter=graph.graphcl_views(),
        epochs=1,
        batch_size=128,
        optimizer=kt.AdamW(0.01, weight_decay=0.0),
        warmup_epochs=0,
        schedule="constant",
        drop_last=False,
        seed=3,
        out=tmp_path / "benchmark",
        observers=(),
    ).fit()
    assert _losses(tmp_path / "recipe") == _losses(tmp_path / "benchmark")
    assert kt.get_recipe("graphcl-tu")["epochs"] == 20


@pytest.mark.parametrize("name", kt.get_records(kt.RecipeRecord))
def test_every_recipe_can_be_read(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--recipe", name, "--print-config"]) == 0
    config = json.loads(capsys.readouterr().out)
    for part, given in kt.get_recipe(name).items():
        wanted = {"name": given} if isinstance(config[part], dict) and isinstance(given, str) else given
        assert config[part] == ({**config[part], **wanted} if isinstance(wanted, dict) else wanted)


def test_what_is_written_stands_above_the_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--method.temperature", "0.7", "--encoder", "resnet18", "--epochs", "3", "--print-config"]
    assert main(["train", "--recipe", "simclr-digits", *words]) == 0
    config = json.loads(capsys.readouterr().out)
    assert (config["method"]["temperature"], config["method"]["hidden_size"], config["epochs"]) == (0.7, 512, 3)
    assert config["encoder"]["name"] == "resnet18"
    assert "width" not in config["encoder"]  # what the recipe said of the encoder that was replaced


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--recipe simclr-digit", "no recipe `simclr-digit`; did you mean `simclr-digits`"),
        ("--recipe simclr-digits --config x.yaml", "`--config` and `--recipe` must not be given together"),
        ("--recip simclr-digits", "no option `--recip`; did you mean `--recipe`"),
    ],
)
def test_what_is_refused(arguments: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *arguments.split()]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("- a", "must hold a mapping of options, got list"), ("a: [", "could not be read from"), (None, "FileNotFound")],
)
def test_a_broken_recipe_names_its_file(
    text: str | None, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = f"package_of_recipes_{sentence[:4]}".replace(" ", "_")
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").touch()
    if text is not None:
        (tmp_path / package / "mine.yaml").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(kt.PluginError, match=rf"^recipe `mine`.*{sentence}") as caught:
        kt.RecipeRecord("mine", f"{package}:mine.yaml").load()
    assert f"{package}:mine.yaml" in str(caught.value)
