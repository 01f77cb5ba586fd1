"""Probes by name, with the options that their signatures have, for `kontrast evaluate`."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from .command_options import separated
from .errors import IncompatibleError, InvalidValueError, PluginError
from .option_types import is_value, meanings, parameters
from .records import ProbeRecord
from .registry import get_record, registry

__all__ = ["Probe", "Row", "named_probe"]


@dataclass(frozen=True)
class Row:
    """A probe with values of its options: one row of the table.

    Args:
        probe: the probe.
        options: what it is called with.
        asked: whether all of them were asked for; a usual one that cannot be is left out with its reason.
    """

    probe: "Probe"
    options: Mapping[str, Any] = field(default_factory=dict)
    asked: bool = True

    def __str__(self) -> str:
        return ", ".join([self.probe.record.name, *(f"{name}={value}" for name, value in self.options.items())])


@dataclass(frozen=True)
class Probe:
    """A registered probe.

    Args:
        record: its record.
        function: what the record's factory names.
        takes_test: whether it judges a test part.
        options: the parameters that can be given, by name.
    """

    record: ProbeRecord
    function: Callable[..., Any]
    takes_test: bool
    options: Mapping[str, inspect.Parameter]

    def help(self) -> dict[str, dict[str, Any]]:
        """Return the options as `ArgumentParser.add_argument` takes them."""
        said = meanings(self.function)
        about = {}
        for name, entry in self.options.items():
            usual = self.record.usual.get(name, (entry.default,))
            default = "required" if entry.empty in usual else f"{','.join(map(str, usual))} by default"
            text = "; ".join(part for part in (said.get(name, "").rstrip("."), default) if part)
            about[f"--{name}"] = {"help": f"{self.record.name}: {text}".replace("%", "%%")}
        return about

    def rows(self, given: Mapping[str, str | None]) -> list[Row]:
        """Return a row for every combination of the values given, and of the usual ones where none are.

        Args:
            given: the options' texts; several values have commas between them.

        Raises:
            InvalidValueError: if one cannot be read, or has no default and is not given.
        """
        values: dict[str, Sequence[Any]] = {}
        for name, entry in self.options.items():
            text = given.get(name)
            if text is not None:
                parts = [text] if text.startswith("[") else separated(text, f"--{name}")
                values[name] = [self._value(name, part) for part in parts]
            elif name in self.record.usual:
                values[name] = self.record.usual[name]
            elif entry.default is entry.empty and name != "seed":  # which the command has itself
                raise InvalidValueError(f"probe `{self.record.name}` must be told `--{name}`, which has no default")
        asked = all(given.get(name) is not None for name in values)
        return [Row(self, dict(zip(values, row, strict=True)), asked) for row in product(*values.values())]

    def _value(self, name: str, text: str) -> Any:
        kind = self.options[name].annotation
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument(f"--{name}", type=kind)
        try:
            return parser.parse_args([f"--{name}={text}"])[name]
        except ArgumentError as error:
            called = kind.__name__ if isinstance(kind, type) else str(kind)
            raise InvalidValueError(
                f"`--{name}` must be of type {called}, got {text!r} (see kontrast evaluate --help)"
            ) from error

    def check_adapter(self, adapter: str) -> None:
        """Raise unless the probe judges encoders of this domain."""
        if not registry().is_for(self.record, adapter):
            raise IncompatibleError(
                f"probe `{self.record.name}` is for the adapter `{self.record.adapter}`, and the run's is `{adapter}`; "
                "kontrast list probes shows the others"
            )


def named_probe(name: str) -> Probe:
    """Return the probe that is registered under a name.

    Raises:
        UnknownNameError: if there is none.
        PluginError: if it could not be loaded, takes something else than an encoder and one or two data sets, or its
            record has usual values of what is no option.
    """
    record = get_record(ProbeRecord, name)
    function = record.load()
    entries = parameters(function)
    positional = [entry for entry in entries.values() if entry.kind in (entry.POSITIONAL_ONLY, _EITHER)]
    if len(positional) not in (2, 3):
        raise PluginError(
            f"{record} must take (encoder, train) or (encoder, train, test), and options behind a `*`, "
            f"got ({', '.join(entry.name for entry in positional)})"
        )
    options = {
        name: entry
        for name, entry in entries.items()
        if entry.kind is entry.KEYWORD_ONLY and is_value(entry.annotation)
    }
    if strange := sorted(set(record.usual) - set(options)):
        raise PluginError(f"`usual` of {record} must name options behind its `*`, {sorted(options)}, got {strange}")
    return Probe(record, function, len(positional) == 3, options)


_EITHER = inspect.Parameter.POSITIONAL_OR_KEYWORD
