"""`kontrast train`: every option from the typed signature of what it configures.

A part is chosen by name (`--encoder resnet18`), its parameters are options behind it (`--encoder.small_images true`);
the command line is read twice, for the names and then, their signatures known, for the rest.
"""

import argparse
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from .adapter import Adapter
from .augmenter import Augmenter
from .data import Data, Splits
from .encoder import as_encoder
from .errors import IncompatibleError, InvalidValueError, UnknownNameError
from .method import Method
from .optim import LARS, SGD, AdamW
from .records import AdapterRecord, AugmenterRecord, EncoderRecord, MethodRecord
from .registry import get_record, get_records
from .run import Run

__all__ = ["train"]

OPTIMIZERS = {"adamw": AdamW, "lars": LARS, "sgd": SGD}
_CHOICES = ("method", "adapter", "data", "encoder", "augmenter", "optimizer")


def train(given: Sequence[str]) -> int:
    """Train a method as the command line says, and return the exit status.

    Raises:
        UnknownNameError: for an unknown method, adapter, data set or option; near names are offered.
        InvalidValueError: for a value that its parameter refuses.
    """
    names, rest = _chosen(given)
    asks_help = "-h" in rest or "--help" in rest
    if names.method is None:
        if asks_help:
            known = ", ".join(get_records(MethodRecord))
            print(f"usage: kontrast train METHOD [options]\n\nmethods: {known}\n\nkontrast train METHOD --help")
            return 0
        raise UnknownNameError("method", "", get_records(MethodRecord), hint="; write kontrast train METHOD ...")
    method_factory = get_record(MethodRecord, names.method).load()
    adapter = _adapter(names.adapter)
    for part in ("data", "encoder", "augmenter"):
        setattr(names, part, getattr(names, part) or getattr(adapter, f"default_{part}"))
    encoder_factory = _of_adapter(EncoderRecord, names.encoder, names.adapter)
    augmenter_factory = _of_adapter(AugmenterRecord, names.augmenter, names.adapter)
    if names.optimizer not in OPTIMIZERS:
        raise UnknownNameError("optimizer", names.optimizer, OPTIMIZERS)
    splits: Splits[Data] | None = None if asks_help else adapter.load(names.data)
    factories: dict[str, tuple[Callable[..., Any], set[str | int]]] = {
        "method": (method_factory, {"encoder"}),
        "encoder": (encoder_factory, set()),
        "augmenter": (augmenter_factory, set()),
        "optimizer": (OPTIMIZERS[names.optimizer], set()),
    }
    options = _parsed(names, rest, factories, splits)
    assert splits is not None
    # Weights are drawn after the seed is set, and are the same on every rank before DDP says so.
    torch.manual_seed(options.seed)
    parts: dict[str, dict[str, Any]] = {
        part: dict(vars(options[part])) if part in options else {} for part in factories
    }
    run_options = {name: value for name, value in vars(options).items() if name not in factories}
    encoder = as_encoder(encoder_factory(**parts["encoder"]))
    method = method_factory(encoder, **parts["method"])
    augmenter = augmenter_factory(**parts["augmenter"])
    if not isinstance(method, Method) or not isinstance(augmenter, Augmenter):
        raise InvalidValueError(
            f"the factories of `{names.method}` and the augmenter must return a kontrast.Method and a "
            f"kontrast.Augmenter, got {type(method).__name__} and {type(augmenter).__name__}"
        )
    config = {
        **{choice: {"name": getattr(names, choice), **parts.get(choice, {})} for choice in _CHOICES},
        **run_options,
    }
    run = Run(
        method,
        splits.train,
        augmenter=augmenter,
        optimizer=OPTIMIZERS[names.optimizer](**parts["optimizer"]),
        config=config,
        **run_options,
    )
    metrics = run.fit()
    if torch.distributed.is_initialized() and torch.distributed.get_rank() != 0:
        return 0
    print(f"loss {metrics['loss']:.4f} in the last epoch; encoder in {options.out}/encoder.safetensors")
    return 0


def _chosen(given: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Read the names of the parts; return them and what is left."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--adapter", default="vision")
    parser.add_argument("--data")
    parser.add_argument("--encoder")
    parser.add_argument("--augmenter")
    parser.add_argument("--optimizer", default="adamw")
    rest = list(given)
    method = rest.pop(0) if rest and not rest[0].startswith("-") else None
    try:
        names, rest = parser.parse_known_args(rest)
    except argparse.ArgumentError as error:
        raise InvalidValueError(f"the command line cannot be read: {error}") from error
    names.method = method
    return names, rest


def _adapter(name: str) -> Adapter:
    adapter = get_record(AdapterRecord, name).load()()
    if not isinstance(adapter, Adapter):
        raise InvalidValueError(f"the factory of adapter `{name}` must return a kontrast.Adapter, got {adapter!r}")
    return adapter


def _of_adapter(kind: type[EncoderRecord] | type[AugmenterRecord], name: str, adapter: str) -> Callable[..., Any]:
    record = get_record(kind, name)
    if record.adapter and record.adapter != adapter:
        fitting = sorted(other.name for other in get_records(kind).values() if other.adapter in ("", adapter))
        raise IncompatibleError(
            f"{kind.kind} `{name}` is for the adapter `{record.adapter}`, not `{adapter}`; "
            f"take one of {', '.join(fitting)}"
        )
    return record.load()


def _parsed(
    names: argparse.Namespace,
    rest: list[str],
    factories: dict[str, tuple[Callable[..., Any], set[str | int]]],
    splits: Splits[Data] | None,
) -> Namespace:
    parser = ArgumentParser(
        prog=f"kontrast train {names.method}",
        description="Also: --adapter, --data, --encoder, --augmenter, --optimizer NAME choose the parts below.",
        exit_on_error=False,
    )
    parser.add_argument("--out", type=str, required=True, help="the run's folder, which must not hold a run yet")
    skipped: set[str | int] = {"method", "data", "augmenter", "optimizer", "observers", "config", "out"}
    parser.add_class_arguments(Run, skip=skipped)
    for part, (factory, skip) in factories.items():
        if isinstance(factory, type):
            parser.add_class_arguments(factory, part, skip=skip)
        else:
            parser.add_function_arguments(factory, part, skip=skip)
        # What the data say of a parameter's value (channels, size) is its default here.
        about = {} if splits is None else splits.about
        fitting = {name: about[name] for name in inspect.signature(factory).parameters if name in about}
        parser.set_defaults({f"{part}.{name}": value for name, value in fitting.items()})
    known = {f"--{name}" for name, _ in parser.get_defaults(skip_validation=True).items()}
    known |= {f"--{choice}" for choice in _CHOICES[1:]} | {"--help", "-h"}
    for token in rest:
        option = token.split("=")[0]
        if option.startswith("--") and option not in known:
            raise UnknownNameError("option", option, known)
    try:
        options: Namespace = parser.parse_args(rest)
    except (ArgumentError, argparse.ArgumentError) as error:
        sentence = " ".join(str(error).split())
        raise InvalidValueError(f"{sentence} (see kontrast train {names.method} --help)") from error
    return options
