"""The command line: list, describe, plugins (light: no torch); train, and what is done with a run afterwards.

Whatever is wrong with the input is one sentence on standard error and exit status 2.
"""

import argparse
import inspect
import json
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from .errors import InvalidValueError, KontrastError, UnknownNameError
from .records import Record
from .registry import KINDS, Plugin, registry
from .table import print_table

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        arguments: as in `sys.argv[1:]`, which is the default.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
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
        rank = os.environ.get("RANK", "0")
        sys.stderr.write(f"kontrast: {error}\n" if rank == "0" else f"kontrast, rank {rank}: {error}\n")
        return 2


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
    describing = commands.add_parser("describe", help="one registered name: parameters, paper, provider")
    describing.add_argument("name")
    plugins = commands.add_parser("plugins", help="the plugins found, and what became of each")
    plugins.add_argument("--json", action="store_true", help="as JSON")
    commands.add_parser("train", help="train a method: kontrast train METHOD --help", add_help=False)
    for name, summary in (
        ("check", "does a plugin keep its promises: kontrast check --help"),
        ("evaluate", "judge a run's encoder: kontrast evaluate --help"),
        ("embed", "a run's vectors, as .npz: kontrast embed --help"),
        ("export", "an encoder for other programs: kontrast export --help"),
    ):
        commands.add_parser(name, help=summary, add_help=False)
    options = parser.parse_args(given)
    if options.command == "list":
        return _list(options.kind, kinds)
    if options.command == "describe":
        return _describe(options.name)
    return _plugins(as_json=options.json)


def _list(kind: str | None, kinds: list[str]) -> int:
    wanted = None if kind is None else kind.removesuffix("s")
    if wanted is not None and wanted not in kinds:
        raise UnknownNameError("kind", str(kind), kinds)
    rows = []
    for record_kind in KINDS.values():
        if wanted in (None, record_kind.kind):
            claims = _claims(record_kind)
            names = [record.name for _, record in claims]
            for plugin, record in claims:
                # A name that two plugins claim is reached by the longer one alone.
                name = record.name if names.count(record.name) == 1 else f"{plugin.distribution}:{record.name}"
                rows.append([record.kind, name, record.summary, f"{plugin.distribution} {plugin.version}"])
    print_table(["kind", "name", "what it does", "provided by"], rows)
    return 0


def _describe(name: str) -> int:
    found = [
        (plugin, record)
        for kind in KINDS.values()
        for plugin, record in _claims(kind)
        if name in (record.name, f"{plugin.distribution}:{record.name}")
    ]
    if not found:
        known = {record.name for kind in KINDS.values() for _, record in _claims(kind)}
        raise UnknownNameError("registered name", name, known)
    from docstring_parser import parse

    for plugin, record in found:
        factory = record.load()
        text = parse(inspect.getdoc(factory) or "")
        meaning = {parameter.arg_name: " ".join((parameter.description or "").split()) for parameter in text.params}
        print(f"{record.kind} {record.name}: {record.summary}")
        for label, value in (
            ("paper", record.paper),
            ("provided by", f"{plugin.distribution} {plugin.version}, plugin {plugin.name}"),
            ("made by", f"{factory.__module__}.{factory.__qualname__}"),
        ):
            if value:
                print(f"  {label}: {value}")
        rows = [
            [entry.name, _type_name(entry.annotation), _default(entry), meaning.get(entry.name, "")]
            for entry in record.signature().parameters.values()
        ]
        if rows:
            print_table(["parameter", "type", "default", "meaning"], rows)
    return 0


def _plugins(*, as_json: bool) -> int:
    rows: list[dict[str, Any]] = [
        {
            "name": plugin.name,
            "distribution": plugin.distribution,
            "version": plugin.version,
            "state": plugin.state,
            "cause": "" if plugin.error is None else f"{plugin.stage}: {type(plugin.error).__name__}: {plugin.error}",
            "provides": [f"{record.kind} {record.name}" for record in plugin.records],
        }
        for plugin in registry().plugins
    ]
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        columns = ["name", "distribution", "version", "state", "provides"]
        print_table(
            columns, [[*[str(row[c]) for c in columns[:4]], row["cause"] or ", ".join(row["provides"])] for row in rows]
        )
    return 0


def _claims(kind: type[Record]) -> list[tuple[Plugin, Record]]:
    """Return every record of a kind with the plugin that provides it, by name."""
    claims = [(plugin, record) for plugin in registry().plugins for record in plugin.records if type(record) is kind]
    return sorted(claims, key=lambda claim: (claim[1].name, claim[0].distribution))


def _type_name(annotation: Any) -> str:
    if annotation is inspect.Parameter.empty:
        return ""
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")


def _default(parameter: inspect.Parameter) -> str:
    return "required" if parameter.default is inspect.Parameter.empty else repr(parameter.default)
