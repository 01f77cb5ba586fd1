"""Exported encoders, read again in a process that has no kontrast."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_run import make_run
from torch import Tensor, nn

import kontrast as kt
from kontrast.cli import main
from kontrast.export import export
from kontrast.saved_run import open_run

# The rows of each batch in `inputs.npz`, as the file named by the second argument gives them.
READERS = {
    "torch-export": """
import torch
program = torch.export.load(file).module()
def vectors(images):
    return program(torch.from_numpy(images)).detach().numpy()
""",
    "onnx": """
import onnxruntime
session = onnxruntime.InferenceSession(file)
def vectors(images):
    return session.run(["representations"], {"inputs": images})[0]
assert "torch" not in sys.modules
""",
    "safetensors": """
from safetensors.numpy import load_file, save_file
save_file(load_file(file), folder + "/read.safetensors")
def vectors(images):
    return images
""",
}
SCRIPT = """
import sys
sys.modules["kontrast"] = None  # an import of it would fail
folder, file = sys.argv[1:]
import numpy
{reader}
with numpy.load(folder + "/inputs.npz") as batches:
    numpy.savez(folder + "/vectors.npz", **{{name: vectors(batches[name]) for name in batches}})
assert sys.modules["kontrast"] is None
assert not [name for name in sys.modules if name.startswith("kontrast.")]
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("exported"))


def _fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["export", *(str(argument) for argument in arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    return captured.err


@pytest.mark.parametrize("to", READERS)
def test_an_exported_encoder_gives_the_same_vectors_elsewhere(
    to: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "encoder.file"
    assert main(["export", str(run), "--to", to, "--out", str(file)]) == 0
    shape = "" if to == "safetensors" else ", inputs float32 [B, 1, 8, 8],"
    captured = capsys.readouterr()
    assert captured.out == f"encoder `small-cnn`{shape} in {file}\n"
    assert captured.err == ""
    generator = torch.Generator().manual_seed(0)
    batches = {str(size): torch.rand(size, 1, 8, 8, generator=generator) for size in (1, 2, 7)}
    np.savez(tmp_path / "inputs.npz", **{name: batch.numpy() for name, batch in batches.items()})  # type: ignore[arg-type]
    script = SCRIPT.format(reader=READERS[to])
    command = [sys.executable, "-P", "-c", script, str(tmp_path), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    encoder = open_run(run).encoder
    with np.load(tmp_path / "vectors.npz") as vectors:
        for name, batch in batches.items():
            if to != "safetensors":
                expected = encoder(batch).detach().numpy()
                assert expected.std() > 1e-3
                np.testing.assert_allclose(vectors[name], expected, rtol=1e-5, atol=1e-6)
    if to == "safetensors":
        from safetensors import safe_open
        from safetensors.torch import load_file

        read, own = load_file(tmp_path / "read.safetensors"), encoder.state_dict()
        assert read.keys() == own.keys()
        assert all(torch.equal(read[name], own[name]) and read[name].dtype == own[name].dtype for name in own)
        with safe_open(file, "pt") as opened:
            assert json.loads(opened.metadata()["encoder"]) == {"name": "small-cnn", "in_channels": 1, "width": 4}


def test_export_refuses_in_one_sentence(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    there, new = tmp_path / "there", tmp_path / "new"
    there.write_text("mine")
    known = "Known: onnx, safetensors, torch-export"
    assert f"no format `onxx`; did you mean `onnx`? {known}" in _fails(capsys, run, "--to", "onxx", "--out", new)
    assert f"{there} exists; choose another name" in _fails(capsys, run, "--to", "safetensors", "--out", there)
    assert there.read_text() == "mine"
    assert "required: --to" in _fails(capsys, run, "--out", new)
    assert "no vision data set or file `digit`" in _fails(capsys, run, "--to=onnx", "--out", new, "--data", "digit")
    for package in ("onnx", "onnxscript"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            assert (
                f"export to ONNX needs the package `{package}`, which is not installed; run `pip install "
                "'kontrast[onnx]'`" in _fails(capsys, run, "--to", "onnx", "--out", new)
            )
    assert [file.name for file in tmp_path.iterdir()] == ["there"]


class _Tokens(nn.Module):
    """Reads a mapping of tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 3)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        mask = inputs["mask"][:, :, None].float()
        rows: Tensor = (self.table(inputs["tokens"]) * mask).sum(1) / mask.sum(1)
        return rows


def test_an_encoder_of_several_tensors(tmp_path: Path) -> None:
    encoder = _Tokens().eval()

    def batch(size: int) -> dict[str, Tensor]:
        tokens = torch.randint(9, (size, 5), generator=torch.Generator().manual_seed(size))
        return {"tokens": tokens, "mask": torch.arange(5) < 1 + tokens[:, :1] % 5}

    with (tmp_path / "tokens.pt2").open("wb") as handle:
        export(encoder, "torch-export", batch(2))(handle)
    read = torch.export.load(tmp_path / "tokens.pt2").module()
    for size in (1, 4):
        torch.testing.assert_close(read(batch(size)), encoder(batch(size)))


class _Counts(nn.Module):
    """Cannot be traced: what it does depends on the values."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs[: int(inputs.sum())] if inputs.sum() > 3 else inputs


def test_what_cannot_be_exported_is_refused() -> None:
    with pytest.raises(kt.IncompatibleError, match="_Counts cannot be exported to a program for any batch size: "):
        export(_Counts(), "torch-export", torch.ones(2, 3))
    with pytest.raises(kt.IncompatibleError, match="must be a tensor or a mapping of tensors to be exported, got list"):
        export(nn.Identity(), "torch-export", [torch.ones(2, 3)])
    with pytest.raises(kt.UnknownNameError, match="no format `onxx`"):
        export(nn.Identity(), "onxx")


def test_without_a_name_an_export_goes_into_the_runs_folder(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(run), "--to", "safetensors"]) == 0
    assert f"in {run / 'exported.safetensors'}" in capsys.readouterr().out
    assert "exported.safetensors exists; choose another name" in _fails(capsys, str(run), "--to", "safetensors")
    (run / "exported.safetensors").unlink()
