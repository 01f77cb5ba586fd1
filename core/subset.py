"""A labelled part of a data set: a random share of each class, for evaluation with few labels.

Shapes: N samples, S samples of the subset, B samples of a batch.
"""

import math

import torch
from torch import Tensor

from .data import Data
from .errors import InvalidValueError
from .values import Batch

__all__ = ["Subset", "stratified"]


class Subset:
    """Some samples of a data set; they keep their ids.

    Args:
        data: the whole.
        indices: which samples, int64 [S].
    """

    def __init__(self, data: Data, indices: Tensor) -> None:
        self.data = data
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, indices: Tensor) -> Batch:
        """Return samples by their place in the subset, 0..S-1."""
        return self.data.batch(self.indices[indices])


def stratified(labels: Tensor, fraction: float, *, seed: int = 0) -> Tensor:
    """Return the indices [S], ascending, of a random subset with the same share of each class.

    A class of n samples gives `fraction` x n of them, rounded, halves up, and at least one. Of one seed, the samples of
    a smaller fraction are among those of a larger one.

    Args:
        labels: classes, int64 [N].
        fraction: share of the samples, in (0, 1].
        seed: which of them.

    Raises:
        InvalidValueError: if `fraction` is out of range.
    """
    if not 0 < fraction <= 1:
        raise InvalidValueError(f"`fraction` must be in (0, 1], got {fraction!r}; it is a share of the labels")
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    chosen = []
    for label in labels.unique():
        members = order[labels[order] == label]
        chosen.append(members[: max(1, math.floor(fraction * len(members) + 0.5))])
    return torch.cat(chosen).sort().values
