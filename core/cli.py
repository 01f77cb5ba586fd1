"""The command line: list, describe, plugins (light: no torch); train, and what is done with a run afterwards.

Whatever is wrong with the input is one sentence on standard error and exit status 2; KONTRAST_TRACEBACK=1 shows the
traceback before it.
"""

import argparse
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import NoReturn

from .errors import InvalidValueError, KontrastError, KontrastWarning, UnknownNameError
from .listing_commands import list_names, list_plugins
from .registry import KINDS

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        arguments: as in `sys.argv[1:]`, which is the default.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    in_python, warnings.formatwarning = warnings.formatwarning, _warning
    try:
        if given[:1] == ["train"]:
            from .train_command import train  # imports torch

            return train(given[1:])
        if given[:1] == ["evaluate"]:
            from .evaluate_command import evaluate

            return evaluate(given[1:])
        if given[:1] in (["embed"], ["export"]):
            from .saved_commands import COMMANDS

            return COMMANDS[given[0]](given[1:])
        if given[:1] == ["check"]:
            from .testing.command import check

            return check(given[1:])
        return _light(given)
    except BrokenPipeError:  # whoever read us (`| head`) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KontrastError as error:
        if os.environ.get("KONTRAST_TRACEBACK") == "1":
            traceback.print_exception(error)
        sys.stderr.write(_sentence(str(error)))
        return 2
    finally:
        warnings.formatwarning = in_python


def _warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Return ours as a sentence: where in our code it was given tells a user of the command line nothing."""
    if issubclass(category, KontrastWarning):
        return _sentence(str(message))
    return f"{filename}:{lineno}: {category.__name__}: {message}\n"


def _sentence(text: str) -> str:
    """Return a line that says who speaks."""
    rank = os.environ.get("RANK", "0")
    return f"kontrast: {text}\n" if rank == "0" else f"kontrast, rank {rank}: {text}\n"


COMMANDS = ("check", "describe", "embed", "evaluate", "export", "list", "plugins", "train")


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, like everything else here."""

    def error(self, message: str) -> NoReturn:
        raise InvalidValueError(f"{message} (see {self.prog} --help)")


def _light(given: list[str]) -> int:
    kinds = sorted(kind.kind for kind in KINDS.values())
    if given and not given[0].startswith("-") and given[0] not in COMMANDS:
        raise UnknownNameError("command", given[0], COMMANDS)
    parser = _Parser("kontrast", description="Contrastive and self-supervised learning, by plugins.")
    commands = parser.add_subparsers(title="commands", dest="command", required=True)
    listing = commands.add_parser("list", help="what is registered, by kind")
    listing.add_argument("kind", nargs="?", help=f"one of {', '.join(kinds)}")
    describing = commands.add_parser(
        "describe", help="one registered name: parameters, paper, provider, what it goes with"
    )
    describing.add_argument("name")
    plugins = commands.add_parser("plugins", help="the plugins found, and what became of each; status 1 if one failed")
    plugins.add_argument("--json", action="store_true", help="as JSON")
    plugins.add_argument("--load", action="store_true", help="also import and make what they provide (takes a while)")
    commands.add_parser("train", help="train a method: kontrast train METHOD --help", add_help=False)
    for name, summary in (
        ("check", "does a plugin keep its promises: kontrast check --help"),
        ("evaluate", "judge a run's encoder: kontrast evaluate --help"),
        ("embed", "a run's vectors, as .npz: kontrast embed --help"),
        ("export", "an encoder for other programs: kontrast export --help"),
    ):
        commands.add_parser(name, help=summary, add_help=False)
    options = parser.parse_args(given)
    if options.command == "describe":
        from .describe_command import describe  # imports what it describes

        return describe(options.name)
    if options.command == "list":
        return list_names(options.kind)
    return list_plugins(as_json=options.json, load=options.load)
