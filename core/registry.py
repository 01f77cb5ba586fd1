"""The registry: the records that plugins provide, and those that this process registers itself, by kind and name.

Two claims on one name are an error that names both; `distribution:name` picks one.
"""

import os
import re
import sys
import warnings
from collections.abc import Callable, Collection, Mapping
from functools import cache
from inspect import getdoc
from threading import RLock
from typing import Any, TypeVar, overload

from .errors import InvalidValueError, KontrastWarning, PluginError, UnknownNameError, near_names
from .plugin import KINDS, Plugin, load_plugins
from .records import AdapterRecord, Record

__all__ = [
    "KINDS",
    "Plugin",
    "PluginWarning",
    "Registry",
    "get_record",
    "get_records",
    "register",
    "registry",
]

R = TypeVar("R", bound=Record)
F = TypeVar("F", bound=Callable[..., Any])


class PluginWarning(KontrastWarning):
    """A plugin could not be loaded; what others provide is not affected."""


class Registry:
    """The plugins of this environment and the records they provide.

    Args:
        allow: names of the plugins to load beside kontrast's own; None: all.
        block: names of plugins that are not even imported.
        registered: records of this process itself, by the module that registered each; looked at anew each time.
    """

    def __init__(
        self,
        *,
        allow: Collection[str] | None = None,
        block: Collection[str] = (),
        registered: Mapping[str, Collection[Record]] | None = None,
    ) -> None:
        self._found = tuple(load_plugins(allow=allow, block=block))
        self._registered = {} if registered is None else registered
        if os.environ.get("RANK", "0") != "0":  # one process speaks for all; a run compares their plugins
            return
        failed = {plugin.name: plugin for plugin in self._found if plugin.error is not None}
        for plugin in failed.values():  # two that claim one name share their error
            warnings.warn(str(plugin), PluginWarning, stacklevel=2)

    @property
    def plugins(self) -> tuple[Plugin, ...]:
        """Every plugin that was found, by name, and behind them the modules that registered something themselves."""
        here = (
            Plugin(module, module.partition(".")[0], "", "registered", records=tuple(records))
            for module, records in sorted(self._registered.items())
        )
        return (*self._found, *here)

    def records(self, kind: type[R]) -> dict[str, R]:
        """Return the records of one kind by name, sorted; names that two plugins claim are left out."""
        claims = self.claims(kind)
        return {name: providers[0][1] for name, providers in sorted(claims.items()) if len(providers) == 1}

    def get(self, kind: type[R], name: str) -> R:
        """Return the record of that kind called `name`, or `distribution:name` where two plugins claim it.

        Raises:
            UnknownNameError: if there is none; plugins that failed to load are named, the first one's error chained.
            PluginError: if two plugins claim the name.
        """
        distribution, _, short = name.rpartition(":")
        claims = self.claims(kind)
        providers = [
            (plugin, record)
            for plugin, record in claims.get(short, [])
            if not distribution or normal(plugin.distribution) == normal(distribution)
        ]
        if not providers:
            absent = [plugin for state in ("failed", "disabled") for plugin in self._found if plugin.state == state]
            hint = f". Not loaded: {'; '.join(map(str, absent))}" if absent else ""
            cause = absent[0].error if absent else None
            raise UnknownNameError(kind.kind, name, claims, hint=hint) from cause
        if len(providers) > 1:
            names = sorted({f"{plugin.distribution}:{short}" for plugin, _ in providers})
            raise PluginError(
                f"{kind.kind} `{short}` is claimed by {' and '.join(plugin.title for plugin, _ in providers)}; "
                f"write {' or '.join(f'`{choice}`' for choice in names)}"
            )
        return providers[0][1]

    def claims(self, kind: type[R]) -> dict[str, list[tuple[Plugin, R]]]:
        """Return by name who provides a record of one kind; more than one: none of them wins."""
        claims: dict[str, list[tuple[Plugin, R]]] = {}
        for plugin in self.plugins:
            for record in plugin.records:
                if isinstance(record, kind):
                    claims.setdefault(record.name, []).append((plugin, record))
        return claims

    def own(self, kind: type[Record], name: str, *distributions: str) -> str:
        """Return the name that reaches the first of these distributions' own: the longer one where several claim it.

        For what nobody asked for by name: another's claim must not take a default away.
        """
        providers = [plugin.distribution for plugin, _ in self.claims(kind).get(name, [])]
        for distribution in distributions:
            if len(providers) > 1 and distribution in providers:
                return f"{distribution}:{name}"
        return name

    def is_for(self, record: Record, adapter: str) -> bool:
        """Return whether a record with an `adapter` goes with the adapter that is reached by this name.

        Where several distributions claim that one, what they provide themselves is for their own.
        """
        mine: str = getattr(record, "adapter", "")
        mine = self.own(AdapterRecord, mine, self.distribution(record))
        (whose, _, wanted), (given, _, name) = mine.rpartition(":"), adapter.rpartition(":")
        return not mine or (wanted == name and (not whose or not given or normal(whose) == normal(given)))

    def distribution(self, record: Record) -> str:
        """Return the distribution that provides a record."""
        return next(
            (plugin.distribution for plugin in self.plugins if any(other is record for other in plugin.records)), ""
        )


