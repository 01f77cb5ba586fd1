"""`kontrast describe NAME`: what is registered under a name, its parameters, what it needs and goes with."""

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from shutil import get_terminal_size
from textwrap import fill
from typing import Any, get_args

from .errors import UnknownNameError
from .option_types import meanings, parameters
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
from .registry import KINDS, get_records, normal, registry
from .table import print_table

__all__ = ["describe"]


def describe(name: str) -> int:
    """Print all that is known of a name, of every kind that has it, and return the exit status.

    Raises:
        UnknownNameError: if nothing is registered under it; near names are offered.
        PluginError: if its factory cannot be imported.
    """
    distribution, _, short = name.rpartition(":")
    found = [
        (plugin, record)
        for kind in KINDS.values()
        for claims in registry().claims(kind).values()
        for plugin, record in claims
        if short == record.name and (not distribution or normal(plugin.distribution) == normal(distribution))
    ]
    if not found:
        known = {name for kind in KINDS.values() for name in registry().claims(kind)}
        raise UnknownNameError("registered name", name, known)
    for number, (plugin, record) in enumerate(found):
        make = record.load()
        facts = [
            ("provided by", f"{plugin.source}, plugin {plugin.name}"),
            ("made by", record.factory if isinstance(record.factory, str) else make.__qualname__),
            ("paper", record.paper),
            ("install", f"pip install '{record.extra}'" if record.extra else ""),
            *_facts(record, make),
        ]
        print(f"{chr(10) if number else ''}{record.kind} {record.name}: {record.summary}\n")
        width = max(len(label) for label, value in facts if value)
        columns = get_terminal_size().columns if sys.stdout.isatty() else 100_000
        for label, value in facts:
            if value:
                lead, rest = f"  {label:{width}}  ", " " * (width + 4)
                print(fill(value, columns, initial_indent=lead, subsequent_indent=rest, break_on_hyphens=False))
        _print_parameters(record, make)
    return 0


def _print_parameters(record: Record, make: Callable[..., Any]) -> None:
    if isinstance(record, RecipeRecord):
        rows = [[key, str(value)] for key, value in _made(record).items()]
        headings = ["option", "value"]
    else:
        said = meanings(make)
        headings = ["parameter", "type", "default", "meaning"]
        rows = [
            [entry.name, _type_name(entry.annotation), _default(entry), said.get(entry.name, "")]
            for entry in parameters(make).values()
        ]
    if rows:
        print()
        print_table(headings, rows)


def _facts(record: Record, make: Callable[..., Any]) -> Iterator[tuple[str, str]]:
    """Yield what a thing needs, gives and goes with, as label and words."""
    if isinstance(record, (ObserverRecord, OptimizerRecord, ProbeRecord, RecipeRecord)):
        yield "used by", _USED_BY[record.kind].format(record.name)
    if isinstance(record, MethodRecord):
        yield "goes with", f"adapter {record.adapter}" if record.adapter else ""
        yield "by default", ", ".join(f"{part} {_with_options(**given)}" for part, given in record.parts().items())
        yield from _of_method(record, make)
    elif isinstance(record, ObjectiveRecord):
        yield from _of_objective(record)
    elif isinstance(record, SamplerRecord):
        yield from _of_sampler(record, make)
    elif isinstance(record, (EncoderRecord, AugmenterRecord, ProbeRecord)):
        yield "goes with", f"adapter {record.adapter}" if record.adapter else "any adapter"
        if isinstance(record, ProbeRecord):
            yield "reads", "representations alone" if record.frozen else "the encoder"
            usual = (f"{name} {', '.join(map(str, values))}" for name, values in record.usual.items())
            yield "by default", "a row for each of " + "; ".join(usual) if record.usual else ""
    elif isinstance(record, AdapterRecord):
        for kind in (EncoderRecord, AugmenterRecord, ProbeRecord):
            called = f"{registry().distribution(record)}:{record.name}"
            fitting = [name for name, other in get_records(kind).items() if registry().is_for(other, called)]
            yield f"{kind.kind}s", ", ".join(fitting)
        adapter = _made(record)
        defaults = ("data", "encoder", "augmenter", "probe")
        yield "by default", ", ".join(f"{part} {getattr(adapter, f'default_{part}')}" for part in defaults)


