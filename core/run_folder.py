"""The folder a run writes: config.json, environment.jsonl, metrics.jsonl, and the encoders as safetensors."""

import json
import math
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from warnings import warn

import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from .checkpoint import Checkpoints
from .distributed import broadcast_object, rank, world_size
from .encoder import unwrapped
from .errors import KontrastWarning, RunFolderError
from .method import Method

__all__ = ["CheckpointWarning", "RunFolder"]


class CheckpointWarning(KontrastWarning):
    """A checkpoint could not be written; the run goes on."""


class RunFolder:
    """Writes on the first process alone; without a path it writes nothing.

    Args:
        out: the folder, made by `create`.
        config: what the run is, to be written there.
    """

    def __init__(self, out: str | Path | None, config: dict[str, Any]) -> None:
        self.path = None if out is None else Path(out)
        self._config = config
        self._unwritten = ""
        self._warned = False
        self._start: int | None = None  # the step that this start begins with, until it is written down

    def claim(self, *, replace_unstarted: bool = False) -> None:
        """Make the folder; what a run writes comes with its first step, so that one that fails before leaves no run.

        Args:
            replace_unstarted: take over a folder whose run has not saved a checkpoint yet.

        Raises:
            RunFolderError: if it holds a run already, or cannot be made.
        """
        path = self.path
        if path is None:
            return
        refusal = ""
        if rank() == 0:
            finished = any(path.glob("encoder*.safetensors"))
            if (path / "config.json").exists() and (finished or not replace_unstarted):
                refusal = (
                    f"`out` must be a folder without a run, and {path} holds one; choose another, remove it, "
                    "or resume it (resume='auto', --resume auto)"
                )
            else:
                try:
                    path.mkdir(parents=True, exist_ok=True)
                except OSError as error:
                    refusal = f"`out` must be a folder that can be made, got {path}: {error.strerror}; choose another"
        refusal = broadcast_object(refusal)  # all ranks leave together
        if refusal:
            raise RunFolderError(refusal)
        self._start = 0

    def _begin(self, path: Path) -> None:
        """Write what stands before the first step: at the run's beginning its config, at each start when and how."""
        if self._start == 0:
            _write_json(path / "config.json", self._config)
            (path / "metrics.jsonl").write_text("", encoding="utf-8")
        now = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "step": self._start,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "command": sys.argv,
            "processes": world_size(),
            "threads": torch.get_num_threads(),
            "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "versions": {name: version(name) for name in ("kontrast", "numpy", "torch")},
        }
        with (path / "environment.jsonl").open("a" if self._start else "w", encoding="utf-8") as starts:
            starts.write(json.dumps(now) + "\n")
        self._start = None

    def reopen(self, step: int) -> None:
        """Go on with the metrics from `step`: what an interrupted run wrote of later steps is dropped."""
        if self.path is None or rank() != 0:
            return
        self._start = step
        file = self.path / "metrics.jsonl"
        kept = end = 0
        if file.exists():
            with file.open("r+b") as lines:  # line by line: after weeks there are millions
                for line in lines:
                    done = _step(line)
                    if done is None or done >= step:
                        break
                    kept, end = kept + 1, end + len(line)
                lines.truncate(end)
                os.fsync(lines.fileno())
        if kept < step:
            warn(
                f"{file} holds {kept} of the {step} steps that are done; what is missing cannot be restored",
                CheckpointWarning,
                stacklevel=2,
            )

    def log(self, row: dict[str, float]) -> None:
        """Append one step's metrics as a line of JSON; what a full disk refuses is kept and tried again."""
        if self.path is None or rank() != 0:
            return
        finite = {name: value if math.isfinite(value) else None for name, value in row.items()}  # JSON has no NaN
        self._unwritten += json.dumps(finite) + "\n"
        try:
            self._append(self.path)
        except OSError as error:
            if not self._warned:
                self._warned = True
                warn(
                    f"metrics could not be written ({error}); they are kept and tried again; make room on the disk",
                    CheckpointWarning,
                    stacklevel=2,
                )

    def _append(self, path: Path) -> None:
        if self._start is not None:
            self._begin(path)
        if not self._unwritten:
            return
        handle = os.open(path / "metrics.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            while self._unwritten:  # a disk that fills takes a part
                self._unwritten = self._unwritten[os.write(handle, self._unwritten.encode()) :]  # ASCII
        finally:
            os.close(handle)
        self._warned = False

    def save_checkpoint(self, checkpoints: Checkpoints, step: int, state: dict[str, Any]) -> bool:
        """Save, and where the disk refuses say so and go on: the checkpoint before it is whole.

        Returns:
            Whether it was saved.
        """
        try:
            if self.path is not None:  # a checkpoint counts on the metrics before it
                self._append(self.path)
                _sync_file(self.path / "metrics.jsonl")
            checkpoints.save(step, state)
        except OSError as error:
            left = checkpoints.paths()
            before = f"the newest is still {left[-1].name}" if left else "there is none yet"
            warn(
                f"no checkpoint could be written after step {step} ({error}); {before}; make room on the disk",
                CheckpointWarning,
                stacklevel=2,
            )
            return False
        return True

    def save_encoders(self, method: Method) -> None:
        """Write encoder.safetensors, or with several towers encoder-NAME.safetensors each."""
        if self.path is None or rank() != 0:
            return
        for name, encoder in method.encoders.items():
            file = "encoder.safetensors" if len(method.encoders) == 1 else f"encoder-{name}.safetensors"
            weights = unwrapped(encoder).state_dict()  # as the user's own module names them
            # Tensors alone: the format holds no other state. Cloned: it refuses tensors that share memory (tied ones).
            tensors = {
                key: value.detach().cpu().contiguous().clone()
                for key, value in weights.items()
                if isinstance(value, Tensor)
            }
            aside = self.path / f"{file}.part"
            try:
                aside.write_bytes(save(tensors))  # `save_file` makes files that their owner alone may read
                _sync_file(aside)
                aside.replace(self.path / file)
            except (OSError, SafetensorError) as error:
                aside.unlink(missing_ok=True)
                raise RunFolderError(
                    f"the encoder could not be written to {self.path / file} ({error}); make room and resume the run"
                ) from error


def _step(line: bytes) -> int | None:
    """Return the step of a line of metrics; None: it is not whole (cut off in mid-word, or lost in a power cut)."""
    try:
        row = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return row["step"] if isinstance(row, dict) else None


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, default=str) + "\n", encoding="utf-8")


def _sync_file(path: Path) -> None:
    """Have a file on disk, if it is there."""
    if path.exists():
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
