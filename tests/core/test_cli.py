"""The command line as its users meet it: in a process of its own where start-up counts, else through `main`."""

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

import kontrast
from kontrast import Method, PairSampler, Run, train_command
from kontrast.cli import main


def _fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    return captured.err


def test_list_names_everything_without_torch() -> None:
    code = "import sys; from kontrast.cli import main; main(['list']); print(*sys.modules)"
    result = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    *lines, loaded = result.stdout.splitlines()
    # What a listing costs is what it imports: a time would fail on a busy machine.
    foreign = {name.partition(".")[0] for name in loaded.split()} - set(sys.stdlib_module_names)
    assert {"kontrast", "pluggy", "rich"} <= foreign
    heavy = {"torch", "numpy", "torch_geometric", "torchvision", "sklearn", "jsonargparse", "docstring_parser", "yaml"}
    assert not heavy & foreign
    assert len(loaded.split()) < 400
    assert lines[0].split() == ["kind", "name", "what", "it", "does", "provided", "by"]
    names = [line.split()[1] for line in lines if line.startswith("method")]
    assert names == sorted(names)
    assert {"byol", "clip", "moco-v2", "simclr", "vicreg"} <= set(names)
    assert result.stderr == ""


def test_list_of_one_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "samplers"]) == 0
    listed = [line.split()[1] for line in capsys.readouterr().out.splitlines()[1:]]
    assert listed == sorted(listed)
    assert {"in-batch", "positives", "queue"} <= set(listed)
    assert "no kind `sampl`; did you mean `sampler`" in _fails(capsys, "list", "sampl")


def test_describe_gives_parameters_with_type_default_and_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "moco-v2"]) == 0
    out = capsys.readouterr().out
    assert "arXiv:2003.04297" in out
    row = next(line for line in out.splitlines() if line.startswith("queue_size"))
    assert row.split()[1:3] == ["int", "65536"]
    assert "4096 for small data sets" in row
    assert "no registered name `simcrl`; did you mean `simclr`" in _fails(capsys, "describe", "simcrl")


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("queue", ["  wraps        another sampler", "  gives        negatives", "inner      PairSampler  required"]),
        ("info-nce", ["  needs        negatives", "  goes with    samplers debiased, elements, hard-negatives,"]),
        ("jensen-shannon", ["  goes with    samplers elements, hardest-negatives, in-batch, local-global"]),
        ("positives", ["  gives        positives alone", "  goes with    objectives cosine-regression, vicreg"]),
        ("elements", ["  wraps        another sampler", "  goes with    objectives alignment-uniformity, "]),
        ("moco-v2", ["  sampler      Queue(size=65536 (inner): ", "  objective    InfoNCE(temperature=0.2)"]),
        ("clip", ["  needs        image_encoder, text_encoder"]),
        (
            "grace",
            ["  goes with    adapter graph", "  by default   encoder gcn (num_layers 2, all_layers False, batch"],
        ),
        ("gcc", ["  by default   encoder structural-gin, augmenter ego-subgraphs"]),
        ("cpc", ["  by default   encoder dilated-cnn (depth 1), augmenter identity (num_views 1)"]),
        ("tnc", ["  by default   augmenter neighbor-windows"]),
        ("timeseries", ["  by default   data waves, encoder dilated-cnn, augmenter series-views, probe series-svm,se"]),
        ("gin", ["  goes with    adapter graph", "  install      pip install 'kontrast[graph]'"]),
        ("graph", ["  by default   data ba2motifs, encoder gin, augmenter graphcl-views, probe svm"]),
        ("knn", ["  reads        representations alone", "encoder      Module | tuple[Representations, Repr"]),
        ("knn", ["  used by      kontrast evaluate --probe knn", "  by default   a row for each of k 20, 200"]),
        ("graphcl-tu", ["  used by      kontrast train --recipe graphcl-tu", "epochs         20"]),
    ],
)
def test_describe_says_what_a_thing_needs_gives_and_goes_with(
    name: str, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["describe", name]) == 0
    out = capsys.readouterr().out.splitlines()
    found = [line for line in lines if any(shown.startswith(line) for shown in out)]
    assert found == lines, "\n".join(out)


def test_plugins_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "--json"]) == 0
    plugins = {plugin["name"]: plugin for plugin in json.loads(capsys.readouterr().out)}
    assert plugins["kontrast-methods"]["state"] == "loaded"
    assert "method simclr" in plugins["kontrast-methods"]["provides"]


