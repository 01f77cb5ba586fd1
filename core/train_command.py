"""`kontrast train`: build the parts a run is made of, by name, and run it."""

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from .adapter import Adapter
from .augmenter import Augmenter
from .data import Data, Splits
from .distributed import join_processes, rank
from .encoder import Encoder, as_encoder
from .errors import IncompatibleError, InvalidValueError
from .method import Method
from .method_parts import PARTS, named_part, short
from .objective import Objective
from .optim import OptimizerSettings
from .option_types import no_options, parameters, plain, refuse_missing
from .records import (
    AdapterRecord,
    AugmenterRecord,
    EncoderRecord,
    MethodRecord,
    ObjectiveRecord,
    OptimizerRecord,
    RecipeRecord,
    Record,
    SamplerRecord,
)
from .registry import get_record, get_records, registry
from .run import Run
from .run_checks import check_seed
from .same_plugins import check_same_plugins
from .sampler import PairSampler
from .train_options import CHOICES, Factory, Names, inner_key, parse, read_names, refuse_unknown

__all__ = ["look_at", "train"]


def train(given: list[str]) -> int:
    """Train a method as the command line says, and return the exit status.

    Raises:
        UnknownNameError: for an unknown method, adapter, data set or option; near names are offered.
        InvalidValueError: for a value that its parameter refuses.
        IncompatibleError: for parts that do not go together.
    """
    names = read_names(given)
    if not names.wants:
        join_processes(names.device)
        check_same_plugins()  # before a name is missing on one of the processes
    if "method" not in names.chosen:
        known = get_records(MethodRecord)
        if names.wants == "help":
            print(
                f"usage: kontrast train METHOD [options]\n       kontrast train --recipe NAME [options]\n\n"
                f"methods: {', '.join(known)}\n\nrecipes: {', '.join(get_records(RecipeRecord))}\n\n"
                "kontrast train METHOD --help"
            )
            return 0
        # What belongs to a part of the method (`--method.temperature`) cannot be judged without it.
        refuse_unknown([token for token in names.rest if "." not in token.split("=")[0]], parameters(Run))
        raise InvalidValueError(
            f"`kontrast train` needs a method, the first word behind it; installed: {', '.join(sorted(known))}"
        )
    method_record = get_record(MethodRecord, names.chosen["method"])
    method_factory = method_record.load()
    known_plugins = registry()
    homes = (known_plugins.distribution(method_record), "kontrast")
    usual = known_plugins.own(AdapterRecord, method_record.adapter or "vision", *homes)
    adapter = _adapter(names.chosen.setdefault("adapter", usual))
    names.chosen.setdefault("data", adapter.default_data)
    usual_options = {part: _choose(names, part, method_record, adapter) for part in PARTS}
    optimizer = names.chosen.setdefault("optimizer", known_plugins.own(OptimizerRecord, "adamw", "kontrast"))
    optimizer_factory = get_record(OptimizerRecord, optimizer).load()
    if "encoder" not in parameters(method_factory):
        raise IncompatibleError(
            f"the command line builds one encoder, and the method `{names.chosen['method']}` takes several "
            f"({', '.join(name for name in parameters(method_factory) if name.endswith('encoder'))}); "
            "compose it in Python and give it to kontrast.Run"
        )
    encoder_factory = _of_adapter(EncoderRecord, names.chosen["encoder"], names.chosen["adapter"])
    augmenter_factory = _of_adapter(AugmenterRecord, names.chosen["augmenter"], names.chosen["adapter"])
    for part, make in (
        ("method", method_factory),
        ("encoder", encoder_factory),
        ("augmenter", augmenter_factory),
        ("optimizer", optimizer_factory),
    ):
        refuse_missing(f"the {part} `{names.chosen[part]}`", make, {"encoder"} if part == "method" else ())
    splits: Splits[Data] | None = None
    if names.wants != "help":
        with get_record(AdapterRecord, names.chosen["adapter"]).blamed():
            splits = adapter.load(names.chosen["data"])
    about = {} if splits is None else splits.about  # what the data say of channels or size is a default
    with method_record.blamed():
        probe = look_at(method_factory)
    factories = {
        "method": Factory(method_factory, no_options(method_factory) | {"encoder"}),
        "encoder": Factory(encoder_factory, no_options(encoder_factory), {**about, **usual_options["encoder"]}),
        "augmenter": Factory(augmenter_factory, no_options(augmenter_factory), {**about, **usual_options["augmenter"]}),
        "optimizer": Factory(optimizer_factory, no_options(optimizer_factory)),
        **_own_parts(names, probe),
        **_inner_parts(names),
    }
    options = parse(names, factories)
    if names.wants != "help":
        # Sampler and objective as this method has them, its own options taken: what differs from that was asked for.
        chosen = vars(options["method"]) if "method" in options else {}  # a method may have no options
        with method_record.blamed():
            probe = look_at(method_factory, **chosen)
        factories |= _own_parts(names, probe)
        options = parse(names, factories)
    parts: dict[str, dict[str, Any]] = {
        part: {name: value for name, value in vars(options[part]).items() if f"{part}.{name}" not in factories}
        if part in options
        else {}
        for part in factories
    }
    run_options = {name: value for name, value in vars(options).items() if name not in factories}
    config = _config(names, factories, parts, run_options)
    if names.wants == "config":
        print(json.dumps(config, indent=2))
        return 0
    assert splits is not None
    check_seed(run_options["seed"])
    torch.manual_seed(run_options["seed"])  # weights are drawn after the seed is set
    with get_record(EncoderRecord, names.chosen["encoder"]).blamed():
        encoder = encoder_factory(**parts["encoder"])
    with method_record.blamed(), _usual_named(names, method_record):
        method = method_factory(as_encoder(encoder), **parts["method"])
    with get_record(AugmenterRecord, names.chosen["augmenter"]).blamed():
        augmenter = augmenter_factory(**parts["augmenter"])
    if not isinstance(method, Method) or not isinstance(augmenter, Augmenter):
        raise InvalidValueError(
            f"the factories of `{names.chosen['method']}` and `{names.chosen['augmenter']}` must return a "
            f"kontrast.Method and a kontrast.Augmenter, got {type(method).__name__} and {type(augmenter).__name__}"
        )
    _exchange(method, names, factories, parts)
    observers = [name for name in run_options.pop("observers").split(",") if name]
    with get_record(OptimizerRecord, names.chosen["optimizer"]).blamed():
        settings = optimizer_factory(**parts["optimizer"])
    if not isinstance(settings, OptimizerSettings):
        raise InvalidValueError(
            f"the factory of optimizer `{names.chosen['optimizer']}` must return kontrast.OptimizerSettings, "
            f"got {settings!r}"
        )
    with _usual_named(names, method_record):
        run = Run(
            method,
            splits.train,
            augmenter=augmenter,
            optimizer=settings,
            observers=observers,
            config=config,
            **run_options,
        )
        metrics = run.fit()
    if rank() == 0:
        print(f"loss {metrics['loss']:.4f} in the last epoch; encoder in {options.out}/encoder.safetensors")
    return 0


