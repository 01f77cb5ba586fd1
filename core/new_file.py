"""Files that are written whole or not at all, and never over another."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from .errors import InvalidValueError, KontrastError

__all__ = ["FileThereError", "refuse_existing", "write_new"]


class FileThereError(KontrastError, FileExistsError):
    """A file exists already and would be overwritten."""


def refuse_existing(path: Path) -> None:
    """Look before a long computation whether its result can be written.

    Raises:
        FileThereError: if there is something at `path`.
    """
    if path.exists():
        raise FileThereError(f"`--out` must be a new file, and {path} exists; choose another name or remove it")


def write_new(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file beside its place and rename it; its folder is made if need be.

    Args:
        path: where to.
        write: writes the content to an open file.

    Raises:
        FileThereError: if there is something at `path`.
        InvalidValueError: if it cannot be written.
    """
    refuse_existing(path)
    aside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("xb") as handle:
            write(handle)
            handle.flush()
            os.fsync(handle.fileno())
        refuse_existing(path)
        aside.replace(path)
    except FileThereError:
        raise
    except OSError as error:
        raise InvalidValueError(f"{path} could not be written: {error}; choose another place for `--out`") from error
    finally:
        with suppress(OSError):  # it is gone, or there is no such folder
            aside.unlink()
