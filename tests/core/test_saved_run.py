"""A run rebuilt from its folder, and its representations as a file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_run import TEST, TRAIN, make_run, save_images
from torch import nn

import kontrast as kt
from kontrast.adapters.vision import SmallCNN
from kontrast.cli import main
from kontrast.evaluate import embed
from kontrast.plugins.objectives import InfoNCE
from kontrast.saved_run import open_run


class Twice(kt.Augmenter):
    """Two copies, one of them shifted."""

    def forward(self, batch: kt.Batch, draws: kt.Draws) -> list[kt.View]:
        return [kt.View.of(batch, batch.inputs), kt.View.of(batch, batch.inputs.roll(1, dims=1))]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("saved"))


def _fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    return captured.err


def test_a_run_is_rebuilt_as_it_was_trained(run: Path) -> None:
    opened = open_run(str(run))
    by_hand = kt.load_encoder(SmallCNN(in_channels=1, width=4), run)
    assert isinstance(opened.encoder, SmallCNN)
    assert not opened.encoder.training
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(opened.encoder(images), by_hand(images))
    torch.manual_seed(0)
    assert not torch.equal(SmallCNN(in_channels=1, width=4).eval()(images), by_hand(images))
    splits = opened.load()
    assert (len(splits.train), len(splits.test)) == (TRAIN, TEST)
    assert opened.config["method"]["name"] == "simclr"


def _edit(change: Callable[[dict[str, object]], object]) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        change(config)
        (folder / "config.json").write_text(json.dumps(config))

    return edit


@pytest.mark.parametrize(
    ("damage", "error", "sentence"),
    [
        (lambda run: (run / "config.json").unlink(), kt.InvalidValueError, r"must hold config\.json, and .* does not"),
        (
            lambda run: (run / "config.json").write_text("{"),
            kt.InvalidValueError,
            r"config\.json must be JSON as a run",
        ),
        (lambda run: (run / "config.json").write_text("[]"), kt.InvalidValueError, "JSON object .*, got a list"),
        (
            lambda run: [path.unlink() for path in (run / "encoder.safetensors", *run.glob("checkpoints/step*"))],
            kt.IncompatibleError,
            r"must hold encoder\.safetensors, .* or a checkpoint, and holds neither; let it come .*--resume auto",
        ),
        (
            lambda run: [(run / "encoder.safetensors").unlink(), *(p.write_bytes(b"PK") for p in run.glob("*/step*"))],
            kt.IncompatibleError,
            r"step-000000002\.pt must be a whole checkpoint, and is truncated or damaged",
        ),
        (
            lambda run: (run / "encoder.safetensors").write_bytes(b"none"),
            kt.InvalidValueError,
            r"encoder\.safetensors must hold weights, got: ",
        ),
        (
            lambda run: [(run / f"encoder-{name}.safetensors").touch() for name in ("text", "image")],
            kt.IncompatibleError,
            r"has several \(encoder-image\.safetensors, encoder-text\.safetensors\); .* kontrast\.load_encoder",
        ),
        (
            _edit(lambda config: [config.pop(part) for part in ("adapter", "encoder")]),
            kt.IncompatibleError,
            r"names no adapter, encoder \(a run made in Python\); .* kontrast\.load_encoder",
        ),
        (
            _edit(lambda config: config.update(encoder="SmallCNN()")),
            kt.IncompatibleError,
            r"names no encoder \(a run made in Python\); .* kontrast\.load_encoder",
        ),
        (
            _edit(lambda config: config.update(encoder={"name": "small-cnm", "width": 4})),
            kt.UnknownNameError,
            "no encoder `small-cnm`; did you mean `small-cnn`",
        ),
        (
            _edit(lambda config: config.update(encoder={"name": "small-cnn", "depth": 4})),
            kt.IncompatibleError,
            r"parameters do not fit the encoder `small-cnn` that is installed: .*depth.*; install the version",
        ),
        (
            _edit(lambda config: config.update(encoder={"name": "small-cnn", "in_channels": 1, "width": 5})),
            kt.IncompatibleError,
            "holds another encoder than SmallCNN",
        ),
    ],
)
def test_what_is_no_run_is_refused(
    run: Path, tmp_path: Path, damage: Callable[[Path], object], error: type[Exception], sentence: str
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    damage(copy)
    with pytest.raises(error, match=sentence) as caught:
        open_run(copy)
    assert "\n" not in str(caught.value)


def test_a_run_that_has_not_ended_is_used_as_its_newest_checkpoint_has_it(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    ended = open_run(copy)
    assert (ended.step, ended.note) == (None, "")
    (copy / "encoder.safetensors").unlink()
    opened = open_run(copy)
    assert opened.step == 2
    assert torch.equal(opened.encoder(images), ended.encoder(images))
    note = f"{copy} has not ended; its encoder after step 2, of the newest checkpoint\n"
    for command in (
        ["evaluate", "--probe", "linear"],
        ["embed", "--out", str(tmp_path / "out.npz")],
        ["export", "--to", "safetensors"],
    ):
        assert main([command[0], str(copy), *command[1:]]) == 0
        assert capsys.readouterr().out.startswith(note)
    for folder, step in ((copy, 2), (run, None)):
        assert main(["evaluate", str(folder), "--probe", "linear", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["step"] == step


@pytest.mark.parametrize("average", [False, True])
def test_encoders_are_loaded_from_checkpoints_as_from_the_end(tmp_path: Path, average: bool) -> None:
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))  # no kontrast.Encoder: it is wrapped
    method = kt.Method(encoder, target=kt.Momentum(), sampler=kt.InBatch(), objective=InfoNCE(), average=average)
    kt.Run(
        method, kt.ArrayData(torch.rand(8, 4)), augmenter=Twice(), epochs=2, batch_size=4, out=tmp_path, observers=()
    ).fit()
    newest = tmp_path / "checkpoints" / "step-000000004.pt"
    ours, theirs = (kt.load_encoder(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), path) for path in (newest, tmp_path))
    rows = torch.eye(4)
    assert torch.equal(ours(rows), theirs(rows))
    assert torch.equal(encoder(rows), theirs(rows)) != average
    with pytest.raises(kt.IncompatibleError, match=r"step-000000004.pt holds another encoder than Linear"):
        kt.load_encoder(nn.Linear(4, 3), newest)


def test_a_checkpoint_of_several_encoders_is_refused(tmp_path: Path) -> None:
    towers = {name: nn.Linear(4, 3) for name in ("left", "right")}
    method = kt.Method(towers, sampler=kt.InBatch("cross"), objective=InfoNCE())
    kt.Run(
        method,
        kt.ArrayData(torch.rand(8, 4)),
        augmenter=kt.ToTowers(Twice(), "left", "right"),
        epochs=1,
        warmup_epochs=0,
        batch_size=4,
        out=tmp_path,
        observers=(),
    ).fit()
    with pytest.raises(kt.IncompatibleError, match="holds left, right; let the run end, and load the one you mean"):
        kt.load_encoder(nn.Linear(4, 3), tmp_path / "checkpoints" / "step-000000002.pt")


def test_a_run_made_in_python_is_refused_with_the_remedy(tmp_path: Path) -> None:
    data, augmenter = kt.ArrayData(torch.rand(8, 1, 8, 8)), kt.Identity()
    method = kt.get_record(kt.MethodRecord, "simclr").load()(SmallCNN(in_channels=1, width=2), hidden_size=4)
    kt.Run(method, data, augmenter=augmenter, epochs=1, batch_size=8, out=tmp_path / "run", observers=()).fit()
    with pytest.raises(kt.IncompatibleError, match=r"made in Python.*kontrast\.load_encoder"):
        open_run(tmp_path / "run")


def test_a_folder_that_is_not_there_offers_its_neighbours(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["evaluate"], ["embed", "--out", "x.npz"], ["export", "--to", "onnx", "--out", "x"]):
        assert f"no run folder `{run}n`; did you mean `{run}`?" in _fails(capsys, *command, f"{run}n")
    with pytest.raises(kt.UnknownNameError, match=r"no run folder `nowhere/at/all`\. Known: none"):
        open_run("nowhere/at/all")


def test_embed_writes_every_sample_in_order(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "vectors.npz"
    assert main(["embed", str(run), "--out", str(out)]) == 0
    assert capsys.readouterr().out.startswith(f"train_rows [{TRAIN}, 16], train_ids [{TRAIN}], train_labels [{TRAIN}]")
    opened = open_run(run)
    splits = opened.load()
    with np.load(out) as arrays:
        assert sorted(arrays) == [f"{part}_{what}" for part in ("test", "train") for what in ("ids", "labels", "rows")]
        for part, data in (("train", splits.train), ("test", splits.test)):
            expected = embed(opened.encoder, data)
            assert expected.labels is not None
            assert np.array_equal(arrays[f"{part}_rows"], expected.rows.numpy())
            assert np.array_equal(arrays[f"{part}_ids"], np.arange(len(data)))
            assert np.array_equal(arrays[f"{part}_labels"], expected.labels.numpy())
    assert [file.name for file in out.parent.iterdir()] == ["vectors.npz"]


def test_embed_writes_what_other_data_have(run: Path, tmp_path: Path) -> None:
    bare = save_images(tmp_path / "bare.npz", train=7, test=0, labels=False)
    assert main(["embed", str(run), "--data", str(bare), "--out", str(tmp_path / "out.npz")]) == 0
    with np.load(tmp_path / "out.npz") as arrays:
        assert {name: arrays[name].shape for name in arrays} == {"train_rows": (7, 16), "train_ids": (7,)}


def test_embed_refuses_in_one_sentence(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = tmp_path / "there.npz"
    there.write_text("mine")
    coloured = save_images(tmp_path / "coloured.npz", channels=3)
    new = tmp_path / "new.npz"
    assert f"must be a new file, and {there} exists" in _fails(capsys, "embed", run, "--out", there)
    assert there.read_text() == "mine"
    assert "must end in .npz, got new.npy" in _fails(capsys, "embed", run, "--out", tmp_path / "new.npy")
    assert "no vision data set or file `digit`" in _fails(capsys, "embed", run, "--out", new, "--data", "digit")
    assert "[B, 1, H, W], got" in _fails(capsys, "embed", run, "--out", new, "--data", coloured)
    assert "no option `--dat`; did you mean `--data`" in _fails(capsys, "embed", run, "--out", new, "--dat", "x")
    assert "required: --out (see kontrast embed --help)" in _fails(capsys, "embed", run)
    assert "`--device` must be a device that torch finds here, got 'gpu'" in _fails(
        capsys, "embed", run, "--out", new, "--device", "gpu"
    )
    assert "could not be written: " in _fails(capsys, "embed", run, "--out", there / "under" / "a-file.npz")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["coloured.npz", "there.npz"]


def test_a_file_that_cannot_be_finished_is_not_there(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def half(handle: object, **arrays: object) -> None:
        handle.write(b"half")  # type: ignore[attr-defined]
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez", half)
    sentence = _fails(capsys, "embed", run, "--out", tmp_path / "out.npz")
    assert "out.npz could not be written: No space left on device; choose another place" in sentence
    assert not list(tmp_path.iterdir())


def test_help_has_one_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("    ") and "{" not in line]
    assert [line.split()[0] for line in lines if "--help" in line] == ["train", "check", "evaluate", "embed", "export"]
    for command in ("evaluate", "embed", "export"):
        with pytest.raises(SystemExit, match="0"):
            main([command, "--help"])
        assert "RUN" in capsys.readouterr().out
