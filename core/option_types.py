"""Which parameters of a factory a command line or a config file can give, and how a value is written there."""

import inspect
from collections.abc import Callable, Collection, Mapping
from enum import Enum
from pathlib import PurePath
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from .errors import IncompatibleError

__all__ = ["is_value", "meanings", "no_options", "parameters", "plain", "refuse_missing"]

_VALUES = (bool, int, float, str, Enum, PurePath, NoneType, list, tuple, dict, set)


def parameters(make: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a factory by name, with annotations as types as far as they can be read."""
    if isinstance(make, type) and getattr(make.__init__, "__module__", "") == "torch.nn.modules.module":  # type: ignore[misc]
        return {}  # a module without an own one: torch's says that it takes anything, and takes nothing
    try:
        return inspect.signature(make, eval_str=True).parameters
    except (NameError, AttributeError, SyntaxError):  # names that are imported for type checkers alone
        return inspect.signature(make).parameters
    except ValueError:  # some of Python's own have none
        return {}


def meanings(make: Callable[..., Any]) -> dict[str, str]:
    """Return what a factory's docstring says of its parameters, by name, each in one line."""
    from docstring_parser import parse

    text = parse(inspect.getdoc(make) or "")
    return {entry.arg_name: " ".join((entry.description or "").split()) for entry in text.params}


def is_value(annotation: Any) -> bool:
    """Return whether a parameter of this type can be written down: numbers, words, paths, choices, lists of them.

    Not a module, a tensor or a function.
    """
    if get_origin(annotation) is Annotated:
        return is_value(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return True
    parts = [part for part in get_args(annotation) if part is not Ellipsis]
    if parts:
        return all(is_value(part) for part in parts)
    # Text is what could not be read; the parser may know better.
    return isinstance(annotation, str) or (isinstance(annotation, type) and issubclass(annotation, _VALUES))


def no_options(make: Callable[..., Any]) -> frozenset[str]:
    """Return the parameters that are no options: parts (a wrapped sampler), and what has no type."""
    return frozenset(
        name
        for name, entry in parameters(make).items()
        if entry.annotation is entry.empty or not is_value(entry.annotation)
    )


def refuse_missing(what: str, make: Callable[..., Any], given: Collection[str] = ()) -> None:
    """Refuse a factory that cannot be called from a command line.

    Args:
        what: its kind and name, for the error.
        make: the factory.
        given: parameters that are given otherwise.

    Raises:
        IncompatibleError: if a parameter without a default is no option.
    """
    options = parameters(make)
    missing = [
        name
        for name in sorted(no_options(make) - set(given))
        if options[name].default is inspect.Parameter.empty
        and options[name].kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    ]
    if missing:
        raise IncompatibleError(
            f"{what} needs {', '.join(f'`{name}`' for name in missing)}, which cannot be written on a command line; "
            "compose it in Python and give it to kontrast.Run"
        )


def plain(value: Any) -> Any:
    """Return a value as JSON has it; the parser reads it back as what it was."""
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return {name: plain(part) for name, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, (list, tuple, set)) else value
