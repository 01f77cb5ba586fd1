"""Checkpoints: written whole or not at all, loaded without running code, the newest few kept."""

import os
import pickle
import re
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile, is_zipfile

import torch

from .errors import IncompatibleError

__all__ = ["VERSION", "CheckpointError", "Checkpoints"]

VERSION = 1
_FORMAT = "kontrast-checkpoint"


class CheckpointError(IncompatibleError):
    """A checkpoint that cannot be used: truncated, of another program, of another version, or of another run."""


class Checkpoints:
    """The checkpoints of one run, in a folder of their own.

    A file is written beside its place, synced and renamed: whatever moment the process ends at, what stands under a
    checkpoint's name is whole.

    Args:
        folder: made when first written to.
        keep: how many of the newest stay, >= 1.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep
        self._proven = False

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Write the state after `step` steps and remove what is older than the newest `keep`.

        Raises:
            OSError: if it cannot be written; what was there before stays as it was.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step-{step:09d}.pt"
        aside = path.with_suffix(".part")
        for stray in self.folder.glob("step-*.part"):  # left by a process that was killed while writing
            stray.unlink()
        try:
            with aside.open("wb") as handle:
                torch.save({"format": _FORMAT, "version": VERSION, **state}, handle)
                handle.flush()
                os.fsync(handle.fileno())
            if not self._proven:  # what could not be read back is found out now, not after a week
                _read(aside)
                self._proven = True
            aside.replace(path)
        except pickle.UnpicklingError as error:
            aside.unlink(missing_ok=True)
            raise CheckpointError(
                "the state of every part must be tensors and plain values (numbers, strings, lists, dicts), or a "
                f"checkpoint could not be loaded without running code; found: {' '.join(str(error).split())[:300]}"
            ) from error
        except RuntimeError as error:  # torch's writer reports a full disk so
            aside.unlink(missing_ok=True)
            raise OSError(f"{path} could not be written: {error}") from error
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        _sync(self.folder)
        for old in self.paths()[: -self.keep]:
            old.unlink()
        return path

    def paths(self) -> list[Path]:
        """Return the checkpoints there are, oldest first."""
        return sorted(path for path in self.folder.glob("step-*.pt") if re.fullmatch(r"step-\d{9}", path.stem))

    def load(self, path: Path) -> dict[str, Any]:
        """Read a checkpoint onto the CPU. Nothing in it is executed.

        Raises:
            CheckpointError: if it is not a whole checkpoint of this version.
        """
        older = [other.name for other in self.paths() if other.name < path.name]
        remedy = f"remove it to resume from {older[-1]}" if older else "remove it to start anew"
        damaged = f"{path} must be a whole checkpoint, and is truncated or damaged; {remedy}"
        if not path.is_file():
            raise CheckpointError(f"{path} must be readable by every process, and is not here; share the run's folder")
        if not is_zipfile(path):  # asked first: torch takes another file for an old pickle
            raise CheckpointError(damaged)
        try:
            with ZipFile(path) as archive:
                if archive.testzip() is not None:  # torch does not look at the checksums it writes
                    raise CheckpointError(damaged)
            state = _read(path)
        except pickle.UnpicklingError as error:
            raise CheckpointError(
                f"{path} holds objects that only running code could restore, which is refused; {remedy}"
            ) from error
        except CheckpointError:
            raise
        except (RuntimeError, EOFError, BadZipFile, ValueError, KeyError) as error:
            raise CheckpointError(damaged) from error
        if not isinstance(state, dict) or state.get("format") != _FORMAT:
            raise CheckpointError(
                f"{path} must be a checkpoint of kontrast, and was written by something else; {remedy}"
            )
        if state.get("version") != VERSION:
            raise CheckpointError(
                f"{path} must be a checkpoint of version {VERSION}, got version {state.get('version')}; "
                "resume with the kontrast that wrote it"
            )
        missing = sorted(
            {"step", "method", "optimizer", "augmenter", "generators", "totals", "identity"} - state.keys()
        )
        if missing:
            raise CheckpointError(f"{path} must be a whole checkpoint, and lacks {', '.join(missing)}; {remedy}")
        return state


def _read(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _sync(folder: Path) -> None:
    """Make a rename in `folder` last through a power cut, where the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders, and needs no such sync
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
