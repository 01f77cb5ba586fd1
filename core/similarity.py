"""How alike two embeddings are: a module of its own, which a method owns and its Pairs carry.

Shapes: A anchors, C candidates, P pairs, D embedding size.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

__all__ = ["Cosine", "Dot", "Similarity", "normalize"]


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


def normalize(rows: Tensor) -> Tensor:
    """Scale rows [..., D] to length 1; a zero row stays zero and gets no gradient (`F.normalize` gives it 1e12)."""
    squared = rows.square().sum(-1, keepdim=True)
    nonzero = squared > 0
    return rows * torch.where(nonzero, torch.where(nonzero, squared, 1.0).rsqrt(), 0.0)
