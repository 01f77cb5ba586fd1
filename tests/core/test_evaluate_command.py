"""`kontrast evaluate` on a finished run."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import TEST, TRAIN, make_run, save_images

import kontrast.evaluate_command as command
from kontrast.cli import main
from kontrast.evaluate import Representations, embed, finetune, knn, linear
from kontrast.saved_run import open_run
from kontrast.subset import Subset, stratified


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("evaluated"))


def _fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["evaluate", *(str(argument) for argument in arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    return captured.err


def _json(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert main(["evaluate", *(str(argument) for argument in arguments), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def test_each_probe_and_share_is_what_its_function_says(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = _json(capsys, run, "--probe", "knn,linear,finetune", "--labels", "10%,50%,100%", "--seed", 3, "--epochs", 2)
    assert found["run"] == str(run)
    source = str(run.parent / "images.npz")
    assert found["train"] == {"source": source, "samples": TRAIN}
    assert found["test"] == {"source": source, "samples": TEST}
    assert found["seed"] == 3
    opened = open_run(run)
    splits = opened.load()
    bank, queries = embed(opened.encoder, splits.train), embed(opened.encoder, splits.test)
    assert bank.labels is not None
    expected: list[dict[str, Any]] = []
    for probe, k in (("knn", 20), ("knn", 200), ("linear", 0), ("finetune", 0)):
        for share in (0.1, 0.5, 1.0):
            indices = stratified(bank.labels, share, seed=3)
            few = Representations(bank.rows[indices], bank.ids[indices], bank.labels[indices]), queries
            accuracy: float | None
            if probe == "knn":
                accuracy = knn(few, k=k) if k <= len(indices) else None
            elif probe == "linear":
                accuracy = linear(few)
            else:
                accuracy = finetune(opened.encoder, Subset(splits.train, indices), splits.test, epochs=2, seed=3)
            expected.append(
                {
                    "probe": probe,
                    "options": {"k": k} if k else {"epochs": 2} if probe == "finetune" else {},
                    "labels": share,
                    "samples": len(indices),
                    "scores": None if accuracy is None else {"accuracy": accuracy},
                }
            )
    reasons = [row.pop("reason", "") for row in found["results"]]
    assert found["results"] == expected
    assert [row["samples"] for row in found["results"][:3]] == [6, 30, 60]
    assert [row["scores"] is None for row in found["results"][:6]] == [True, False, False, True, True, True]
    assert reasons[0] == "`k` must be in 1..6, the number of training samples, got 20"
    assert [bool(reason) for reason in reasons] == [row["scores"] is None for row in found["results"]]


def test_the_table_is_aligned_and_has_a_dash_where_k_is_too_large(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run), "--labels", "10%,100%"]) == 0
    first, *table, few, fewer, fewest = capsys.readouterr().out.splitlines()
    source = run.parent / "images.npz"
    assert first == f"accuracy in percent; train {source} (60 samples), test {source} (25 samples)"
    assert table[0] == "probe       10% (6)  100% (60)"
    column = table[0].index("100%")
    assert [line[: table[0].index("10%")].strip() for line in table[1:]] == ["knn, k=20", "knn, k=200", "linear"]
    cells = [(line[table[0].index("10%") : column].strip(), line[column:].strip()) for line in table[1:]]
    assert cells[0][0] == cells[1][0] == cells[1][1] == "-"
    assert all(0 <= float(value) <= 100 for value in (cells[0][1], *cells[2]))
    assert few == "- knn, k=20 at 10%: `k` must be in 1..6, the number of training samples, got 20"
    assert (fewer[:21], fewest[:22]) == ("- knn, k=200 at 10%: ", "- knn, k=200 at 100%: ")
    assert main(["evaluate", str(run), "--k", "5,1"]) == 0
    out = capsys.readouterr().out
    assert "knn, k=5" in out
    assert "knn, k=1 " in out
    assert " at 100%" not in out


def test_representations_are_computed_once(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def counted(encoder: Any, data: Any) -> Representations:
        sizes.append(len(data))
        return embed(encoder, data)

    monkeypatch.setattr(command, "embed", counted)
    _json(capsys, run, "--labels", "20%,50%,100%")
    assert sizes == [TRAIN, TEST]


def test_other_data(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = save_images(tmp_path / "parts.npz", train=33, test=14)
    only = save_images(tmp_path / "only.npz", train=21, test=0)
    sizes = {
        (): (TRAIN, TEST),
        ("--train", parts): (33, TEST),
        ("--test", parts): (TRAIN, 14),
        ("--train", parts, "--test", parts): (33, 14),
        ("--train", only): (21, TEST),
        ("--test", only): (TRAIN, 21),
    }
    for arguments, expected in sizes.items():
        found = _json(capsys, run, *arguments, "--probe", "knn")
        assert (found["train"]["samples"], found["test"]["samples"]) == expected
    assert "this data set has no test part" in _fails(capsys, run, "--train", only, "--test", only)
    bare = save_images(tmp_path / "bare.npz", labels=False)
    assert "evaluation needs labels" in _fails(capsys, run, "--train", bare)
    assert "evaluation needs labels" in _fails(capsys, run, "--test", bare)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--probe knnn", "no probe `knnn`; did you mean `knn`"),
        ("--probe ,", "`--probe` must name at least one thing, got ','"),
        ("--labels 0%", "`--labels` must be percentages above 0% and up to 100%, got '0%'; write e.g. 1%,10%,100%"),
        ("--labels 10%,150%", "got '150%'"),
        ("--labels=-5%", "got '-5%'"),
        ("--labels x", "got 'x'"),
        ("--labels x%", "got 'x%'"),
        ("--labels nan%", "got 'nan%'"),
        ("--labels 10", "got '10'"),
        ("--k 0", "`k` must be in 1..60, the number of training samples, got 0"),
        ("--k five", "`--k` must be of type int, got 'five' (see kontrast evaluate --help)"),
        ("--k ,", "`--k` must name at least one thing, got ','"),
        ("--k 61", "`k` must be in 1..60, the number of training samples, got 61"),
        ("--k 5,20 --labels 10%,100%", "`k` must be in 1..6, the number of training samples, got 20"),
        ("--k 5 --probe linear", "no option `--k`"),
        ("--probe finetune --epochs 0", "`epochs` must be >= 1, got 0"),
        ("--seed many", "argument --seed: invalid int value: 'many' (see kontrast evaluate --help)"),
        ("--train digit", "no vision data set or file `digit`; did you mean `digits`"),
        ("--test nothing.npz", "no vision data set or file `nothing.npz`"),
        ("--test digits --device gpu", "`--device` must be a device that torch finds here, got 'gpu'; take cpu"),
        ("--label 10%", "no option `--label`; did you mean `--labels`"),
        ("extra", "unrecognized arguments: extra"),
    ],
)
def test_evaluate_refuses_in_one_sentence(
    run: Path, arguments: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sentence in _fails(capsys, run, *arguments.split())


def test_the_run_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "the following arguments are required: RUN (see kontrast evaluate --help)" in _fails(capsys)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "must be a device that torch finds here, got 'cuda'" in _fails(capsys, run, "--device", "cuda")
