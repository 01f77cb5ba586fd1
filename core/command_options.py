"""Options of the commands on saved runs: whatever cannot be read is one sentence."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch

from .errors import InvalidValueError, UnknownNameError

__all__ = ["chosen_device", "read_options", "separated"]


def read_options(
    command: str, description: str, options: Mapping[str, Mapping[str, Any]], given: Sequence[str]
) -> argparse.Namespace:
    """Return the options of `kontrast COMMAND RUN [options]`, the run's folder as `run`; help leaves the process.

    Args:
        command: its name.
        description: for its help.
        options: by name, e.g. `--out`, what `ArgumentParser.add_argument` takes.
        given: the command line behind the command's name.

    Raises:
        UnknownNameError: for an unknown option; near names are offered.
        InvalidValueError: if something is missing or of another type.
    """
    parser = _Parser(f"kontrast {command}", description=description, allow_abbrev=False)
    parser.add_argument("run", metavar="RUN", help="a folder that `kontrast train` wrote")
    for name, settings in options.items():
        parser.add_argument(name, **settings)
    for token in given:
        option = token.split("=")[0]
        if option.startswith("--") and option not in (*options, "--help"):
            raise UnknownNameError("option", option, [*options, "--help"])
    return parser.parse_args(list(given))


def chosen_device(name: str) -> torch.device:
    """Return the device called `name`; `auto`: a GPU where there is one.

    Raises:
        InvalidValueError: if there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # the second where torch is built without it
        raise InvalidValueError(f"`--device` must be a device that torch finds here, got {name!r}; take cpu") from error


def separated(text: str, option: str) -> list[str]:
    """Return the parts of a list written with commas, each once.

    Args:
        text: what was given.
        option: its name, for the error.

    Raises:
        InvalidValueError: if there are none.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise InvalidValueError(f"`{option}` must name at least one thing, got {text!r}; separate several by commas")
    return list(dict.fromkeys(parts))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InvalidValueError(f"the command line cannot be read: {message} (see {self.prog} --help)")
