"""The registry: finds plugins by entry points, loads each on its own, and keeps the records they provide.

pluggy's own loader is not used: it stops at the first broken plugin, drops the second of two with one name in
silence, and takes the file system's order. Here a plugin that fails is recorded with stage and cause and the others
load; the order is that of names; two claims on one name are an error that names both.
"""

import os
import re
import warnings
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from typing import Any, TypeVar

import pluggy

from . import hookspec
from .errors import InvalidValueError, PluginError, UnknownNameError
from .records import (
    AdapterRecord,
    AugmenterRecord,
    EncoderRecord,
    MethodRecord,
    ObjectiveRecord,
    ObserverRecord,
    OptimizerRecord,
    Record,
    SamplerRecord,
)

__all__ = ["KINDS", "Plugin", "PluginWarning", "Registry", "get_record", "get_records", "registry"]

KINDS: dict[str, type[Record]] = {
    "kontrast_methods": MethodRecord,
    "kontrast_objectives": ObjectiveRecord,
    "kontrast_samplers": SamplerRecord,
    "kontrast_encoders": EncoderRecord,
    "kontrast_augmenters": AugmenterRecord,
    "kontrast_adapters": AdapterRecord,
    "kontrast_observers": ObserverRecord,
    "kontrast_optimizers": OptimizerRecord,
}

R = TypeVar("R", bound=Record)


class PluginWarning(UserWarning):
    """A plugin could not be loaded; what others provide is not affected."""


@dataclass(frozen=True)
class Plugin:
    """One entry point of the group `kontrast` and what became of it.

    `state` is loaded, disabled or failed; a failed one has the `stage` (name, import, hooks, records) and the `error`.
    """

    name: str
    distribution: str
    version: str
    state: str
    stage: str = ""
    error: BaseException | None = None
    records: tuple[Record, ...] = ()

    def __str__(self) -> str:
        text = f"plugin `{self.name}` ({self.distribution} {self.version})"
        if self.error is None:
            return f"{text} {self.state}"
        return (
            f"{text} failed at {self.stage}: {type(self.error).__name__}: {self.error}; "
            f"mend it or set KONTRAST_DISABLE_PLUGINS={self.name}"
        )


