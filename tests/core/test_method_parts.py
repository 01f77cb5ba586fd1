"""What a method is trained with where nothing is said: the parts that its record names, else the domain's."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kontrast as kt
import kontrast.registry
from kontrast.cli import main
from kontrast.plugins.objectives import InfoNCE

GRAPHS = ["3 0\n0 1 1\n0 2 0 2\n1 1 1", "4 1\n1 1 1\n0 2 0 2\n1 2 1 3\n0 1 2"] * 4
GCN = {"name": "gcn", "num_layers": 2, "all_layers": False, "batch_norm": False}
ONE_VIEW = {"name": "identity", "num_views": 1}
# Of the papers, as in benchmarks/ where there is one: tu.py, sbm.py, ucr.py, tnc.py.
EXPECTED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "gcc": ({"name": "structural-gin"}, {"name": "ego-subgraphs"}),
    "grace": (GCN, {"name": "grace-views"}),
    "graphcl": ({"name": "gin"}, {"name": "graphcl-views"}),
    "infograph": ({"name": "gin"}, ONE_VIEW),
    "cpc": ({"name": "dilated-cnn", "depth": 1}, ONE_VIEW),
    "tnc": ({"name": "dilated-cnn", "depth": 10}, {"name": "neighbor-windows"}),
    "ts2vec": ({"name": "dilated-cnn", "depth": 10}, {"name": "overlapping-crops", "mask_ratio": 0.5}),
    "simclr --adapter timeseries": ({"name": "dilated-cnn"}, {"name": "series-views"}),
    "moco-v2 --adapter timeseries": ({"name": "dilated-cnn"}, {"name": "series-views"}),
    "simclr": ({"name": "small-cnn"}, {"name": "affine-views"}),
}


def _train(arguments: str, tmp_path: Path) -> int:
    """Run two small steps."""
    (tmp_path / "graphs.txt").write_text("\n".join([str(len(GRAPHS)), *GRAPHS]))
    method = arguments.split()[0]
    data = f" --data {tmp_path}/graphs.txt" if method in ("gcc", "grace", "graphcl", "infograph") else ""
    small = " --encoder.hidden_size 4" if method != "simclr" or "timeseries" in arguments else ""
    shared = f"{data}{small} --batch_size 8 --steps 2 --observers= --out {tmp_path}/run"
    return main(["train", *f"{arguments} {shared}".split()])


@pytest.mark.parametrize("method", EXPECTED)
def test_a_method_trains_with_its_own_parts_where_nothing_is_said(method: str, tmp_path: Path) -> None:
    assert _train(method, tmp_path) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    for part, expected in zip(("encoder", "augmenter"), EXPECTED[method], strict=True):
        assert {name: config[part][name] for name in expected} == expected
    assert (tmp_path / "run" / "encoder.safetensors").is_file()


def _parts(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[dict[str, Any], dict[str, Any]]:
    assert main(["train", *arguments, "--print-config"]) == 0
    config = json.loads(capsys.readouterr().out)
    return config["encoder"], config["augmenter"]


def test_what_is_asked_for_goes_before_the_methods_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder, augmenter = _parts(capsys, "cpc", "--encoder", "inception-time", "--augmenter.num_views", "2")
    assert encoder["name"] == "inception-time"
    assert augmenter == {"name": "identity", "num_views": 2}
    # The same encoder by its name is the method's, with its options; others beside it win.
    assert _parts(capsys, "cpc", "--encoder", "dilated-cnn")[0]["depth"] == 1
    assert _parts(capsys, "cpc", "--encoder", "kontrast:dilated-cnn", "--encoder.depth", "3")[0]["depth"] == 3
    file = tmp_path / "cpc.yaml"
    file.write_text("method: cpc\nencoder: {name: dilated-cnn, depth: 2}\naugmenter: series-views\n")
    encoder, augmenter = _parts(capsys, "--config", str(file))
    assert (encoder["depth"], augmenter["name"]) == (2, "series-views")
    # Another domain takes what is for it, or for any.
    encoder, augmenter = _parts(capsys, "cpc", "--adapter", "graph")
    assert (encoder["name"], augmenter) == ("gin", ONE_VIEW)


def mine(encoder: kt.Encoder) -> kt.Method:
    return kt.Method(encoder=encoder, sampler=kt.InBatch(), objective=InfoNCE())


@pytest.fixture
def registered() -> Iterator[None]:
    yield
    kontrast.registry._registered.clear()  # pyright: ignore[reportPrivateUsage]


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"encoder": "smal-cnn"},
            "is trained with an encoder that is not registered: no encoder `smal-cnn`; did you mean `small-cnn`",
        ),
        (
            {"augmenter": {"name": "affine-views", "rotatoin": 3.0}},
            "sets the option `rotatoin` of the augmenter `affine-views`, which has none of that name; did you mean "
            "`rotation`",
        ),
        (
            {"augmenter": "series-views", "adapter": "vision"},
            "is for the adapter `vision`, and the augmenter `series-views` that it names for `timeseries`",
        ),
    ],
)
def test_a_part_that_is_not_there_is_one_sentence(
    fields: dict[str, Any], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kt.register(kt.MethodRecord("mine", mine, **fields))
    assert main(["train", "mine", "--print-config"]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.startswith("kontrast: method `mine` ")
    assert said.count("\n") == 1
    (part,) = {"encoder", "augmenter"} & set(fields)  # another one can still be asked for
    other = {"encoder": "resnet18", "augmenter": "identity"}[part]
    assert other in [found["name"] for found in _parts(capsys, "mine", f"--{part}", other)]


@pytest.mark.usefixtures("registered")
def test_a_method_of_any_domain_takes_its_part_where_it_fits(capsys: pytest.CaptureFixture[str]) -> None:
    kt.register(kt.MethodRecord("mine", mine, encoder="gcn", augmenter={"name": "identity", "num_views": 3}))
    assert main(["describe", "mine"]) == 0
    assert "by default   encoder gcn, augmenter identity (num_views 3)" in capsys.readouterr().out
    three = {"name": "identity", "num_views": 3}
    for adapter, encoder in (("graph", "gcn"), ("vision", "small-cnn"), ("timeseries", "dilated-cnn")):
        found = _parts(capsys, "mine", "--adapter", adapter)
        assert (found[0]["name"], found[1]) == (encoder, three)


@pytest.mark.parametrize("given", [3, {}, {"depth": 1}, {"name": 3}, None])
@pytest.mark.parametrize("part", ["encoder", "augmenter"])
def test_a_part_is_a_name_or_has_one(part: str, given: Any) -> None:
    fields: dict[str, Any] = {part: given}
    with pytest.raises(kt.InvalidValueError, match=f"the {part} of method `mine` must be a registered name, or a map"):
        kt.MethodRecord("mine", mine, **fields)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("tnc --augmenter series-views", "got 2; `tnc` is trained with the augmenter `neighbor-windows`"),
        (
            "grace --encoder gin --augmenter identity --augmenter.num_views 1",
            "makes two or more; `grace` is trained with the encoder `gcn` and the augmenter `grace-views`",
        ),
    ],
)
def test_parts_that_do_not_go_with_a_method_are_refused_with_those_that_do(
    arguments: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _train(arguments, tmp_path) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert sentence in said
