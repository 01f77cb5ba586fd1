"""Plugins: each entry point of the group `kontrast` is loaded on its own, and what became of it is kept.

pluggy's own loader is not used: it stops at the first broken plugin, drops the second of two with one name in
silence, and takes the file system's order. Here the order is that of names, and a plugin that fails is recorded with
stage and cause while the others load.
"""

import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from importlib.metadata import Distribution, EntryPoint, entry_points, version
from inspect import getattr_static, signature
from types import FunctionType, ModuleType
from typing import Any

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
    ProbeRecord,
    RecipeRecord,
    Record,
    SamplerRecord,
)

__all__ = ["KINDS", "Plugin", "load_plugins"]

KINDS: dict[str, type[Record]] = {
    "kontrast_methods": MethodRecord,
    "kontrast_objectives": ObjectiveRecord,
    "kontrast_samplers": SamplerRecord,
    "kontrast_encoders": EncoderRecord,
    "kontrast_augmenters": AugmenterRecord,
    "kontrast_adapters": AdapterRecord,
    "kontrast_observers": ObserverRecord,
    "kontrast_optimizers": OptimizerRecord,
    "kontrast_probes": ProbeRecord,
    "kontrast_recipes": RecipeRecord,
}


@dataclass(frozen=True)
class Plugin:
    """One entry point of the group `kontrast` and what became of it.

    Args:
        name: of the entry point; of what this process registered itself, the module that did.
        distribution: the package it came with.
        version: the package's; empty where it has none.
        state: loaded, disabled, failed, or registered (by this process itself).
        stage: where it failed: name (two plugins claim it), metadata, version (it needs another kontrast), import,
            hooks, records.
        error: the cause.
        records: what it provides.
        seconds: what its import took.
    """

    name: str
    distribution: str
    version: str
    state: str
    stage: str = ""
    error: BaseException | None = None
    records: tuple[Record, ...] = ()
    seconds: float = 0.0

    @property
    def source(self) -> str:
        """Distribution and version."""
        return f"{self.distribution} {self.version}".strip()

    @property
    def title(self) -> str:
        """Name and source, as sentences have them."""
        return f"plugin `{self.name}` ({self.source})"

    def __str__(self) -> str:
        if self.error is None:
            return f"{self.title} {self.state}"
        return f"{self.title} failed at {self.stage}: {self.cause}; mend it or set KONTRAST_DISABLE_PLUGINS={self.name}"

    @property
    def cause(self) -> str:
        """The error as one line; empty where there is none."""
        return "" if self.error is None else f"{type(self.error).__name__}: {' '.join(str(self.error).split())}"


def load_plugins(*, allow: Collection[str] | None, block: Collection[str]) -> Iterator[Plugin]:
    """Load every plugin that is wanted, in the order of names.

    Args:
        allow: names of the plugins to load beside kontrast's own; None: all.
        block: names of plugins that are not even imported.
    """
    manager = pluggy.PluginManager("kontrast")
    manager.add_hookspecs(hookspec)
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group="kontrast"):
        found.setdefault(point.name, []).append(point)
    for name, points in sorted(found.items()):
        points.sort(key=lambda point: (_source(point.dist), point.value))
        claims = [  # one that is not wanted takes no name away
            point
            for point in points
            if name not in block and (allow is None or name in allow or _source(point.dist)[0] == "kontrast")
        ]
        for point in points:
            if any(point is claim for claim in claims):  # equal entry points may be of two distributions
                yield _load(point, claims, manager)
            else:
                yield Plugin(name, *_source(point.dist), state="disabled")


def _load(point: EntryPoint, claims: list[EntryPoint], manager: pluggy.PluginManager) -> Plugin:
    plugin = Plugin(point.name, *_source(point.dist), state="loaded")
    stage, begun = "name", time.perf_counter()
    try:
        if len(claims) > 1:
            sources = " and ".join(" ".join(_source(twin.dist)) for twin in claims)
            raise InvalidValueError(f"the entry point `{point.name}` is claimed by {sources}")
        stage = "metadata"
        _check_metadata(point.dist)
        stage = "version"
        _check_version(point.dist)
        stage, begun = "import", time.perf_counter()
        with redirect_stdout(sys.stderr):  # what a plugin prints must not stand between the lines of a table or JSON
            module = point.load()
            plugin = replace(plugin, seconds=time.perf_counter() - begun)
            stage = "hooks"
            _register(module, point, manager)
            stage = "records"
            return replace(plugin, records=tuple(_collect(module, plugin.title, manager)))
    except (Exception, SystemExit) as error:  # whatever a plugin raises, the others load; the registry reports it
        manager.unregister(name=point.name)
        seconds = time.perf_counter() - begun if stage == "import" else plugin.seconds
        return replace(plugin, state="failed", stage=stage, error=error, seconds=seconds)