def test_train_writes_a_run_with_what_was_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    options = {"adapter": "vision", "data": "digits", "epochs": 2, "batch_size": 512, "encoder.width": 4}
    arguments = [f"--{name}={value}" for name, value in {**options, "optimizer": "lars"}.items()]
    assert main(["train", "simclr", *arguments, "--method.temperature", "0.2", "--out", str(out)]) == 0
    assert f"encoder in {out}/encoder.safetensors" in capsys.readouterr().out
    config = json.loads((out / "config.json").read_text())
    assert config["method"] == {
        "name": "simclr",
        "hidden_size": 2048,
        "projection_size": 128,
        "temperature": 0.2,
        "joint_forward": True,
    }
    assert config["encoder"] == {"name": "small-cnn", "in_channels": 1, "width": 4}  # channels from the data
    assert config["optimizer"]["name"] == "lars"
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 2 * (1297 // 512)
    assert "holds one; choose another" in _fails(capsys, "train", "simclr", "--out", str(out))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("simcrl --out x", "no method `simcrl`; did you mean `simclr`"),
        ("simclr --out x --adapter visoin", "no adapter `visoin`; did you mean `vision`"),
        ("simclr --out x --data digit", "no vision data set or file `digit`; did you mean `digits`"),
        ("simclr --out x --encoder resnet", "no encoder `resnet`; did you mean `resnet18`"),
        ("simclr --out x --optimizer adam", "no optimizer `adam`; did you mean `adamw`"),
        ("simclr --out x --epoch 3", "no option `--epoch`; did you mean `--epochs`"),
        (
            "simclr --out x --method.temprature=3",
            "no option `--method.temprature`; did you mean `--method.temperature`",
        ),
        ("simclr --out x --epochs many", "`--epochs` must be of type int, got many"),
        ("simclr --out x --method.temperature -1", "`temperature` must be > 0, got -1.0"),
        ("simclr --out x --encoder", "the command line cannot be read: argument --encoder: expected one argument"),
        ("simclr --out x --seed 99999999999999999999", "`seed` must be an integer in 0"),
        ("simclr --out x --optimizer.beta1 1.5", "`beta1` must be in [0, 1), got 1.5"),
        ("simclr --out x --device cudda", "`device` must be auto, cpu or cuda, got 'cudda'"),
        ("simclr --out x --sampler queue --sampler.size 0", "`size` of a queue must be >= 1, got 0"),
        ("simclr --out x --sampler positives", "NTXent needs negatives, and the sampler Positives gives none"),
        ("simclr --out x --sampler.inner positives", "`--sampler.inner` is for a sampler that wraps another"),
        ("simclr --out x --config nowhere.json", "`--config` must be a readable JSON or YAML file, got nowhere.json"),
        (
            "simclr --out x --sampler queue --sampler.inner in-batch --sampler.inner.inner positives",
            "`--sampler.inner.inner` is for a sampler that wraps another, got `in-batch`",
        ),
        (
            "simclr --out x --sampler queue --sampler.inner.inner positives",
            "`--sampler.inner.inner` must lie inside a named sampler; give `--sampler.inner`",
        ),
        ("simclr --out x --sampler queue --sampler.inner quue", "no sampler `quue`; did you mean `queue`"),
        (
            "simclr --out x --sampler debiased --sampler.inner queue --sampler.inner.siez 4",
            "no option `--sampler.inner.siez`; did you mean `--sampler.inner.size`",
        ),
        (
            "simclr --out x --sampler debiased --sampler.inner queue --sampler.inner.size 0",
            "`size` of a queue must be >= 1, got 0",
        ),
        ("simclr --out x --resume yes", "`--resume` must be one of never, auto, got yes"),
        ("grace --out x --data nothing", "no graph data set"),  # its domain is known
        ("simclr", "`--out` must be given (see kontrast train simclr --help)"),
        ("simclr --out x --warmup_epochs nan", "`--warmup_epochs` must be of type float or null, got nan (see"),
        ("", "`kontrast train` needs a method, the first word behind it; installed: byol, "),
        ("--method.temperature 1 --epochs 3 --out x", "`kontrast train` needs a method, the first word behind it"),
    ],
)
def test_train_refuses_in_one_sentence(
    arguments: str, sentence: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sentence in _fails(capsys, "train", *arguments.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "kinds"),
    [
        (
            "graphcl --augmenter grace-views --sampler elements --sampler.inner in-batch --objective nt-xent",
            ["Elements", "InBatch"],
        ),
        (
            "grace --augmenter grace-views --sampler queue --sampler.size 99 --sampler.inner elements "
            "--sampler.inner.inner positives --objective info-nce",
            ["Queue", "Elements", "Positives"],
        ),
        (
            "graphcl --augmenter identity --augmenter.num_views 1 --sampler local-global --objective jensen-shannon",
            ["LocalGlobal"],
        ),
    ],
)
def test_elements_inside_samples_are_compared_by_name(
    arguments: str, kinds: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = ["3 0\n0 1 1\n0 2 0 2\n1 1 1", "2 1\n1 1 1\n0 1 0"] * 20
    (tmp_path / "graphs.txt").write_text("\n".join([str(len(graphs)), *graphs]))
    samplers: list[PairSampler] = []
    monkeypatch.setattr(train_command, "Run", _keeping(samplers))
    shared = (
        f"--adapter graph --data {tmp_path}/graphs.txt --encoder gcn --batch_size 20 --epochs 1 --out {tmp_path}/run"
    )
    assert main(["train", *arguments.split(), *shared.split()]) == 0
    assert [type(part).__name__ for part in samplers[0].modules()] == kinds


def test_train_help_shows_every_parameter(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["train", "byol", "--help"])
    out = capsys.readouterr().out
    for option in (
        "--method.momentum",
        "--encoder.width",
        "--augmenter.rotation",
        "--optimizer.weight_decay",
        "--seed",
    ):
        assert option in out


def test_commands_that_are_none_and_readers_that_leave(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no command `lst`; did you mean `list`" in _fails(capsys, "lst")
    assert "the following arguments are required: name (see kontrast describe --help)" in _fails(capsys, "describe")
    code = f"{sys.executable} -P -m kontrast list | true; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", code], capture_output=True, text=True)
    assert result.stderr == ""
    assert result.returncode in (0, 141)


