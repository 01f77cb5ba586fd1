"""What a plugin hands to the registry: light records that name a factory without importing it."""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

from .errors import InvalidValueError, MissingExtraError, PluginError

__all__ = [
    "AdapterRecord",
    "AugmenterRecord",
    "EncoderRecord",
    "MethodRecord",
    "ObjectiveRecord",
    "ObserverRecord",
    "OptimizerRecord",
    "Record",
    "SamplerRecord",
]

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True)
class Record:
    """One registered name.

    Args:
        name: lower case, digits and single hyphens, e.g. `"moco-v2"`.
        factory: what makes the thing: a callable, or `"package.module:attribute"`, imported when first asked for.
            Its typed signature is where the command line, config files and help take the parameters from.
        summary: one line for `kontrast list`.
        paper: where it comes from, e.g. `"arXiv:2002.05709"`.
        extra: what to install when the factory's import fails, e.g. `"kontrast[vision]"`.

    Raises:
        InvalidValueError: if the name or the factory is not of that form.
    """

    kind: ClassVar[str] = ""

    name: str
    factory: str | Callable[..., Any]
    summary: str = ""
    paper: str = ""
    extra: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InvalidValueError(
                f"a {self.kind}'s name must be lower-case letters, digits and single hyphens, got {self.name!r}"
            )
        path = self.factory if isinstance(self.factory, str) else ""
        if not callable(self.factory) and not re.fullmatch(r"[\w.]+:[\w.]+", path):
            raise InvalidValueError(
                f"the factory of {self.kind} `{self.name}` must be a callable or 'package.module:attribute', "
                f"got {self.factory!r}"
            )

    def load(self) -> Callable[..., Any]:
        """Import the factory and return it.

        Raises:
            MissingExtraError: if a package that it imports is not installed.
            PluginError: if the import fails otherwise or gives nothing callable.
        """
        if not isinstance(self.factory, str):
            return self.factory
        module_name, _, attribute = self.factory.partition(":")
        try:
            target: Any = import_module(module_name)
            for part in attribute.split("."):
                target = getattr(target, part)
        except ModuleNotFoundError as error:
            package, _, inside = (error.name or "").partition(".")
            if inside and package == module_name.partition(".")[0]:  # the package is there, and lacks the module
                raise PluginError(f"{self.kind} `{self.name}`: {self.factory} leads nowhere: {error}") from error
            remedy = f"run `pip install '{self.extra}'`" if self.extra else f"install `{error.name}`"
            raise MissingExtraError(
                f"{self.kind} `{self.name}` needs the package `{error.name}`, which is not installed; {remedy}"
            ) from error
        except Exception as error:
            raise PluginError(
                f"{self.kind} `{self.name}` could not be loaded from {self.factory}: {type(error).__name__}: {error}"
            ) from error
        if not callable(target):
            raise PluginError(f"{self.kind} `{self.name}`: {self.factory} must be callable, got {target!r}")
        return target  # type: ignore[no-any-return]  # callable() narrows Any to nothing more precise

    def signature(self) -> inspect.Signature:
        """Import the factory and return its signature, with annotations as types."""
        return inspect.signature(self.load(), eval_str=True)


class MethodRecord(Record):
    """A method: `factory(encoder, **parameters) -> kontrast.Method`."""

    kind = "method"


class ObjectiveRecord(Record):
    """An objective: `factory(**parameters) -> kontrast.Objective`."""

    kind = "objective"


class SamplerRecord(Record):
    """A pair sampler: `factory(**parameters) -> kontrast.PairSampler`; one that wraps takes `inner` first."""

    kind = "sampler"


@dataclass(frozen=True)
class EncoderRecord(Record):
    """An encoder: `factory(**parameters) -> kontrast.Encoder`; `adapter` names the domain it reads."""

    kind = "encoder"

    adapter: str = ""


@dataclass(frozen=True)
class AugmenterRecord(Record):
    """An augmenter: `factory(**parameters) -> kontrast.Augmenter`; `adapter` names the domain it augments."""

    kind = "augmenter"

    adapter: str = ""


class AdapterRecord(Record):
    """A domain: `factory() -> kontrast.Adapter`."""

    kind = "adapter"


class ObserverRecord(Record):
    """Something that watches runs: `factory() -> kontrast.Observer`."""

    kind = "observer"


class OptimizerRecord(Record):
    """An optimizer's settings: `factory(**parameters) -> kontrast.OptimizerSettings`; the run builds it of them."""

    kind = "optimizer"
