"""InfoNCE without a temperature: the cosine goes through an inverse hyperbolic tangent.

Shapes: A anchors, C candidates, D embedding size.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from kontrast import Cosine, InvalidValueError, Loss, Needs, Objective, Pairs
from kontrast.plugins.objectives.info_nce import InfoNCE

__all__ = ["TemperatureFreeInfoNCE"]


class TemperatureFreeInfoNCE(Objective):
    """InfoNCE on logits 2 artanh(cos), which take all values, so that no temperature need be chosen.

    ::

        logit = 2 artanh(c) = log( (1 + c) / (1 - c) ),   c = the cosine, held in [-1 + clamp, 1 - clamp]

    Args:
        clamp: how far from -1 and 1 the cosine is held, in (0, 1); a cosine beyond has no gradient.

    Raises:
        InvalidValueError: if `clamp` is not in (0, 1).

    Source:
        Kim and Kim 2025, arXiv:2501.17683.
    """

    needs = Needs(negatives=True, softmax=True, similarity=Cosine, weights=True)

    def __init__(self, clamp: float = 1e-6) -> None:
        super().__init__()
        if not 0 < clamp < 1:
            raise InvalidValueError(f"`clamp` must be in (0, 1), got {clamp!r}; at 1 the logit is infinite")
        self.clamp = clamp
        self._similarity = _InverseTanh(clamp)
        self._info_nce = InfoNCE(1.0)

    def forward(self, pairs: Pairs) -> Loss:
        """Return the loss over anchors that have a positive, in nats.

        Args:
            pairs: anchors [A, D] against candidates [C, D].
        """
        return self._info_nce.forward(replace(pairs, similarity=self._similarity))


class _InverseTanh(Cosine):
    """2 artanh of the cosine."""

    def __init__(self, clamp: float) -> None:
        super().__init__()
        self.limit = 1 - clamp

    @property
    def bound(self) -> float:
        """2 artanh of the limit."""
        return 2 * math.atanh(self.limit)

    def transform(self, products: Tensor) -> Tensor:
        """Return 2 artanh of the products."""
        return 2 * torch.atanh(products.clamp(-self.limit, self.limit))
