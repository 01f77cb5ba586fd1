"""The options of `kontrast train`: which parts a run is made of, and every parameter of each from its signature.

The command line is read twice: for the names of the parts (`--encoder resnet18`), and then, their signatures known, for
their parameters (`--encoder.small_images true`). A config file stands behind the command line, in the same words.
"""

import argparse
import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from .errors import InvalidValueError, UnknownNameError
from .getters import get_recipe
from .option_types import parameters
from .records import ObserverRecord
from .registry import registry
from .run import Run

__all__ = ["CHOICES", "Factory", "Names", "inner_key", "parse", "read_names", "refuse_unknown"]

CHOICES = ("method", "adapter", "data", "encoder", "augmenter", "optimizer", "sampler", "objective")


@dataclass(frozen=True)
class Names:
    """What the first reading found.

    Args:
        chosen: part -> name, of those that were named.
        inner: the sampler inside a sampler that wraps one, the one inside that, and so on, as far as they were named.
        config: the contents of the config file, or of the recipe.
        rest: the arguments that are left for the second reading.
        wants: `"help"`, `"config"` (print it and end) or `""`.
        device: as it was asked for; it stands in `rest` too.
    """

    chosen: dict[str, str]
    inner: tuple[str, ...]
    config: dict[str, Any]
    rest: list[str]
    wants: str
    device: str


@dataclass(frozen=True)
class Factory:
    """One part whose parameters are options.

    Args:
        make: called with them.
        skip: parameters that are not options.
        defaults: in place of the signature's own.
    """

    make: Callable[..., Any]
    skip: frozenset[str] = frozenset()
    defaults: Mapping[str, Any] = field(default_factory=dict)


def read_names(given: Sequence[str]) -> Names:
    """Read the names of the parts, and the config file or recipe.

    Raises:
        InvalidValueError: if the command line or the config file cannot be read.
        UnknownNameError: if there is no such recipe.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for part in CHOICES[1:]:
        parser.add_argument(f"--{part}")
    nested = [match[1] for token in given if (match := _INNER.match(token))]
    depth = max((len(inner) // len(".inner") for inner in nested), default=0)
    for level in range(1, depth + 1):
        parser.add_argument(f"--{inner_key(level)}")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--recipe")
    parser.add_argument("--device")
    parser.add_argument("--print-config", action="store_true", dest="print_config")
    rest = list(given)
    method = rest.pop(0) if rest and not rest[0].startswith("-") else None
    try:
        found, rest = parser.parse_known_args(rest)
    except argparse.ArgumentError as error:
        raise InvalidValueError(f"the command line cannot be read: {error}") from error
    if found.config is not None and found.recipe is not None:
        raise InvalidValueError(
            f"`--config` and `--recipe` must not be given together, got {found.config} and {found.recipe}; "
            "kontrast train --recipe NAME --print-config writes a recipe to change"
        )
    config: dict[str, Any] = {}
    if found.config is not None:
        config = _read_config(found.config)
    elif found.recipe is not None:
        config = _parts(get_recipe(found.recipe))
    chosen = {
        part: config[part]["name"] for part in CHOICES if isinstance(config.get(part), dict) and "name" in config[part]
    }
    chosen |= {part: name for part in CHOICES[1:] if (name := getattr(found, part)) is not None}
    if method is not None:
        chosen["method"] = method
    wants = "help" if {"-h", "--help"} & set(rest) else "config" if found.print_config else ""
    if found.device is not None:
        rest.append(f"--device={found.device}")
    device = str(config.get("device", "auto") if found.device is None else found.device)
    return Names(chosen, _inner(vars(found), config.get("sampler", {})), config, rest, wants, device)


def inner_key(level: int) -> str:
    """Return the option of the sampler that lies `level` deep: sampler, sampler.inner, sampler.inner.inner ..."""
    return "sampler" + ".inner" * level


def parse(names: Names, factories: Mapping[str, Factory]) -> Namespace:
    """Read the parameters of the parts and of the run.

    Args:
        names: of the first reading.
        factories: part -> what its parameters belong to.

    Raises:
        UnknownNameError: for an unknown option, on the command line or in the config file; near names are offered.
        InvalidValueError: for a value of the wrong type, or a missing one.
    """
    parser = ArgumentParser(
        prog=f"kontrast train {names.chosen['method']}",
        description="--adapter, --data, --encoder, --augmenter, --optimizer, --sampler and --objective NAME choose "
        "the parts whose parameters stand below; kontrast list shows the names. --config FILE reads all of it from a "
        "file, a run's config.json for instance, --recipe NAME from a registered one, and --print-config writes it. On "
        "several processes: torchrun --nproc-per-node N -m kontrast train ...",
        exit_on_error=False,
    )
    parser.add_argument("--out", type=str, required=names.wants != "config", help="the run's folder")
    progress = registry().own(ObserverRecord, "progress", "kontrast")
    parser.add_argument("--observers", type=str, default=progress, help="names, with commas between them")
    parser.add_class_arguments(
        Run, skip={"method", "data", "augmenter", "optimizer", "observers", "config", "out"}, fail_untyped=False
    )
    for part, factory in factories.items():
        # Groups of our own: the parser's come with an option `--PART CONFIG`, and that is where the name stands here.
        summary = (inspect.getdoc(factory.make) or "").partition("\n")[0]
        group = parser.add_argument_group(f"{part}: {summary.rstrip('.')}")
        if isinstance(factory.make, type):
            group.add_class_arguments(factory.make, part, as_group=False, skip=set(factory.skip))
        else:
            group.add_function_arguments(factory.make, part, as_group=False, skip=set(factory.skip))
        fitting = {name: value for name, value in factory.defaults.items() if name in parameters(factory.make)}
        parser.set_defaults({f"{part}.{name}": value for name, value in fitting.items() if name not in factory.skip})
    known = [name for name, _ in parser.get_defaults(skip_validation=True).items()]
    from_file = _from_config(names, known)
    if names.wants == "help":
        parser.set_defaults(from_file)
    # As words, not as defaults, which are not held to their types.
    words = [f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in from_file.items()]
    refuse_unknown(names.rest, {*known, *(inner_key(level) for level in range(1, len(names.inner) + 2))})
    try:
        parsed: Namespace = parser.parse_args([*words, *names.rest])
    except (ArgumentError, argparse.ArgumentError) as error:
        raise InvalidValueError(f"{_sentence(error)} (see kontrast train {names.chosen['method']} --help)") from error
    return parsed


def refuse_unknown(given: Sequence[str], known: Iterable[str]) -> None:
    """Refuse an option that is neither among `known` nor one of the first reading.

    Raises:
        UnknownNameError: near names are offered.
    """
    options = {f"--{name}" for name in (*known, *CHOICES[1:], "config", "print-config", "recipe", "help")}
    for token in given:
        option = token.split("=")[0]
        if option.startswith("--") and option not in options:
            raise UnknownNameError("option", option, options)


_INNER = re.compile(r"--sampler((?:\.inner)+)(?:=|$)")


def _inner(found: Mapping[str, Any], entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the samplers inside the sampler: the command line's, and behind it the config file's.

    Raises:
        InvalidValueError: if one is named inside another that is not.
    """
    names: list[str] = []
    asked = max((level for level in range(1, len(found)) if found.get(inner_key(level))), default=0)
    while True:
        above, name = found.get(inner_key(len(names))), found.get(inner_key(len(names) + 1))
        if above is not None and above != entry.get("name", above):
            entry = {}  # what the file has inside a sampler that the command line renamed is left out
        entry = _named(entry.get("inner", {}))
        if name is None and "name" not in entry:
            break
        names.append(entry["name"] if name is None else name)
    if len(names) < asked:
        raise InvalidValueError(
            f"`--{inner_key(asked)}` must lie inside a named sampler; give `--{inner_key(len(names) + 1)}`"
        )
    return tuple(names)


