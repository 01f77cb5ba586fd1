"""What a run refuses or warns of before its first step."""

from warnings import warn

from torch import nn

from .errors import InvalidValueError
from .loader import Plan
from .method import Method

__all__ = ["InexactWarning", "check_batch", "warn_of_inexact_caching"]


class InexactWarning(UserWarning):
    """A setting makes a run differ from what it stands for."""


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
            "use a larger batch_size, and drop_last=True"
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


def _has_batch_norm(method: Method) -> bool:
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in method.modules())
