"""What a batch is made of: several of each class, one group alone, or no two alike.

Each goes around a sampler, orders the samples of an epoch and leaves the pairs to the other. What does not fill a batch
comes last, in random order; with `drop_last` it is left out. One of them alone: each orders the whole epoch.

Shapes: N samples.
"""

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from kontrast import IncompatibleError, InvalidValueError, PairSampler, Wrapper

__all__ = ["NoDuplicates", "PerClass", "SameGroup"]


class _Composing(Wrapper):
    """A wrapper that orders the samples of an epoch."""

    def __init__(self, inner: PairSampler) -> None:
        super().__init__(inner)
        for part in self.inside():
            if isinstance(part, _Composing):
                raise IncompatibleError(
                    f"{type(self).__name__} composes batches, and so does {type(part).__name__} inside it, whose order "
                    "would be lost; leave one out"
                )


class PerClass(_Composing):
    """Batches of `per_class` samples from each of batch size / `per_class` classes.

    Args:
        inner: the sampler that makes the pairs, such as ``InBatch(match="labels")``.
        per_class: samples of each class in a batch, >= 2; it must divide the batch size.

    Raises:
        InvalidValueError: if `per_class` is not >= 2.
    """

    def __init__(self, inner: PairSampler, per_class: int = 4) -> None:
        super().__init__(inner)
        if per_class < 2:
            raise InvalidValueError(f"`per_class` must be >= 2, got {per_class!r}; it is samples of a class in a batch")
        self.per_class = per_class

    def arrange(self, order: Tensor, batch_size: int, labels: Tensor | None, groups: Tensor | None) -> Tensor:
        """Return the order of an epoch; samples without a label (-1) come last."""
        order = self.inner.arrange(order, batch_size, labels, groups)
        found = _wanted(self, "labels", labels)[order]
        if batch_size % self.per_class:
            raise InvalidValueError(
                f"`per_class` must divide the batch size, got {self.per_class} and a batch of {batch_size}"
            )
        classes = batch_size // self.per_class
        parts, rest = _parts(found, self.per_class)
        known = len(torch.unique(found[found != -1]))
        if known < classes:
            raise InvalidValueError(
                f"batches of {batch_size} with {self.per_class} samples of each class need {classes} classes, and the "
                f"data have {known}; make `per_class` larger or the batch smaller"
            )
        chosen, left = _spread([int(found[part[0]]) for part in parts], classes)
        positions = [position for n in (*chosen, *left) for position in parts[n]]
        return order[torch.tensor([*positions, *rest], dtype=torch.int64)]


class SameGroup(_Composing):
    """Batches whose samples all come from one group (a speaker, a document, a task): their negatives are then hard.

    Args:
        inner: the sampler that makes the pairs.
    """

    def arrange(self, order: Tensor, batch_size: int, labels: Tensor | None, groups: Tensor | None) -> Tensor:
        """Return the order of an epoch; samples without a group (-1) come last."""
        order = self.inner.arrange(order, batch_size, labels, groups)
        parts, rest = _parts(_wanted(self, "groups", groups)[order], batch_size)
        positions = [position for part in parts for position in part]
        return order[torch.tensor([*positions, *rest], dtype=torch.int64)]


class NoDuplicates(_Composing):
    """Batches in which no label comes twice, so that no negative is a positive in disguise.

    Args:
        inner: the sampler that makes the pairs.
    """

    def arrange(self, order: Tensor, batch_size: int, labels: Tensor | None, groups: Tensor | None) -> Tensor:
        """Return the order of an epoch; -1 is like nothing and never a duplicate."""
        order = self.inner.arrange(order, batch_size, labels, groups)
        found = _wanted(self, "labels", labels)[order].tolist()
        alone = [label if label != -1 else -2 - n for n, label in enumerate(found)]
        chosen, left = _spread(alone, batch_size)
        return order[torch.tensor([*chosen, *left], dtype=torch.int64)]


def _wanted(sampler: PairSampler, name: str, keys: Tensor | None) -> Tensor:
    if keys is None:
        raise IncompatibleError(
            f"{type(sampler).__name__} composes batches by `{name}`, and the data set has none; give it `{name}`"
        )
    return keys


def _parts(keys: Tensor, size: int) -> tuple[list[list[int]], list[int]]:
    """Cut each key's positions into parts of `size`, in order of their first; return them and what is left over."""
    ordered, position = keys.sort(stable=True)
    _, counts = torch.unique_consecutive(ordered, return_counts=True)
    inside = torch.arange(len(keys)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    whole = (inside < (counts // size * size).repeat_interleave(counts)) & (ordered != -1)
    parts = position[whole].view(-1, size)
    parts = parts[parts[:, 0].argsort()]
    return parts.tolist(), position[~whole].sort().values.tolist()


def _spread(keys: Sequence[int], size: int) -> tuple[list[int], list[int]]:
    """Return positions such that no run of `size` holds a key twice, and those that are left over, in order."""
    new, waiting = deque(enumerate(keys)), dict[int, deque[int]]()
    chosen: list[int] = []
    while True:
        batch, seen = list[int](), set[int]()
        for key in list(waiting):  # what had to wait goes first, so that a frequent key is in every batch
            if len(batch) == size:
                break
            batch.append(waiting[key].popleft())
            seen.add(key)
            if not waiting[key]:
                del waiting[key]
        while new and len(batch) < size:
            n, key = new.popleft()
            if key in seen:
                waiting.setdefault(key, deque()).append(n)
            else:
                batch.append(n)
                seen.add(key)
        if len(batch) < size:
            left = [*batch, *(n for queue in waiting.values() for n in queue), *(n for n, _ in new)]
            return chosen, sorted(left)
        chosen.extend(batch)
