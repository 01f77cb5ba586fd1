"""The encoder and the augmenter that a method's record names: what it is trained with where nothing is said."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import PluginError, UnknownNameError, near_names
from .option_types import no_options, parameters
from .records import AugmenterRecord, EncoderRecord, MethodRecord
from .registry import get_record, registry

__all__ = ["PARTS", "NamedPart", "named_part", "short"]

PARTS: dict[str, type[EncoderRecord] | type[AugmenterRecord]] = {"encoder": EncoderRecord, "augmenter": AugmenterRecord}


@dataclass(frozen=True)
class NamedPart:
    """An encoder or augmenter as a method's record has it.

    Args:
        name: that reaches it: the longer one where several distributions claim it.
        record: what is registered under it.
        options: those of its factory that the method sets.
    """

    name: str
    record: EncoderRecord | AugmenterRecord
    options: Mapping[str, Any]


def named_part(method: MethodRecord, part: str, adapter: str) -> NamedPart | None:
    """Return what a method is trained with on a domain, as far as its record names it.

    A part of another domain is none: a method of several domains, or on one that is not its own, takes the domain's.

    Args:
        method: the record.
        part: `"encoder"` or `"augmenter"`.
        adapter: the name that reaches the domain; empty: any.

    Raises:
        PluginError: if it is not registered, is not of the method's own domain, or has no such option.
    """
    if part not in method.parts():
        return None
    known, kind = registry(), PARTS[part]
    options = method.parts()[part]
    name = known.own(kind, options.pop("name"), known.distribution(method), "kontrast")
    try:
        record = get_record(kind, name)
    except UnknownNameError as error:
        raise PluginError(f"{method} is trained with an {part} that is not registered: {error}") from error
    if adapter and not known.is_for(record, adapter):
        if method.adapter and known.is_for(method, adapter):
            raise PluginError(
                f"{method} is for the adapter `{method.adapter}`, and the {part} `{name}` that it names for "
                f"`{record.adapter}`"
            )
        return None
    make = record.load()
    allowed = parameters(make).keys() - no_options(make)
    for option in options:
        if option not in allowed:
            raise PluginError(
                f"{method} sets the option `{option}` of the {part} `{name}`, which has none of that name"
                f"{near_names(option, allowed)}"
            )
    return NamedPart(name, record, options)


def short(name: str) -> str:
    """Return a name without the distribution before it."""
    return name.rpartition(":")[2]
