"""The interface of encoders, and what makes one of any module.

Shapes: B samples, M rows of a view, D representation size.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from .errors import IncompatibleError, InvalidValueError
from .part import Part
from .values import Encoded, View

__all__ = ["Encoder", "as_encoder", "evaluating", "unwrapped"]


class Encoder(Part, ABC):
    """Inputs -> representation [B, D].

    Attributes:
        representation_size: D.

    A domain whose encoders also give one embedding per element (time step, token, node) overrides `encode`.
    """

    representation_size: int

    @property
    def unwrapped(self) -> nn.Module:
        """The module whose weights are saved as the encoder's: itself, unless it goes around another."""
        return self

    @abstractmethod
    def forward(self, inputs: Any) -> Tensor:
        """Return the representations [B, D] of a batch of inputs."""

    def encode(self, view: View, copies: Tensor) -> Encoded:
        """Return what a method sees of a view: its rows, under the keys of the view.

        Args:
            view: M rows.
            copies: the key of each augmented copy, int64 [M].

        Raises:
            InvalidValueError: if the output is not one row per row of the view.
        """
        rows = self(view.inputs)
        if not isinstance(rows, Tensor) or rows.ndim != 2 or len(rows) != len(view.ids):
            found = list(rows.shape) if isinstance(rows, Tensor) else type(rows).__name__
            raise InvalidValueError(
                f"an encoder must return one representation per row, [{len(view.ids)}, D], got {found} "
                f"from {type(self).__name__}; pool it to one vector per sample"
            )
        return Encoded(rows, view.ids, copies, view.labels, view.groups, valid=view.valid, coords=view.coords)


class _UnknownSizeError(IncompatibleError, AttributeError):
    """Nobody said how large an encoder's output is; an AttributeError too, so that `hasattr` answers."""


class _Wrapped(Encoder):
    """Any module that returns [B, D]."""

    def __init__(self, module: nn.Module, representation_size: int | None) -> None:
        super().__init__()
        self.module = module
        size = getattr(module, "representation_size", None) if representation_size is None else representation_size
        if size is not None:
            self.representation_size = int(size)

    @property
    def unwrapped(self) -> nn.Module:
        """What was wrapped."""
        return self.module

    def __getattr__(self, name: str) -> Any:
        if name == "representation_size":  # asked for before anybody said it
            raise _UnknownSizeError(
                f"the size of {type(self.module).__name__}'s output is not known; "
                "write kontrast.as_encoder(module, representation_size=...)"
            )
        return super().__getattr__(name)

    def forward(self, inputs: Any) -> Tensor:
        output: Tensor = self.module(inputs)
        return output


def as_encoder(module: nn.Module, representation_size: int | None = None) -> Encoder:
    """Return `module` as an Encoder: itself if it is one, else wrapped.

    Args:
        module: inputs -> [B, D].
        representation_size: D, where the module has no attribute of that name and a method asks for it.

    Raises:
        InvalidValueError: if it is not a module, or an Encoder of another size.
    """
    if isinstance(module, Encoder):
        if representation_size is not None and representation_size != module.representation_size:
            raise InvalidValueError(
                f"`representation_size` must be {module.representation_size}, which this {type(module).__name__} "
                f"says itself, got {representation_size}"
            )
        return module
    if not isinstance(module, nn.Module):
        raise InvalidValueError(f"an encoder must be a torch.nn.Module, got {type(module).__name__}")
    return _Wrapped(module, representation_size)


def unwrapped(encoder: nn.Module) -> nn.Module:
    """Return the module whose weights are saved: what `as_encoder` was given, or what the encoder says."""
    return encoder.unwrapped if isinstance(encoder, Encoder) else encoder


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Have a module in evaluation mode, then each of its parts in the mode it was in."""
    modes = [(part, part.training) for part in module.modules()]  # a part may be in another mode than the whole
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
