"""A frozen encoder that runs beside the one that is trained, on the same inputs.

Shapes: M rows of a view, D size of a representation, G size of the guide's embeddings.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from kontrast import Encoded, Encoder, InvalidValueError, View, as_encoder
from kontrast.encoder import evaluating

__all__ = ["WithGuide"]


class WithGuide(Encoder):
    """An encoder, and in the stream `guide` what a frozen guide makes of the same views, for `GuidedNegatives`.

    ``Method(WithGuide(encoder, guide), sampler=GuidedNegatives(InBatch(), "guide"), ...)``

    The guide is not trained: it is in evaluation mode, gets no gradient, is no part of the weights that are averaged or
    saved, and copies of the encoder (`Momentum`) share it. It must be given again when a run is resumed.

    Args:
        encoder: what is trained; what is saved are its own weights.
        guide: a view's inputs -> embeddings [M, G].

    Raises:
        InvalidValueError: if either is no module, or the guide returns something else.

    Source:
        Solatorio 2024 (GISTEmbed), arXiv:2402.16829, section 3.
    """

    def __init__(self, encoder: nn.Module, guide: nn.Module) -> None:
        super().__init__()
        if not isinstance(guide, nn.Module):
            raise InvalidValueError(f"`guide` must be a torch.nn.Module, got {guide!r}")
        self.encoder = as_encoder(encoder)
        if hasattr(self.encoder, "representation_size"):
            self.representation_size = self.encoder.representation_size
        self._guide = _Shared(guide)  # no submodule: those are trained and saved

    @property
    def guide(self) -> nn.Module:
        """The guide."""
        return self._guide.module

    @property
    def unwrapped(self) -> nn.Module:
        """The encoder that is trained."""
        return self.encoder.unwrapped

    def forward(self, inputs: Any) -> Tensor:
        """Return the representations [B, D] of the encoder that is trained."""
        representations: Tensor = self.encoder(inputs)
        return representations

    def encode(self, view: View, copies: Tensor) -> Encoded:
        """Return what the encoder makes of a view, with the guide's embeddings as a stream."""
        encoded = self.encoder.encode(view, copies)
        with torch.no_grad(), evaluating(self.guide):
            rows = self.guide(view.inputs)
        if not isinstance(rows, Tensor) or rows.ndim != 2 or len(rows) != len(view.ids):
            found = list(rows.shape) if isinstance(rows, Tensor) else type(rows).__name__
            raise InvalidValueError(f"a guide must return one embedding per row, [{len(view.ids)}, G], got {found}")
        return replace(encoded, streams={**encoded.streams, "guide": Encoded(rows, view.ids, copies)})

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "WithGuide":
        # It goes where the encoder goes.
        self.guide._apply(fn)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


class _Shared:
    """A module that copies of its holder share."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Shared":
        return self