_USED_BY = {
    "observer": "kontrast train --observers {}",
    "optimizer": "kontrast train --optimizer {}",
    "probe": "kontrast evaluate --probe {}",
    "recipe": "kontrast train --recipe {}",
}


def _with_options(name: str, **options: Any) -> str:
    """Return a name and what is set of it."""
    return f"{name} ({', '.join(f'{option} {value}' for option, value in options.items())})" if options else name


def _of_method(record: Record, make: Callable[..., Any]) -> Iterator[tuple[str, str]]:
    from .train_command import look_at

    entries = parameters(make)
    if "encoder" not in entries:
        yield "needs", ", ".join(name for name in entries if name.endswith("encoder"))
        return
    with record.blamed():
        method = look_at(make)
    yield "sampler", _in_words(method.sampler)
    yield "objective", "; ".join(_in_words(objective) for objective in method.objectives.values())
    yield "similarity", _in_words(method.similarity)
    yield "needs", f"a batch of {method.min_batch} or more" if method.min_batch > 1 else ""


def _of_objective(record: Record) -> Iterator[tuple[str, str]]:
    made = _made(record)
    if made is None:
        return
    needs = made.needs
    wanted = [
        "negatives" if needs.negatives else "",
        f"a batch of {needs.min_batch} or more" if needs.min_batch > 1 else "",
        f"the similarity {needs.similarity.__name__}" if needs.similarity else "",
    ]
    yield "needs", ", ".join(filter(None, wanted)) or "positives alone"
    yield "goes with", f"samplers {', '.join(_fitting(SamplerRecord, lambda sampler: made.check(sampler, _any(made))))}"


def _of_sampler(record: Record, make: Callable[..., Any]) -> Iterator[tuple[str, str]]:
    made = _made(record)
    if made is None:
        return
    gives = made.gives
    given = [
        "negatives" if gives.negatives else "positives alone",
        "their sum estimated" if gives.reweighted else "",
        f"from batches of {gives.min_batch} on" if gives.min_batch > 1 else "",
    ]
    yield "wraps", "another sampler" if "inner" in parameters(make) else ""
    yield "gives", ", ".join(filter(None, given))
    fitting = _fitting(ObjectiveRecord, lambda objective: objective.check(made, _any(objective)))
    yield "goes with", f"objectives {', '.join(fitting)}"


def _fitting(kind: type[Record], check: Callable[[Any], None]) -> Iterator[str]:
    """Yield the registered names whose things pass a check; what cannot be made without arguments is left out."""
    for name, record in get_records(kind).items():
        try:
            made = _made(record)
            if made is not None:
                check(made)
                yield name
        except Exception:  # they do not go together, or that one is broken, which `kontrast plugins --load` says
            continue


def _made(record: Record) -> Any:
    """Return what a record's factory makes, around `InBatch` where it wraps; None where it needs more than that.

    Raises:
        InvalidValueError: if it makes something of another kind.
        PluginError: if it raises.
    """
    from .interfaces import check_made
    from .sampler import InBatch

    make = record.load()
    entries = parameters(make).values()
    given = {"inner": InBatch()} if any(entry.name == "inner" for entry in entries) else {}
    needed = [entry for entry in entries if entry.default is entry.empty and entry.kind not in _ANY_NUMBER]
    if any(entry.name not in given for entry in needed):
        return None
    with record.blamed():
        made = make(**given)
    check_made(record, made)
    return made


def _any(objective: Any) -> Any:
    """Return a similarity that the objective is defined on."""
    from .similarity import Cosine

    return (objective.needs.similarity or Cosine)()


_ANY_NUMBER = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _in_words(module: Any) -> str:
    """Return a module as one line."""
    return re.sub(r"(?<=\() | (?=\))", "", " ".join(repr(module).split()))


def _type_name(annotation: Any) -> str:
    if annotation is inspect.Parameter.empty:
        return ""
    # A type as people call it, without the modules it lies in.
    plain = isinstance(annotation, type) and not get_args(annotation)
    return annotation.__name__ if plain else re.sub(r"\b(?:\w+\.)+(?=\w)", "", str(annotation))


def _default(parameter: inspect.Parameter) -> str:
    return "required" if parameter.default is inspect.Parameter.empty else repr(parameter.default)