class _AnySize(Encoder):
    """Stands for the encoder while a method is only looked at."""

    representation_size = 8

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs


def look_at(method_factory: Any, **options: Any) -> Method:
    """Return a method without memory for its weights: to ask what it is made of."""
    with torch.device("meta"):
        probe = method_factory(_AnySize(), **options)
    if not isinstance(probe, Method):
        raise InvalidValueError(f"a method's factory must return a kontrast.Method, got {type(probe).__name__}")
    return probe


def _choose(names: Names, part: str, method: MethodRecord, adapter: Adapter) -> Mapping[str, Any]:
    """Choose the encoder or augmenter where nobody did: the method's, else the domain's; return the method's options.

    They are for the part that the method names, whether it was asked for or not.
    """
    asked, domain, known = names.chosen.get(part), names.chosen["adapter"], registry()
    usual = None
    if asked is None or short(asked) == short(method.parts().get(part, {"name": ""})["name"]):
        usual = named_part(method, part, domain)
    if asked is None and usual is not None:
        names.chosen[part] = usual.name
    elif asked is None:
        homes = (known.distribution(get_record(AdapterRecord, domain)), "kontrast")
        names.chosen[part] = known.own(PARTS[part], getattr(adapter, f"default_{part}"), *homes)
    return usual.options if usual is not None and get_record(PARTS[part], names.chosen[part]) is usual.record else {}


@contextmanager
def _usual_named(names: Names, method: MethodRecord) -> Iterator[None]:
    """Say what a method is trained with where other parts were taken and do not go with it."""
    try:
        yield
    except IncompatibleError as error:
        usual = {part: short(given["name"]) for part, given in method.parts().items()}
        others = [f"the {part} `{name}`" for part, name in usual.items() if short(names.chosen[part]) != name]
        if not others or type(error) is not IncompatibleError:
            raise
        raise IncompatibleError(f"{error}; `{method.name}` is trained with {' and '.join(others)}") from error


def _own_parts(names: Names, probe: Method) -> dict[str, Factory]:
    """Return sampler and objective as factories: those that were named, else the method's own with its settings."""
    found = {}
    for part, kind, own in (
        ("sampler", SamplerRecord, probe.sampler),
        ("objective", ObjectiveRecord, next(iter(probe.objectives.values()))),
    ):
        if part in names.chosen:
            make = get_record(kind, names.chosen[part]).load()
            refuse_missing(f"the {part} `{names.chosen[part]}`", make, {"inner"})
            found[part] = Factory(make, no_options(make))
        elif part == "sampler" or len(probe.objectives) == 1:
            make = type(own)
            settings = {name: getattr(own, name) for name in parameters(make) if hasattr(own, name)}
            found[part] = Factory(make, no_options(make), settings)
    return found


