"""`kontrast list` and `kontrast plugins`. Light: no torch."""

import inspect
import json
import os
import sys
import traceback
import warnings
from collections.abc import Iterable
from contextlib import redirect_stdout
from dataclasses import replace
from typing import Any

from .errors import UnknownNameError
from .records import Record
from .registry import KINDS, Plugin, PluginWarning, registry
from .table import print_table

__all__ = ["list_names", "list_plugins"]


def list_names(kind: str | None) -> int:
    """Print what is registered, by kind and name, and return the exit status.

    Args:
        kind: one of them alone; a plural will do.

    Raises:
        UnknownNameError: if there is no such kind.
    """
    kinds = [record_kind.kind for record_kind in KINDS.values()]
    wanted = None if kind is None else kind.removesuffix("s")
    if wanted is not None and wanted not in kinds:
        raise UnknownNameError("kind", str(kind), kinds)
    rows = []
    for record_kind in KINDS.values():
        if wanted in (None, record_kind.kind):
            for name, providers in sorted(registry().claims(record_kind).items()):
                for plugin, record in sorted(providers, key=lambda claim: claim[0].distribution):
                    # A name that two plugins claim is reached by the longer one alone.
                    shown = name if len(providers) == 1 else f"{plugin.distribution}:{name}"
                    rows.append([record.kind, shown, record.summary, plugin.source])
    print_table(["kind", "name", "what it does", "provided by"], rows)
    return 0


def list_plugins(*, as_json: bool, load: bool) -> int:
    """Print every plugin that was found and what became of it; return 1 if one failed, else 0.

    Args:
        as_json: as a list of objects.
        load: make what the plugins provide, too, as far as it needs no arguments: a factory fails when it is used.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PluginWarning)  # what failed stands in the table
        plugins = registry().plugins
    if load:
        with redirect_stdout(sys.stderr):  # what a plugin prints is no part of the listing
            plugins = tuple(_tried(plugin) for plugin in plugins)
    if os.environ.get("KONTRAST_TRACEBACK") == "1":
        for plugin in plugins:
            if plugin.error is not None:
                traceback.print_exception(plugin.error)
    if as_json:
        print(json.dumps([_described(plugin) for plugin in plugins], indent=2))
    else:
        rows = [
            [plugin.name, plugin.source, plugin.state, f"{plugin.seconds:.2f} s", _outcome(plugin)]
            for plugin in plugins
        ]
        print_table(["plugin", "provided by", "state", "import", "provides, or what is wrong"], rows)
    return int(any(plugin.error is not None for plugin in plugins))


def _tried(plugin: Plugin) -> Plugin:
    from .interfaces import check_made  # imports torch

    for record in plugin.records:
        try:
            make = record.load()
            entries = inspect.signature(make).parameters.values()
            if all(entry.default is not entry.empty or entry.kind in _ANY_NUMBER for entry in entries):
                check_made(record, make())
        except (Exception, SystemExit) as error:  # it is shown
            return replace(plugin, state="failed", stage=f"{record.kind} `{record.name}`", error=error)
    return plugin


_ANY_NUMBER = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _described(plugin: Plugin) -> dict[str, Any]:
    return {
        "name": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "state": plugin.state,
        "stage": plugin.stage,
        "cause": plugin.cause,
        "import_seconds": round(plugin.seconds, 3),
        "provides": [f"{record.kind} {record.name}" for record in plugin.records],
    }


def _outcome(plugin: Plugin) -> str:
    return f"{plugin.stage}: {plugin.cause}" if plugin.error is not None else _summary(plugin.records)


def _summary(records: Iterable[Record]) -> str:
    """Return names by kind, or of a kind with many their number."""
    names: dict[str, list[str]] = {}
    for record in records:
        names.setdefault(record.kind, []).append(record.name)
    return "; ".join(
        f"{len(some)} {kind}s" if len(some) > 3 else f"{kind}{'s' * (len(some) > 1)} {', '.join(sorted(some))}"
        for kind, some in names.items()
    )