def _check_metadata(distribution: Distribution | None) -> None:
    if "?" in _source(distribution):
        where = "" if distribution is None else f" in {distribution.locate_file('')}"
        raise InvalidValueError(
            f"its distribution{where} must have METADATA with a name and a version, by which it is told from others, "
            "got none; install it with pip"
        )


def _check_version(distribution: Distribution | None) -> None:
    """Refuse a plugin that asks for another kontrast: pip looks at that only when it installs."""
    if distribution is None or _source(distribution)[0] == "kontrast":
        return
    from packaging.requirements import Requirement

    ours = version("kontrast")
    for text in distribution.requires or ():
        requirement = Requirement(text)
        if requirement.name.lower() != "kontrast":
            continue
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if applies and not requirement.specifier.contains(ours, prereleases=True):
            raise PluginError(
                f"it needs kontrast{requirement.specifier}, and {ours} is installed; install a kontrast or another "
                f"version of {_source(distribution)[0]} that fit"
            )


def _register(module: object, point: EntryPoint, manager: pluggy.PluginManager) -> None:
    for hook in KINDS:
        function = (
            getattr(module, hook, None) if isinstance(module, ModuleType) else None
        )  # of an object pluggy says it
        if isinstance(function, FunctionType) and (names := list(signature(function).parameters)):
            raise InvalidValueError(f"`{hook}` must take no arguments, got ({', '.join(names)})")
    manager.register(module, name=point.name)
    callers = {caller.name for caller in manager.get_hookcallers(module) or ()}
    unmarked = [
        name
        for name in dir(module)
        if name.startswith("kontrast_") and name not in callers and callable(getattr_static(module, name, None))
    ]
    for hook in sorted([*callers, *unmarked]):
        if hook not in KINDS:
            raise UnknownNameError("hook", hook, KINDS)
    for hook in unmarked:
        raise InvalidValueError(f"`{hook}` must be marked by @kontrast.hookimpl, or it is never called")
    if not callers:
        raise InvalidValueError(f"`{point.value}` has no function marked by @kontrast.hookimpl")


def _collect(module: object, provided: str, manager: pluggy.PluginManager) -> Iterator[Record]:
    others = [plugin for plugin in manager.get_plugins() if plugin is not module]
    implemented = {caller.name for caller in manager.get_hookcallers(module) or ()}
    for hook, kind in KINDS.items():
        if hook not in implemented:
            continue
        names = set()
        for record in _returned(hook, manager.subset_hook_caller(hook, remove_plugins=others)):
            if not isinstance(record, kind):
                raise InvalidValueError(f"{hook} must return {kind.__name__} records, got {_shown(record)}")
            if record.name in names:
                raise InvalidValueError(f"{hook} returns {kind.kind} `{record.name}` twice")
            names.add(record.name)
            yield replace(record, provider=provided)


def _returned(hook: str, call: Callable[[], list[Any]]) -> list[Any]:
    """Call a plugin's hook and return what it returns, as a list."""
    try:
        results = call()
        records = results[0] if results else None  # None is dropped
        if isinstance(records, Iterable) and not isinstance(records, (str, Mapping)):
            return list(records)  # a generator runs here
    except Exception as error:
        raise PluginError(f"{hook} raised {type(error).__name__}: {error}") from error
    raise InvalidValueError(f"`{hook}` must return a list of records, got {_shown(records)}")


def _shown(found: Any) -> str:
    return f"{found}" if isinstance(found, Record) else repr(found)


def _source(distribution: Distribution | None) -> tuple[str, str]:
    """Return name and version, `?` where there is none."""
    metadata: Any = None if distribution is None else distribution.metadata  # typed without the None it may be
    return (metadata["Name"] or "?", metadata["Version"] or "?") if metadata else ("?", "?")