def _inner_parts(names: Names) -> dict[str, Factory]:
    """Return the samplers inside the sampler as factories, by their option's name.

    Raises:
        IncompatibleError: if one is named inside a sampler that wraps none.
    """
    found: dict[str, Factory] = {}
    for level, name in enumerate(names.inner, start=1):
        above = found.get(inner_key(level - 1))
        if above is not None and "inner" not in parameters(above.make):
            raise IncompatibleError(
                f"`--{inner_key(level)}` is for a sampler that wraps another, got `{names.inner[level - 2]}`"
            )
        make = get_record(SamplerRecord, name).load()
        refuse_missing(f"the sampler `{name}`", make, {"inner"})
        found[inner_key(level)] = Factory(make, no_options(make))
    return found


def _exchange(method: Method, names: Names, factories: dict[str, Factory], parts: dict[str, dict[str, Any]]) -> None:
    """Put the sampler and objective that were asked for in the place of the method's own."""
    sampler = objective = None
    if "sampler" in names.chosen or names.inner or parts.get("sampler", {}) != _settings(factories, "sampler"):
        if names.inner and "inner" not in parameters(factories["sampler"].make):
            name = names.chosen.get("sampler", type(method.sampler).__name__)
            raise IncompatibleError(f"`--sampler.inner` is for a sampler that wraps another, got `{name}`")
        # A sampler that is named goes around the method's own; else it is the method's own with other settings.
        sampler = method.sampler if "sampler" in names.chosen else getattr(method.sampler, "inner", None)
        for level in range(len(names.inner), -1, -1):  # from the innermost on
            make, settings = factories[inner_key(level)].make, parts[inner_key(level)]
            refuse_missing(f"another {type(method.sampler).__name__}", make, {"inner"})
            around = {"inner": sampler} if "inner" in parameters(make) else {}
            with _blamed(SamplerRecord, names.inner[level - 1] if level else names.chosen.get("sampler")):
                made = make(**settings, **around)
            if not isinstance(made, PairSampler):
                raise InvalidValueError(f"a sampler's factory must return a kontrast.PairSampler, got {made!r}")
            sampler = made
    if "objective" in names.chosen or parts.get("objective", {}) != _settings(factories, "objective"):
        refuse_missing("another objective of this kind", factories["objective"].make)
        with _blamed(ObjectiveRecord, names.chosen.get("objective")):
            built = factories["objective"].make(**parts["objective"])
        if not isinstance(built, Objective):
            raise InvalidValueError(f"an objective's factory must return a kontrast.Objective, got {built!r}")
        objective = built
    method.exchange(sampler=sampler, objective=objective)


def _blamed(kind: type[Record], name: str | None) -> AbstractContextManager[None]:
    """Return what names the plugin of a part that was asked for by name; the method's own parts are kontrast's."""
    return nullcontext() if name is None else get_record(kind, name).blamed()


def _settings(factories: dict[str, Factory], part: str) -> dict[str, Any]:
    """Return what the method's own part is set to, as far as there are options for it."""
    if part not in factories:
        return {}
    factory = factories[part]
    return {name: value for name, value in factory.defaults.items() if name not in factory.skip}


def _config(
    names: Names, factories: dict[str, Factory], parts: dict[str, dict[str, Any]], run_options: dict[str, Any]
) -> dict[str, Any]:
    """Return everything that was asked for, in the form that `--config` reads."""
    config: dict[str, Any] = {}
    for part in CHOICES:
        values = dict(parts.get(part, {}))
        if part in names.chosen:
            values = {"name": names.chosen[part], **values}
        elif part in ("sampler", "objective"):  # the method's own: what differs from how the method made it
            own = _settings(factories, part)
            values = {name: value for name, value in values.items() if value != own.get(name)}
        if part == "sampler" and names.inner:
            inner: dict[str, Any] = {}
            for level in range(len(names.inner), 0, -1):
                inner = {
                    "name": names.inner[level - 1],
                    **parts[inner_key(level)],
                    **({"inner": inner} if inner else {}),
                }
            values["inner"] = inner
        if values:
            config[part] = values
    described: dict[str, Any] = plain({**config, **run_options})
    return described


def _adapter(name: str) -> Adapter:
    record = get_record(AdapterRecord, name)
    make = record.load()
    with record.blamed():
        adapter = make()
    if not isinstance(adapter, Adapter):
        raise InvalidValueError(f"the factory of adapter `{name}` must return a kontrast.Adapter, got {adapter!r}")
    return adapter


def _of_adapter(kind: type[EncoderRecord] | type[AugmenterRecord], name: str, adapter: str) -> Any:
    record = get_record(kind, name)
    if not registry().is_for(record, adapter):
        fitting = [other for other, about in get_records(kind).items() if registry().is_for(about, adapter)]
        raise IncompatibleError(
            f"{kind.kind} `{name}` is for the adapter `{record.adapter}`, not `{adapter}`; "
            f"take one of {', '.join(fitting)}"
        )
    return record.load()
