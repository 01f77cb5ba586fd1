"""Further similarities: bilinear, distances, and a small network.

Shapes: A anchors, C candidates, D embedding size.
"""

import math

import torch
from torch import Tensor, nn

from .errors import InvalidValueError
from .similarity import Similarity

__all__ = ["MLP", "Bilinear", "NegativeDistance", "NegativeSquaredDistance"]


class Bilinear(Similarity):
    """a^T W c with a learned W (CPC, CURL): the sides play different parts.

    Args:
        size: D of the embeddings; W is D x D, drawn as CURL draws it, uniformly from [0, 1).

    Raises:
        InvalidValueError: if `size` is not >= 1.

    Source:
        van den Oord et al. 2018, arXiv:1807.03748, eq. 3; Laskin et al. 2020, arXiv:2004.04136, section 4.3.
    """

    symmetric = False

    def __init__(self, size: int) -> None:
        super().__init__()
        if size < 1:
            raise InvalidValueError(f"`size` must be >= 1, got {size!r}; it is the embeddings' last dimension")
        self.weight = nn.Parameter(torch.rand(size, size))

    def prepare(self, rows: Tensor) -> Tensor:
        """Return a^T W."""
        return rows @ self.weight.to(rows.dtype)

    def prepare_candidates(self, rows: Tensor) -> Tensor:
        """Return c."""
        return rows


class NegativeSquaredDistance(Similarity):
    """-|a - c|^2, as a product: [sqrt 2 a, -|a|^2, 1] . [sqrt 2 c, 1, -|c|^2]. Never above 0."""

    symmetric = False  # the score is, but the two sides are prepared differently

    def prepare(self, rows: Tensor) -> Tensor:
        """Return [sqrt 2 a, -|a|^2, 1]."""
        squared = rows.square().sum(-1, keepdim=True)
        return torch.cat([rows * math.sqrt(2), -squared, torch.ones_like(squared)], dim=-1)

    def prepare_candidates(self, rows: Tensor) -> Tensor:
        """Return [sqrt 2 c, 1, -|c|^2]."""
        squared = rows.square().sum(-1, keepdim=True)
        return torch.cat([rows * math.sqrt(2), torch.ones_like(squared), -squared], dim=-1)

    def transform(self, products: Tensor) -> Tensor:
        """Return the products, a rounding above 0 held at 0."""
        return products.clamp(max=0)


class NegativeDistance(NegativeSquaredDistance):
    """-|a - c|; where the two are equal the gradient is zero."""

    def transform(self, products: Tensor) -> Tensor:
        """Return minus the root of what the product is the negative of."""
        apart = products < 0
        # Times zero, not zero: what is not a number stays visible.
        return torch.where(apart, -torch.where(apart, -products, 1.0).sqrt(), 0.0 * products)


class MLP(Similarity):
    """A small network on the two embeddings side by side. Not a product: every tile is evaluated, A x C times D work.

    Args:
        size: D of the embeddings.
        hidden_size: of the one hidden layer, >= 1.

    Raises:
        InvalidValueError: if a size is not >= 1.
    """

    factors = False
    symmetric = False

    def __init__(self, size: int, hidden_size: int = 128) -> None:
        super().__init__()
        if size < 1 or hidden_size < 1:
            raise InvalidValueError(f"`size` and `hidden_size` must be >= 1, got {size!r} and {hidden_size!r}")
        # The first layer on [a, c] is the sum of a layer on each: A + C products in place of A x C.
        self.anchor = nn.Linear(size, hidden_size)
        self.candidate = nn.Linear(size, hidden_size, bias=False)
        self.out = nn.Linear(hidden_size, 1)

    def scores(self, anchors: Tensor, candidates: Tensor) -> Tensor:
        """Return the network's output for each pair."""
        hidden = self.anchor(anchors)[..., :, None, :] + self.candidate(candidates)[..., None, :, :]
        scores: Tensor = self.out(torch.relu(hidden))[..., 0]
        return scores
