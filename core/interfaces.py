"""What the factory of each kind of record must make. Apart from the records, for it imports torch."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from .adapter import Adapter
from .augmenter import Augmenter
from .errors import InvalidValueError
from .method import Method
from .objective import Objective
from .observer import Observer
from .optim import OptimizerSettings
from .records import (
    AdapterRecord,
    AugmenterRecord,
    EncoderRecord,
    MethodRecord,
    ObjectiveRecord,
    ObserverRecord,
    OptimizerRecord,
    RecipeRecord,
    Record,
    SamplerRecord,
)
from .sampler import PairSampler

__all__ = ["check_made"]

_INTERFACES: dict[type[Record], tuple[type, str]] = {
    AdapterRecord: (Adapter, "kontrast.Adapter"),
    AugmenterRecord: (Augmenter, "kontrast.Augmenter"),
    EncoderRecord: (nn.Module, "torch.nn.Module"),
    MethodRecord: (Method, "kontrast.Method"),
    ObjectiveRecord: (Objective, "kontrast.Objective"),
    ObserverRecord: (Observer, "kontrast.Observer"),
    OptimizerRecord: (OptimizerSettings, "kontrast.OptimizerSettings"),
    RecipeRecord: (Mapping, "mapping of options"),
    SamplerRecord: (PairSampler, "kontrast.PairSampler"),
}


def check_made(record: Record, made: Any) -> None:
    """Refuse what is not of its record's kind; of a probe, whose factory is the probe, nothing is known.

    Raises:
        InvalidValueError: says what it must be.
    """
    interface, called = _INTERFACES.get(type(record), (object, ""))
    if not isinstance(made, interface):
        raise InvalidValueError(f"the factory of {record} must return a {called}, got {made!r}")
