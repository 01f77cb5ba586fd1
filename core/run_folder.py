"""The folder a run writes: config.json, environment.json, metrics.jsonl, and the encoders as safetensors."""

import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from .distributed import rank, world_size
from .errors import IncompatibleError, RunFolderError
from .method import Method

__all__ = ["RunFolder", "load_encoder"]


class RunFolder:
    """Writes on the first process alone; without a path it writes nothing."""

    def __init__(self, path: Path | None, metrics: IO[str] | None) -> None:
        self.path = path
        self._metrics = metrics

    @classmethod
    def create(cls, out: str | Path | None, config: dict[str, Any]) -> "RunFolder":
        """Make the folder and write what is known before the first step.

        Raises:
            RunFolderError: if it holds a run already.
        """
        if out is None:
            return cls(None, None)
        path = Path(out)
        if rank() != 0:
            return cls(path, None)
        if (path / "config.json").exists():
            raise RunFolderError(
                f"`out` must be a folder without a run, and {path} holds one; choose another or remove it"
            )
        path.mkdir(parents=True, exist_ok=True)
        _write_json(path / "config.json", config)
        _write_json(
            path / "environment.json",
            {
                "python": platform.python_version(),
                "platform": platform.platform(),
                "command": sys.argv,
                "processes": world_size(),
                "threads": torch.get_num_threads(),
                "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
                "versions": {name: version(name) for name in ("kontrast", "numpy", "torch")},
            },
        )
        return cls(path, (path / "metrics.jsonl").open("w", encoding="utf-8"))

    def log(self, row: dict[str, float]) -> None:
        """Append one step's metrics as a line of JSON."""
        if self._metrics is not None:
            self._metrics.write(json.dumps(row) + "\n")
            self._metrics.flush()

    def save_encoders(self, method: Method) -> None:
        """Write encoder.safetensors, or with several towers encoder-NAME.safetensors each."""
        if self.path is None or rank() != 0:
            return
        for name in method.towers:
            file = "encoder.safetensors" if len(method.towers) == 1 else f"encoder-{name}.safetensors"
            state = {
                key: value.contiguous().cpu()
                for key, value in method.towers[name].get_submodule("encoder").state_dict().items()
            }
            save_file(state, self.path / file)

    def close(self) -> None:
        """Close the metrics file."""
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None


def load_encoder(encoder: nn.Module, path: str | Path) -> nn.Module:
    """Load the weights that a run saved into an encoder of the same shape, and return it in evaluation mode.

    Args:
        encoder: made as for the run.
        path: a run's folder, or the safetensors file.

    Raises:
        IncompatibleError: if names or shapes of the weights differ.
    """
    file = Path(path)
    if file.is_dir():
        file = file / "encoder.safetensors"
    saved, own = load_file(file), encoder.state_dict()
    wrong = sorted(
        name
        for name in saved.keys() | own.keys()
        if name not in saved or name not in own or saved[name].shape != own[name].shape
    )
    if wrong:
        raise IncompatibleError(
            f"{file} holds another encoder than {type(encoder).__name__}: "
            f"{', '.join(wrong[:5])}{' ...' if len(wrong) > 5 else ''} differ; make the encoder as for the run"
        )
    encoder.load_state_dict(saved)
    return encoder.eval()


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, default=str) + "\n", encoding="utf-8")
