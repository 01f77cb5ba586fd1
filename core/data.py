"""Data sets as a run sees them: indices in, a Batch out.

Shapes: N samples, B samples of a batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from .errors import IncompatibleError, InvalidValueError
from .random import Draws
from .values import Batch

if TYPE_CHECKING:
    from .augmenter import Augmenter

__all__ = ["ArrayData", "Data", "Splits"]


class Data(Protocol):
    """What a run trains on: it knows its length and makes batches of given samples."""

    def __len__(self) -> int:
        """Return the number of samples N."""
        ...

    def batch(self, indices: Tensor) -> Batch:
        """Return the samples at `indices`, int64 [B] in 0..N-1; the ids of a sample never change.

        It must draw no random numbers: batches are loaded ahead, and a resume loads them again.
        """
        ...


D = TypeVar("D", bound=Data, covariant=True)


class ArrayData:
    """Samples in one tensor, in memory.

    Args:
        inputs: [N, ...].
        labels: classes, int64 [N].
        groups: int64 [N].

    Raises:
        InvalidValueError: if lengths differ or there is no sample.
    """

    def __init__(self, inputs: Tensor, labels: Tensor | None = None, groups: Tensor | None = None) -> None:
        if not len(inputs):
            raise InvalidValueError("a data set must hold at least one sample, got none")
        for name, keys in (("labels", labels), ("groups", groups)):
            if keys is None:
                continue
            if not isinstance(keys, Tensor) or keys.shape != (len(inputs),) or keys.dtype != torch.int64:
                found = f"{keys.dtype} {list(keys.shape)}" if isinstance(keys, Tensor) else type(keys).__name__
                raise InvalidValueError(
                    f"`{name}` must be an int64 tensor [{len(inputs)}], one per sample, got {found}"
                )
        self.inputs = inputs
        self.labels = labels
        self.groups = groups

    def __len__(self) -> int:
        return len(self.inputs)

    def batch(self, indices: Tensor) -> Batch:
        """Return the samples at `indices`; a sample's id is its index."""
        labels, groups = (None if keys is None else keys[indices] for keys in (self.labels, self.groups))
        return Batch(self.inputs[indices], indices, labels, groups)

    def augmented(self, augmenter: "Augmenter", *, seed: int) -> "ArrayData":
        """Return the same samples, each replaced by one augmented copy (the first view), fixed by `seed`."""
        view = augmenter(self.batch(torch.arange(len(self))), Draws(seed))[0]
        return ArrayData(view.inputs, self.labels, self.groups)


@dataclass(frozen=True)
class Splits(Generic[D]):
    """A data set in its parts.

    Args:
        train: what a method trains on; its labels are read by evaluation alone.
        held_out: the test part, where the source has one.
        about: what factories of encoders and augmenters want to know, by parameter name, e.g. `{"in_channels": 1}`.
    """

    train: D
    held_out: D | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def test(self) -> D:
        """The test part.

        Raises:
            IncompatibleError: if there is none.
        """
        if self.held_out is None:
            raise IncompatibleError("this data set has no test part; give it one, or evaluate on another data set")
        return self.held_out
