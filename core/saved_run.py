"""A run from its folder: the encoder with its weights, of the end or so far, and the domain and data it belongs to."""

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from .adapter import Adapter
from .checkpoint import Checkpoints
from .data import Data, Splits
from .encoder import Encoder, as_encoder
from .errors import IncompatibleError, InvalidValueError, UnknownNameError
from .option_types import no_options
from .records import AdapterRecord, EncoderRecord, MethodRecord
from .registry import get_record
from .weights import load_encoder

__all__ = ["SavedRun", "open_run"]


@dataclass(frozen=True)
class SavedRun:
    """What a run of `kontrast train` left, or has saved so far.

    Args:
        folder: where it lies.
        config: what was asked for, as in its config.json.
        adapter: its domain.
        encoder: with the trained weights, on the CPU, in evaluation mode.
        source: the name or file of the data it was trained on.
        step: how many steps the weights have been trained for, where the run has not ended; None: it has.
    """

    folder: Path
    config: dict[str, Any]
    adapter: Adapter
    encoder: Encoder
    source: str
    step: int | None = None

    @property
    def note(self) -> str:
        """What must be said of the weights; empty where they are those of the end."""
        if self.step is None:
            return ""
        return f"{self.folder} has not ended; its encoder after step {self.step}, of the newest checkpoint"

    def load(self, source: str | None = None) -> Splits[Data]:
        """Return a data set of the run's domain; None: the one that it was trained on."""
        with get_record(AdapterRecord, self.config["adapter"]["name"]).blamed():
            return self.adapter.load(self.source if source is None else source)


def open_run(folder: str | Path) -> SavedRun:
    """Rebuild what a run of `kontrast train` trained.

    Args:
        folder: its `--out`.

    Raises:
        UnknownNameError: if there is no such folder, or its adapter or encoder is not installed.
        InvalidValueError: if the folder holds no run, or a damaged one.
        IncompatibleError: if the run has not saved anything yet, was made in Python, or trained several encoders.
    """
    path = Path(folder)
    if not path.is_dir():
        beside = path.parent.glob("*/config.json") if path.parent.is_dir() else ()
        raise UnknownNameError("run folder", str(folder), (str(config.parent) for config in beside))
    config = _config(path)
    towers = sorted(file.name for file in path.glob("encoder-*.safetensors"))
    if towers:
        raise IncompatibleError(
            f"a run must have one encoder for this command, and {path} has several ({', '.join(towers)}); "
            "load the one you mean with kontrast.load_encoder"
        )
    names = {part: _name(config, part) for part in ("adapter", "data", "encoder")}
    missing = sorted(part for part, name in names.items() if name is None)
    if missing:
        raise IncompatibleError(
            f"the config of a run must name what `kontrast train` builds, and {path / 'config.json'} names no "
            f"{', '.join(missing)} (a run made in Python); make the encoder yourself and load the weights with "
            "kontrast.load_encoder"
        )
    weights, step = path / "encoder.safetensors", None
    if not weights.exists():
        saved = Checkpoints(path / "checkpoints").paths()
        if not saved:
            raise IncompatibleError(
                f"{path} must hold encoder.safetensors, which a run writes when it ends, or a checkpoint, and holds "
                "neither; let it come to its first checkpoint, or go on with it by kontrast train ... --resume auto"
            )
        weights, step = saved[-1], int(saved[-1].stem.removeprefix("step-"))
    record = get_record(AdapterRecord, str(names["adapter"]))
    make = record.load()
    with record.blamed():
        adapter = make()
    if not isinstance(adapter, Adapter):
        raise InvalidValueError(f"the factory of `{names['adapter']}` must return a kontrast.Adapter, got {adapter!r}")
    return SavedRun(path, config, adapter, _encoder(weights, config), str(names["data"]), step)


def _config(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    if not file.is_file():
        raise InvalidValueError(f"a run's folder must hold config.json, and {path} does not; give the --out of a run")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidValueError(f"{file} must be JSON as a run writes it, got: {error}") from error
    if not isinstance(config, dict):
        raise InvalidValueError(f"{file} must be a JSON object as a run writes it, got a {type(config).__name__}")
    return config


def _name(config: dict[str, Any], part: str) -> str | None:
    described = config.get(part)
    name = described.get("name") if isinstance(described, dict) else None
    return name if isinstance(name, str) else None


def _encoder(weights: Path, config: dict[str, Any]) -> Encoder:
    encoder = as_encoder(_made(EncoderRecord, config["encoder"]))
    try:
        load_encoder(encoder, weights)
    except IncompatibleError:
        # A method may put the encoder inside another, which is then what it trains (CPC's contexts).
        inside = encoder if _name(config, "method") is None else _made(MethodRecord, config["method"], encoder).encoder
        if type(inside) is type(encoder):
            raise
        load_encoder(inside, weights)
        return inside
    return encoder


def _made(kind: type[EncoderRecord] | type[MethodRecord], described: dict[str, Any], *parts: Any) -> Any:
    """Return what a run's config describes."""
    record = get_record(kind, described["name"])
    factory = record.load()
    parameters = _parameters(f"{kind.kind} `{described['name']}`", factory, described)
    with record.blamed():
        return factory(*parts, **parameters)


def _parameters(called: str, factory: Callable[..., Any], described: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters as the types of the signature, which JSON does not keep (tuples, paths, enums)."""
    parser = ArgumentParser(exit_on_error=False)
    if inspect.isclass(factory):
        parser.add_class_arguments(factory, "part", skip=set(no_options(factory)))
    else:
        parser.add_function_arguments(factory, "part", skip=set(no_options(factory)))
    given = {key: value for key, value in described.items() if key != "name"}
    if not given:
        return {}
    try:
        return dict(vars(parser.parse_object({"part": given})["part"]))
    except (ArgumentError, TypeError, ValueError, KeyError) as error:
        sentence = " ".join(str(error).split())
        raise IncompatibleError(
            f"the run's parameters do not fit the {called} that is installed: {sentence}; install the version "
            "in the run's environment.jsonl"
        ) from error
