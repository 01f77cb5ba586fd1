"""Packages that an extra brings: imported where they are used, missed with a sentence."""

from importlib import import_module
from typing import Any

from .errors import MissingExtraError

__all__ = ["optional_import"]


def optional_import(module: str, *, extra: str, purpose: str) -> Any:
    """Import a module that only some users need.

    Args:
        module: its full name.
        extra: what to install to have it, e.g. `"kontrast[eval]"`.
        purpose: what needs it, to begin the sentence with: "the linear probe".

    Raises:
        MissingExtraError: if it is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{purpose} needs the package `{error.name}`, which is not installed; run `pip install '{extra}'`"
        ) from error