class Registry:
    """The plugins of this environment and the records they provide.

    Args:
        allow: names of the plugins to load beside kontrast's own; None: all.
        block: names of plugins that are not even imported.
    """

    def __init__(self, *, allow: Collection[str] | None = None, block: Collection[str] = ()) -> None:
        self._manager = pluggy.PluginManager("kontrast")
        self._manager.add_hookspecs(hookspec)
        found: dict[str, list[EntryPoint]] = {}
        for point in entry_points(group="kontrast"):
            found.setdefault(point.name, []).append(point)
        self.plugins: tuple[Plugin, ...] = tuple(
            plugin for _, points in sorted(found.items()) for plugin in self._load(points, allow, block)
        )
        failed = {str(plugin.error): plugin for plugin in self.plugins if plugin.error is not None}
        for plugin in failed.values():  # two that claim one name share their error
            warnings.warn(str(plugin), PluginWarning, stacklevel=2)

    def records(self, kind: type[R]) -> dict[str, R]:
        """Return the records of one kind by name, sorted; names that two plugins claim are left out."""
        claims = self._claims(kind)
        return {name: providers[0][1] for name, providers in sorted(claims.items()) if len(providers) == 1}

    def get(self, kind: type[R], name: str) -> R:
        """Return the record of that kind called `name`, or `distribution:name` where two plugins claim it.

        Raises:
            UnknownNameError: if there is none; plugins that failed to load are named, the first one's error chained.
            PluginError: if two plugins claim the name.
        """
        distribution, _, short = name.rpartition(":")
        claims = self._claims(kind)
        providers = [
            (plugin, record)
            for plugin, record in claims.get(short, [])
            if not distribution or _normal(plugin.distribution) == _normal(distribution)
        ]
        if not providers:
            failed = [plugin for plugin in self.plugins if plugin.error is not None]
            hint = f". Not loaded: {'; '.join(map(str, failed))}" if failed else ""
            cause = failed[0].error if failed else None
            raise UnknownNameError(kind.kind, name, claims, hint=hint) from cause
        if len(providers) > 1:
            names = sorted(f"{plugin.distribution}:{short}" for plugin, _ in providers)
            raise PluginError(
                f"{kind.kind} `{short}` is claimed by {' and '.join(str(plugin) for plugin, _ in providers)}; "
                f"write {' or '.join(f'`{choice}`' for choice in names)}"
            )
        return providers[0][1]

    def _claims(self, kind: type[R]) -> dict[str, list[tuple[Plugin, R]]]:
        claims: dict[str, list[tuple[Plugin, R]]] = {}
        for plugin in self.plugins:
            for record in plugin.records:
                if isinstance(record, kind):
                    claims.setdefault(record.name, []).append((plugin, record))
        return claims

    def _load(
        self, points: list[EntryPoint], allow: Collection[str] | None, block: Collection[str]
    ) -> Iterable[Plugin]:
        def wanted(point: EntryPoint) -> bool:
            allowed = allow is None or point.name in allow or _source(point.dist)[0] == "kontrast"
            return allowed and point.name not in block

        points = sorted(points, key=lambda point: _source(point.dist))
        claims = [point for point in points if wanted(point)]  # one that is not wanted takes no name away
        for point in points:
            distribution, version = _source(point.dist)
            plugin = Plugin(point.name, distribution, version, state="loaded")
            if not any(point is claim for claim in claims):  # equal entry points may be of two distributions
                yield replace(plugin, state="disabled")
                continue
            stage = "name"
            try:
                if len(claims) > 1:
                    sources = " and ".join(" ".join(_source(twin.dist)) for twin in claims)
                    raise InvalidValueError(f"the entry point `{point.name}` is claimed by {sources}")
                stage = "import"
                module = point.load()
                stage = "hooks"
                self._register(module, point.name)
                stage = "records"
                yield replace(plugin, records=self._collect(module))
            except (Exception, SystemExit) as error:  # whatever a plugin raises, the others load; it is reported above
                self._manager.unregister(name=point.name)
                yield replace(plugin, state="failed", stage=stage, error=error)

    def _register(self, module: object, name: str) -> None:
        self._manager.register(module, name=name)
        unknown = sorted(caller.name for caller in self._manager.get_hookcallers(module) or () if not caller.has_spec())
        if unknown:
            raise InvalidValueError(f"unknown hook {', '.join(unknown)}; the hooks are {', '.join(sorted(KINDS))}")

    def _collect(self, module: object) -> tuple[Record, ...]:
        others = [plugin for plugin in self._manager.get_plugins() if plugin is not module]
        records: list[Record] = []
        for hook, kind in KINDS.items():
            for result in self._manager.subset_hook_caller(hook, remove_plugins=others)():
                for record in result:
                    if not isinstance(record, kind):
                        raise InvalidValueError(f"{hook} must return {kind.__name__} records, got {record!r}")
                    if any(type(other) is kind and other.name == record.name for other in records):
                        raise InvalidValueError(f"{hook} returns {kind.kind} `{record.name}` twice")
                    records.append(record)
        return tuple(records)


@cache
def registry() -> Registry:
    """Return this process's registry, made on first use.

    `KONTRAST_PLUGINS=a,b` loads only these beside our own (empty: our own alone); `KONTRAST_DISABLE_PLUGINS=a,b` are
    not even imported.
    """
    allow = os.environ.get("KONTRAST_PLUGINS")
    return Registry(
        allow=None if allow is None else _names(allow),
        block=_names(os.environ.get("KONTRAST_DISABLE_PLUGINS", "")),
    )


def get_record(kind: type[R], name: str) -> R:
    """Return one record: `get_record(MethodRecord, "simclr")`. Raises as `Registry.get`."""
    return registry().get(kind, name)


def get_records(kind: type[R]) -> dict[str, R]:
    """Return all records of one kind by name: `get_records(MethodRecord)`."""
    return registry().records(kind)


def _names(text: str) -> frozenset[str]:
    return frozenset(name.strip() for name in text.split(",") if name.strip())


def _source(distribution: Distribution | None) -> tuple[str, str]:
    if distribution is None:
        return "unknown", "?"
    metadata: Any = distribution.metadata  # typed without None, which it gives for broken metadata
    return (metadata["Name"] if metadata else None) or "unknown", distribution.version


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()
