"""What makes the things that are registered, by name: `get_method("simclr")(encoder)`. Light: no torch.

Each raises as `Registry.get` for a name, and as `Record.load` where the import fails.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

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
    SamplerRecord,
)
from .registry import get_record

if TYPE_CHECKING:
    from .adapter import Adapter
    from .augmenter import Augmenter
    from .encoder import Encoder
    from .method import Method
    from .objective import Objective
    from .observer import Observer
    from .optim import OptimizerSettings
    from .sampler import PairSampler

__all__ = [
    "get_adapter",
    "get_augmenter",
    "get_encoder",
    "get_method",
    "get_objective",
    "get_observer",
    "get_optimizer",
    "get_probe",
    "get_recipe",
    "get_sampler",
]


def get_adapter(name: str) -> "Callable[..., Adapter]":
    """Return what makes a domain: `get_adapter("vision")().load("digits")`."""
    return get_record(AdapterRecord, name).load()


def get_augmenter(name: str) -> "Callable[..., Augmenter]":
    """Return what makes an augmenter: `get_augmenter("affine-views")(rotation=25.0)`."""
    return get_record(AugmenterRecord, name).load()


def get_encoder(name: str) -> "Callable[..., Encoder]":
    """Return what makes an encoder: `get_encoder("small-cnn")(in_channels=1)`."""
    return get_record(EncoderRecord, name).load()


def get_method(name: str) -> "Callable[..., Method]":
    """Return what makes a method: `get_method("simclr")(encoder, temperature=0.2)`."""
    return get_record(MethodRecord, name).load()


def get_objective(name: str) -> "Callable[..., Objective]":
    """Return what makes an objective: `get_objective("info-nce")(temperature=0.1)`."""
    return get_record(ObjectiveRecord, name).load()


def get_observer(name: str) -> "Callable[[], Observer]":
    """Return what makes an observer: `get_observer("progress")()`."""
    return get_record(ObserverRecord, name).load()


def get_optimizer(name: str) -> "Callable[..., OptimizerSettings]":
    """Return what makes an optimizer's settings: `get_optimizer("lars")(learning_rate=0.3)`."""
    return get_record(OptimizerRecord, name).load()


def get_probe(name: str) -> Callable[..., Any]:
    """Return a probe: `get_probe("knn")(encoder, train, test, k=20)`."""
    return get_record(ProbeRecord, name).load()


def get_recipe(name: str) -> Mapping[str, Any]:
    """Return the options of a recipe, as a config file of `kontrast train` has them."""
    options: Mapping[str, Any] = get_record(RecipeRecord, name).load()()
    return options


def get_sampler(name: str) -> "Callable[..., PairSampler]":
    """Return what makes a sampler: `get_sampler("queue")(InBatch(), size=4096)`."""
    return get_record(SamplerRecord, name).load()
