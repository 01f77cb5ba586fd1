"""What a plugin hands to the registry: light records that name a factory without importing it."""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.resources import files
from typing import Any, ClassVar

from .errors import InvalidValueError, KontrastError, MissingExtraError, PluginError

__all__ = [
    "AdapterRecord",
    "AugmenterRecord",
    "EncoderRecord",
    "MethodRecord",
    "ObjectiveRecord",
    "ObserverRecord",
    "OptimizerRecord",
    "ProbeRecord",
    "RecipeRecord",
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
        provider: whose it is, for errors; the registry fills it in.

    Raises:
        InvalidValueError: if the name, the factory or a text is not of that form.
    """

    kind: ClassVar[str] = ""
    _path: ClassVar[re.Pattern[str]] = re.compile(r"[\w.]+:[\w.]+")
    _path_form: ClassVar[str] = "package.module:attribute"

    name: str
    factory: str | Callable[..., Any]
    summary: str = ""
    paper: str = ""
    extra: str = ""
    provider: str = field(default="", kw_only=True, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            article = "an" if self.kind[0] in "aeio" else "a"
            raise InvalidValueError(
                f"{article} {self.kind}'s name must be lower-case letters, digits and single hyphens, got {self.name!r}"
            )
        path = self.factory if isinstance(self.factory, str) else ""
        if not callable(self.factory) and not self._path.fullmatch(path):
            raise InvalidValueError(
                f"the factory of {self.kind} `{self.name}` must be a callable or '{self._path_form}', "
                f"got {self.factory!r}"
            )
        for label in ("summary", "paper", "extra"):
            text = getattr(self, label)
            if not isinstance(text, str) or len(text.splitlines()) > 1:
                raise InvalidValueError(
                    f"the {label} of {self.kind} `{self.name}` must be one line of text, got {text!r}"
                )

    def __str__(self) -> str:
        return f"{self.kind} `{self.name}`" + (f" of {self.provider}" if self.provider else "")

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
                raise PluginError(f"{self}: {self.factory} leads nowhere: {error}") from error
            remedy = f"run `pip install '{self.extra}'`" if self.extra else f"install `{error.name}`"
            raise MissingExtraError(
                f"{self} needs the package `{error.name}`, which is not installed; {remedy}"
            ) from error
        except Exception as error:
            raise PluginError(
                f"{self} could not be loaded from {self.factory}: {type(error).__name__}: {error}"
            ) from error
        if not callable(target):
            raise PluginError(f"{self}: {self.factory} must be callable, got {target!r}")
        return target  # type: ignore[no-any-return]  # callable() narrows Any to nothing more precise

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Name this record and its provider where its factory raises something that is not kontrast's own sentence.

        Raises:
            PluginError: with what was raised as its cause.
        """
        try:
            yield
        except KontrastError:
            raise
        except Exception as error:
            raise PluginError(
                f"{self} raised {type(error).__name__}: {error}; KONTRAST_TRACEBACK=1 shows where"
            ) from error

    def signature(self) -> inspect.Signature:
        """Import the factory and return its signature, with annotations as types."""
        return inspect.signature(self.load(), eval_str=True)


@dataclass(frozen=True)
class MethodRecord(Record):
    """A method: `factory(encoder, **parameters) -> kontrast.Method`.

    Args:
        adapter: the domain that it belongs to, where it is of one.
        encoder: what it is trained with where nothing is said: a registered name, or as in a config file a mapping of
            `name` and options, e.g. `{"name": "dilated-cnn", "depth": 1}`. Empty: what the domain takes, and so
            on a domain that the encoder is not for.
        augmenter: the same of the augmenter.
    """

    kind = "method"

    adapter: str = ""
    encoder: str | Mapping[str, Any] = ""
    augmenter: str | Mapping[str, Any] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        for part in ("encoder", "augmenter"):
            given = getattr(self, part)
            if not isinstance(given.get("name") if isinstance(given, Mapping) else given, str):
                raise InvalidValueError(
                    f"the {part} of method `{self.name}` must be a registered name, or a mapping of `name` and "
                    f"options, got {given!r}"
                )

    def parts(self) -> dict[str, dict[str, Any]]:
        """Return encoder and augmenter as far as they are named, each as a mapping of `name` and options."""
        given = {"encoder": self.encoder, "augmenter": self.augmenter}
        return {part: {"name": what} if isinstance(what, str) else dict(what) for part, what in given.items() if what}


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


@dataclass(frozen=True)
class ProbeRecord(Record):
    """A probe, for `kontrast evaluate`: `factory(encoder, train, test, *, options) -> accuracy in percent`.

    It may return scores by name instead, such as `{"recall": 0.2, "ndcg": 0.2}`. One that takes no `test` judges the
    training part alone; one that does is refused where the data have no other part. What stands behind the `*` are
    options.

    Args:
        adapter: the domain whose encoders it judges; empty: any.
        frozen: it reads representations alone. It is then given None for the encoder and `kontrast.ArrayData` whose
            inputs are the representations, which all such probes share. Without it `train` may be a part of the
            domain's data, which has `len` and `batch` alone.
        usual: values of options where none are given, each a row: `{"k": (20, 200)}`.
    """

    kind = "probe"

    adapter: str = ""
    frozen: bool = False
    usual: Mapping[str, Sequence[Any]] = field(default_factory=dict)


class RecipeRecord(Record):
    """A setting under a name, for `kontrast train --recipe`: a config file inside a package, `"package:file.yaml"`.

    The file is what `--config` reads, `factory` its path, or what returns such a mapping.
    """

    kind = "recipe"
    _path = re.compile(r"[\w.]+:[\w./-]+\.(yaml|json)")
    _path_form = "package:file.yaml"

    def load(self) -> Callable[..., Any]:
        """Read the file and return what returns its contents.

        Raises:
            PluginError: if it is not there or holds no mapping.
        """
        if not isinstance(self.factory, str):
            return self.factory
        package, _, name = self.factory.partition(":")
        import yaml

        try:
            options = yaml.safe_load(files(package).joinpath(name).read_text(encoding="utf-8"))  # JSON is YAML too
        except (ImportError, OSError, TypeError, UnicodeDecodeError, yaml.YAMLError) as error:
            # A TypeError: the module before the colon is no package.
            raise PluginError(
                f"{self} could not be read from {self.factory}: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(options, dict):
            raise PluginError(f"{self}: {self.factory} must hold a mapping of options, got {type(options).__name__}")
        return lambda: options
