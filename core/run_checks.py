"""What a run refuses or warns of before its first step."""

from collections.abc import Sequence
from typing import Any
from warnings import warn

from torch import nn

from .augmenter import Augmenter
from .data import Splits
from .errors import IncompatibleError, InvalidValueError, KontrastWarning
from .loader import Plan
from .method import Method
from .observer import Observer

__all__ = [
    "InexactWarning",
    "check_batch",
    "check_choices",
    "check_counts",
    "check_gradients",
    "check_micro_batches",
    "check_parts",
    "check_seed",
    "warn_of_inexact_caching",
]


class InexactWarning(KontrastWarning):
    """A setting makes a run differ from what it stands for."""


def check_parts(method: Any, data: Any, augmenter: Any, observers: Any) -> None:
    """Refuse what is not of its kind.

    Raises:
        InvalidValueError: says what would be.
    """
    if not isinstance(method, Method):
        raise InvalidValueError(f"`method` must be a kontrast.Method, got {type(method).__name__}; compose one")
    if isinstance(data, Splits):
        raise InvalidValueError("`data` must be one part of a data set, got Splits; write data.train")
    if not hasattr(data, "batch") or not hasattr(data, "__len__"):
        raise InvalidValueError(
            f"`data` must have __len__ and batch(indices), got {type(data).__name__}; "
            "put tensors into kontrast.ArrayData"
        )
    if not isinstance(augmenter, Augmenter):
        raise InvalidValueError(
            f"`augmenter` must be a kontrast.Augmenter, an object, got {augmenter!r}; "
            "kontrast.Identity() changes nothing"
        )
    if isinstance(observers, str) or not isinstance(observers, Sequence):
        found = "the string " if isinstance(observers, str) else ""
        raise InvalidValueError(f"`observers` must be a list of names or objects, got {found}{observers!r}")
    for one in observers:
        if not isinstance(one, (str, Observer)):
            raise InvalidValueError(f"each of `observers` must be a name or a kontrast.Observer object, got {one!r}")


def check_counts(*counts: tuple[str, Any, int]) -> None:
    """Refuse (name, value, least) whose value is no integer of at least that."""
    for name, value, least in counts:
        if not isinstance(value, int) or value < least:
            raise InvalidValueError(f"`{name}` must be an integer >= {least}, got {value!r}")


def check_choices(*choices: tuple[str, Any, tuple[str, str]]) -> None:
    """Refuse (name, choice, known) whose choice is none of the known."""
    for name, choice, known in choices:
        if choice not in known:
            raise InvalidValueError(f"`{name}` must be {' or '.join(known)}, got {choice!r}")


def check_seed(seed: int) -> None:
    """Refuse a seed that generators would not take."""
    if not isinstance(seed, int) or not 0 <= seed < 1 << 40:
        raise InvalidValueError(f"`seed` must be an integer in 0..2^40 - 1, got {seed!r}")


def check_batch(method: Method, plan: Plan) -> None:
    """Refuse a batch size that the method, the data or the processes cannot take.

    Raises:
        InvalidValueError: says which, and what would do.
    """
    least, size = method.min_batch, plan.batch_size
    if size < least:
        raise InvalidValueError(
            f"`batch_size` must be >= {least} for this method, got {size}; "
            "it compares the samples of a batch with each other"
        )
    if size < plan.world:
        raise InvalidValueError(
            f"`batch_size` counts the samples of all processes and must be >= their number ({plan.world}), got {size}"
        )
    rest = plan.length % size
    if plan.length < size and plan.drop_last:
        raise InvalidValueError(
            f"`batch_size` must not exceed the number of samples ({plan.length}), got {size}; "
            "make it smaller or set drop_last=False"
        )
    if not plan.drop_last and 0 < rest < max(least, plan.world):
        raise InvalidValueError(
            f"the last batch would hold {rest} of {plan.length} samples, fewer than the method and the "
            f"{plan.world} processes need; set drop_last=True or another batch_size"
        )
    if _has_batch_norm(method) and (size == 1 or (not plan.drop_last and rest == 1)):
        raise InvalidValueError(
            "this method has batch norms, which need 2 samples in a batch, and a batch would hold 1; "
            f"{'use a larger batch_size' if size == 1 else 'set drop_last=True'}"
        )


def check_micro_batches(method: Method, plan: Plan, large_batch: str) -> None:
    """Refuse micro-batches that are too small to be scored, or normalised, by themselves.

    Raises:
        InvalidValueError: says how large they must be.
    """
    if not plan.micro_batch_size:
        return
    count = -(-plan.batch_size // (plan.world * plan.micro_batch_size))
    smallest = plan.batch_size // plan.world // count  # samples of one process
    if large_batch == "accumulate" and smallest * plan.world < method.min_batch:
        raise InvalidValueError(
            f"`micro_batch_size` must leave {method.min_batch} samples to compare when gradients are accumulated, and "
            f"the smallest micro-batch would hold {smallest * plan.world}; make it larger, or take large_batch='cache'"
        )
    if smallest < 2 and _has_batch_norm(method):
        raise InvalidValueError(
            "`micro_batch_size` must leave 2 samples to the batch norms, and the smallest micro-batch would hold "
            f"{smallest}; make it larger"
        )


def warn_of_inexact_caching(method: Method, micro_batch_size: int) -> None:
    """Say that gradient caching is not exact where batch norms see micro-batches."""
    if _has_batch_norm(method):
        warn(
            f"gradient caching is not exact with batch norms: they see micro-batches of {micro_batch_size} samples, "
            "not the batch; use norms that do not look across samples, or take the difference",
            InexactWarning,
            stacklevel=3,
        )


def check_gradients(method: Method) -> None:
    """Refuse what DDP would refuse one step later, by an option that a run does not have, and without names."""
    without = [name for name, one in method.named_parameters() if one.requires_grad and one.grad is None]
    if without:
        raise IncompatibleError(
            "every trained parameter must take part in the loss where several processes share the work, and "
            f"{', '.join(without[:5])}{' ...' if len(without) > 5 else ''} took none; freeze them "
            "(`requires_grad_(False)`) or leave them out"
        )


def _has_batch_norm(method: Method) -> bool:
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in method.modules())