def test_a_printed_config_is_no_answer_to_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "simclr", "--print-config"]) == 0
    (tmp_path / "printed.json").write_text(capsys.readouterr().out)
    assert "`--out` must be given" in _fails(capsys, "train", "--config", str(tmp_path / "printed.json"))
    (tmp_path / "broken.json").write_text('{"method":\n{broken')
    broken = _fails(capsys, "train", "--config", str(tmp_path / "broken.json"), "--out", str(tmp_path / "x"))
    assert "broken.json: expected ',' or '}', but got '<stream end>' in line 2" in broken


def test_warnings_are_sentences_on_the_command_line_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def command(given: list[str]) -> int:
        for kind in (kontrast.CollapseWarning, DeprecationWarning):
            said.append(warnings.formatwarning("a disk is full", kind, "/a/run.py", 3))
        return 0

    monkeypatch.setattr("kontrast.cli._light", command)
    before = warnings.formatwarning
    assert main(["list"]) == 0
    assert said == ["kontrast: a disk is full\n", "/a/run.py:3: DeprecationWarning: a disk is full\n"]
    assert warnings.formatwarning is before


def test_a_config_file_starts_the_same_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    arguments = ["--epochs=1", "--batch_size=600", "--encoder.width=4", "--sampler=queue", "--sampler.size=100"]
    assert main(["train", "simclr", *arguments, "--objective.temperature=0.1", "--out", str(first)]) == 0
    assert main(["train", "--config", str(first / "config.json"), "--out", str(again)]) == 0
    assert (again / "metrics.jsonl").read_text() == (first / "metrics.jsonl").read_text()
    capsys.readouterr()
    assert main(["train", "--config", str(first / "config.json"), "--print-config", "--seed", "3"]) == 0
    printed = json.loads(capsys.readouterr().out)
    config = json.loads((first / "config.json").read_text())
    assert printed == {**config, "seed": 3}
    assert (config["sampler"], config["objective"]) == ({"name": "queue", "size": 100}, {"temperature": 0.1})
    (tmp_path / "typo.yaml").write_text("method: {name: simclr}\nepohs: 3\n")
    wrong = _fails(capsys, "train", "--config", str(tmp_path / "typo.yaml"), "--out", str(tmp_path / "x"))
    assert "no option `epohs`; did you mean `epochs`" in wrong


IN_BATCH = {"name": "in-batch", "views": "all", "match": "ids"}


