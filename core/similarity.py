"""How alike two embeddings are: a module of its own, which a method owns and its Pairs carry.

Shapes: A anchors, C candidates, P pairs, D embedding size.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from .errors import InvalidValueError

__all__ = ["Cosine", "Dot", "LearnedTemperature", "Similarity", "normalize"]


class Similarity(nn.Module, ABC):
    """A score that is the product of two prepared rows, so that it can be taken tile by tile.

    `bounded` says that every score lies in [-1, 1].
    """

    bounded = False

    @abstractmethod
    def prepare(self, rows: Tensor) -> Tensor:
        """Return what enters the product for rows [..., D]."""

    def scores(self, anchors: Tensor, candidates: Tensor) -> Tensor:
        """Return the scores [..., A, C] of anchors [..., A, D] against candidates [..., C, D]."""
        return self.prepare(anchors) @ self.prepare(candidates).transpose(-1, -2)

    def paired(self, anchors: Tensor, candidates: Tensor) -> Tensor:
        """Return the scores [P] of anchors [P, D] against candidates [P, D], row by row."""
        return (self.prepare(anchors) * self.prepare(candidates)).sum(-1)


class Cosine(Similarity):
    """The cosine of the angle between two rows; a zero row has score 0 and no gradient."""

    bounded = True

    def prepare(self, rows: Tensor) -> Tensor:
        """Return the rows scaled to length 1."""
        return normalize(rows)


class Dot(Similarity):
    """The dot product, as it is (TS2Vec, DPR); unbounded."""

    def prepare(self, rows: Tensor) -> Tensor:
        """Return the rows themselves."""
        return rows


class LearnedTemperature(Similarity):
    """Another similarity divided by a temperature that is learned (CLIP): give the objective a temperature of 1.

    The parameter is the log of the inverse temperature; where it would pass the bound it is held there.

    Args:
        similarity: what is scaled; the cosine by default.
        initial: temperature at the start, > 0; 0.07 in CLIP.
        smallest: temperature it cannot fall below, > 0; 0.01 in CLIP.

    Raises:
        InvalidValueError: if a temperature is not > 0, or `initial` is below `smallest`.

    Source:
        Radford et al. 2021, arXiv:2103.00020, section 2.5.
    """

    def __init__(self, similarity: Similarity | None = None, initial: float = 0.07, smallest: float = 0.01) -> None:
        super().__init__()
        if not initial >= smallest > 0:
            raise InvalidValueError(
                f"temperatures must be `initial` >= `smallest` > 0, got {initial!r} and {smallest!r}"
            )
        self.similarity = Cosine() if similarity is None else similarity
        self.log_inverse_temperature = nn.Parameter(torch.tensor(-math.log(initial)))
        self.largest = 1 / smallest

    def prepare(self, rows: Tensor) -> Tensor:
        """Return the inner similarity's rows, each side scaled by the root of the inverse temperature."""
        # The root on both sides keeps the product symmetric.
        scale = self.log_inverse_temperature.to(rows.dtype).exp().clamp(max=self.largest)
        return self.similarity.prepare(rows) * scale.sqrt()

    def metrics(self) -> dict[str, float]:
        """Return the temperature."""
        return {"temperature": 1 / min(self.log_inverse_temperature.detach().exp().item(), self.largest)}


def normalize(rows: Tensor) -> Tensor:
    """Scale rows [..., D] to length 1; a zero row stays zero and gets no gradient (`F.normalize` gives it 1e12)."""
    squared = rows.square().sum(-1, keepdim=True)
    nonzero = squared > 0
    return rows * torch.where(nonzero, torch.where(nonzero, squared, 1.0).rsqrt(), 0.0)