_registered: dict[str, list[Record]] = {}
_lock = RLock()
_loading: list[bool] = []  # other threads wait; whoever asks again while plugins are loaded is one of them


@cache
def registry() -> Registry:
    """Return this process's registry, made on first use.

    `KONTRAST_PLUGINS=a,b` loads only these beside our own (empty: our own alone); `KONTRAST_DISABLE_PLUGINS=a,b` are
    not even imported.

    Raises:
        PluginError: if a plugin asks for it while it is imported.
    """
    with _lock:
        if _loading:
            raise PluginError("a plugin must not look up names while it is imported; do it where one is needed")
        _loading.append(True)
        try:
            allow = os.environ.get("KONTRAST_PLUGINS")
            made = Registry(
                allow=None if allow is None else _names(allow),
                block=_names(os.environ.get("KONTRAST_DISABLE_PLUGINS", "")),
                registered=_registered,
            )
            _warn_of_unknown_plugins({plugin.name for plugin in made.plugins})
            return made
        finally:
            _loading.clear()


def _warn_of_unknown_plugins(known: Collection[str]) -> None:
    if os.environ.get("RANK", "0") != "0":
        return
    for variable in ("KONTRAST_PLUGINS", "KONTRAST_DISABLE_PLUGINS"):
        for name in sorted(_names(os.environ.get(variable, "")) - set(known)):
            warnings.warn(f"{variable}: no plugin `{name}`{near_names(name, known)}", KontrastWarning, stacklevel=3)


def get_record(kind: type[R], name: str) -> R:
    """Return one record: `get_record(MethodRecord, "simclr")`. Raises as `Registry.get`."""
    return registry().get(kind, name)


def get_records(kind: type[R]) -> dict[str, R]:
    """Return all records of one kind by name: `get_records(MethodRecord)`."""
    return registry().records(kind)


@overload
def register(what: R) -> R: ...


@overload
def register(what: type[Record], name: str, summary: str = "", **fields: Any) -> Callable[[F], F]: ...


def register(what: Record | type[Record], name: str = "", summary: str = "", **fields: Any) -> Any:
    """Register a name in this process alone, for notebooks and scripts; a package has a plugin instead.

    A record as it is, `register(MethodRecord("mine", mine))`, or by a decorator::

        @kontrast.register(kontrast.ObjectiveRecord, "my-loss")
        class MyLoss(kontrast.Objective): ...

    From then on the name works like any other: in `get_record`, `Run`, `kontrast.testing`. A plugin that has the name
    too makes it ambiguous; `MODULE:name` is the one registered here. Run again, a cell of a notebook replaces what it
    registered before.

    Args:
        what: the record, or with a decorator the kind of record.
        name: with a decorator, as in the record, like the rest.
        summary: by default the first line of the docstring.
        fields: the record's other fields.

    Raises:
        InvalidValueError: if something else of this process has the name, or what is given is neither of the two.
    """
    frame = sys._getframe(1)  # whoever registers it provides it, wherever its factory comes from
    module: str = frame.f_globals.get("__name__", "__main__")
    if isinstance(what, Record):
        _add(module, what)
        return what
    if not (isinstance(what, type) and issubclass(what, Record)) or not isinstance(name, str) or not name:
        raise InvalidValueError(
            f"`kontrast.register` must be given a record, or a kind of record and a name, got {what!r}; above a class "
            'or function write e.g. @kontrast.register(kontrast.ObjectiveRecord, "my-loss")'
        )

    def decorate(factory: F) -> F:
        about = summary or (getdoc(factory) or "").partition("\n")[0].rstrip(".")
        _add(module, what(name, factory, about, **fields))
        return factory

    return decorate


def _add(module: str, record: Record) -> None:
    if type(record) not in KINDS.values():
        raise InvalidValueError(f"what is registered must be a record such as MethodRecord, got {record!r}")
    for home, records in _registered.items():
        for other in [other for other in records if type(other) is type(record) and other.name == record.name]:
            if (home, _origin(other)) != (module, _origin(record)):
                raise InvalidValueError(
                    f"{record.kind} `{record.name}` is registered in this process already, by {home} for "
                    f"{_origin(other)}; choose another name for {_origin(record)}"
                )
            records.remove(other)
    _registered.setdefault(module, []).append(record)


def _origin(record: Record) -> str:
    factory = record.factory
    return factory if isinstance(factory, str) else getattr(factory, "__qualname__", repr(factory))


def _names(text: str) -> frozenset[str]:
    return frozenset(name.strip() for name in text.split(",") if name.strip())


def normal(distribution: str) -> str:
    """Return a distribution's name as indexes compare it: in lower case, runs of `-`, `_` and `.` as one `-`."""
    return re.sub(r"[-_.]+", "-", distribution).lower()