def _named(entry: Any) -> Mapping[str, Any]:
    """Return a part of a config file as a mapping; a name alone may stand for one."""
    if not isinstance(entry, (str, dict)):
        raise InvalidValueError(f"a part in a config file must be a name, or a mapping with `name`, got {entry!r}")
    return {"name": entry} if isinstance(entry, str) else entry


def _sentence(error: Exception) -> str:
    """Say in our words what the parser says in its own."""
    text = " ".join(str(error).split())
    if missing := re.fullmatch(r"the following arguments are required: (\S+)", text):
        return f"`--{missing[1]}` must be given"
    if union := re.fullmatch(r'Parser key "(.+?)": .*Subtypes: \[(.*?)\] Errors: .* Given value: (.*)', text):
        kinds = re.sub(r"<class '(\w+)'>", r"\1", union[2]).replace("NoneType", "null").split(", ")
        return f"`--{union[1]}` must be of type {' or '.join(kinds)}, got {union[3]}"
    wrong = re.fullmatch(r'Parser key "(.+?)":? .*?Expected an? (.+?)\. Got value: (.*)', text)
    if wrong is None:
        return text
    kind = re.sub(r"<class '(\w+)'>", r"\1", wrong[2])
    kind = re.sub(r"typing\.Literal\[(.*?)\]", lambda found: "one of " + found[1].replace("'", ""), kind)
    return f"`--{wrong[1]}` must be {'' if kind.startswith('one of') else 'of type '}{kind}, got {wrong[3]}"


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML too
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        place, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        sentence = f"{problem} in line {place.line + 1}" if place and problem else error
        raise InvalidValueError(f"`--config` must be a readable JSON or YAML file, got {path}: {sentence}") from error
    if not isinstance(config, dict):
        raise InvalidValueError(f"`--config` must hold a mapping of options, got {type(config).__name__} in {path}")
    return _parts(config)


def _parts(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _named(value) if key in CHOICES else value for key, value in config.items()}


def _from_config(names: Names, known: Sequence[str]) -> dict[str, Any]:
    """Return the config file's options as defaults; those of a part that the command line renamed are left out."""
    values: dict[str, Any] = {}
    for key, value in names.config.items():
        if key in CHOICES:
            level, asked = 0, names.chosen.get(key)
            while value.get("name", asked) == asked:
                inside = value.get("inner") if key.startswith("sampler") else None
                entries = {n: v for n, v in value.items() if n != "name" and (n != "inner" or inside is None)}
                values |= {f"{key}.{name}": entry for name, entry in entries.items()}
                if inside is None or level == len(names.inner):
                    break
                asked, level = names.inner[level], level + 1
                key, value = inner_key(level), _named(inside)
        elif (key, value) != ("out", None):  # as --print-config writes it where none was given
            values[key] = value
    for name in values:
        if name not in known:
            raise UnknownNameError("option", name, known, hint=" (in the config file or recipe)")
    return values