@pytest.mark.parametrize(
    ("arguments", "part", "expected"),
    [
        ("moco-v2 --method.queue_size 512 --sampler.inner in-batch", "sampler", {"inner": IN_BATCH}),
        ("moco-v2 --method.queue_size 512 --sampler.size 65536", "sampler", {"size": 65536}),
        ("moco-v2 --method.temperature 0.5 --objective.temperature 0.2", "objective", {"temperature": 0.2}),
        ("vicreg --method.variance 10 --objective.eps 0.01", "objective", {"eps": 0.01}),
    ],
)
def test_a_part_keeps_what_the_methods_own_options_made_of_it(
    arguments: str, part: str, expected: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *arguments.split(), "--print-config"]) == 0
    assert json.loads(capsys.readouterr().out)[part] == expected


NESTED = {
    "name": "debiased",
    "positive_prior": 0.05,
    "least_score": None,
    "inner": {"name": "queue", "size": 512, "inner": {**IN_BATCH, "views": "cross"}},
}


def test_samplers_inside_samplers_come_back_from_the_config_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    samplers: list[PairSampler] = []
    monkeypatch.setattr(train_command, "Run", _keeping(samplers))
    first, again = tmp_path / "first", tmp_path / "again"
    arguments = "--sampler debiased --sampler.inner queue --sampler.inner.size=512 --sampler.inner.inner=in-batch"
    arguments += " --sampler.positive_prior 0.05 --sampler.inner.inner.views cross --epochs 1 --batch_size 600"
    assert main(["train", "simclr", *arguments.split(), "--encoder.width=4", f"--out={first}"]) == 0
    config = json.loads((first / "config.json").read_text())
    assert config["sampler"] == NESTED
    assert main(["train", f"--config={first / 'config.json'}", f"--out={again}"]) == 0
    assert json.loads((again / "config.json").read_text()) == {**config, "out": str(again)}
    assert (again / "metrics.jsonl").read_text() == (first / "metrics.jsonl").read_text()
    assert repr(samplers[0]) == repr(samplers[1])
    (debiased, queue, in_batch) = list(samplers[0].modules())
    assert isinstance(debiased, kontrast.Debiased)
    assert isinstance(queue, kontrast.Queue)
    assert isinstance(in_batch, kontrast.InBatch)
    assert (debiased.positive_prior, queue.size, in_batch.views) == (0.05, 512, "cross")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", NESTED),
        ("--sampler.inner.size 9", {**NESTED, "inner": {**NESTED["inner"], "size": 9}}),  # type: ignore[dict-item]
        ("--sampler.inner in-batch", {**NESTED, "inner": IN_BATCH}),
        ("--sampler queue", {"name": "queue", "size": 65536}),
        (
            "--sampler.inner.inner positives",
            {**NESTED, "inner": {"name": "queue", "size": 512, "inner": {"name": "positives", "views": "all"}}},
        ),
    ],
)
def test_the_command_line_goes_before_what_a_config_file_has_inside_a_sampler(
    arguments: str, expected: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"method": "simclr", "sampler": NESTED}))
    assert main(["train", "--config", str(tmp_path / "config.json"), "--print-config", *arguments.split()]) == 0
    assert json.loads(capsys.readouterr().out)["sampler"] == expected


def test_a_config_file_may_name_a_sampler_without_settings_and_not_misspell_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("method: simclr\nsampler: {name: queue, size: 5, inner: {name: queue, inner: positives}}\n")
    assert main(["train", "--config", str(path), "--print-config"]) == 0
    inner = {"name": "queue", "size": 65536, "inner": {"name": "positives", "views": "all"}}
    assert json.loads(capsys.readouterr().out)["sampler"] == {"name": "queue", "size": 5, "inner": inner}
    path.write_text("method: simclr\nsampler: {name: queue, inner: {name: queue, siez: 3}}\n")
    assert "no option `sampler.inner.siez`; did you mean `sampler.inner.size`" in _fails(
        capsys, "train", "--config", str(path), "--print-config"
    )
    path.write_text("method: simclr\nsampler: 3\n")
    assert "must be a name, or a mapping with `name`, got 3" in _fails(capsys, "train", "--config", str(path))


def _keeping(samplers: list[PairSampler]) -> type[Run]:
    class Kept(Run):
        def __init__(self, method: Method, *arguments: Any, **options: Any) -> None:
            samplers.append(method.sampler)
            super().__init__(method, *arguments, **options)

    return Kept
