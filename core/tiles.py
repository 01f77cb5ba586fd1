"""Tiles: the parts of a block small enough to be held in memory one at a time.

A tile is some anchors against some candidates that may be compared. Its tensors have leading dimensions for the groups
it holds, so that a thousand scopes of sixteen rows are one batched product.

Shapes: A anchors, C candidates (or slots of an anchor, K) of a tile, G groups of a tile.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .block import Block, Keys

__all__ = ["Tile", "tiles"]


class Tile(ABC):
    """Which anchors, candidates and slots a tile holds, and how their tensors are read and added to."""

    @abstractmethod
    def anchors(self, tensor: Tensor) -> Tensor:
        """Return the tile's part of a tensor per anchor, [..., A, *]."""

    @abstractmethod
    def candidates(self, tensor: Tensor) -> Tensor:
        """Return the tile's part of a tensor per candidate, [..., C, *]."""

    @abstractmethod
    def slots(self, tensor: Tensor) -> Tensor:
        """Return the tile's part of a tensor per slot, [..., C]."""

    @abstractmethod
    def put(self, total: Tensor, part: Tensor) -> None:
        """Write [..., A, *] into a tensor per anchor; no two tiles at once write to one anchor."""

    @abstractmethod
    def add_anchors(self, total: Tensor, part: Tensor) -> None:
        """Add a gradient [..., A, D] to a tensor per anchor."""

    @abstractmethod
    def add_candidates(self, total: Tensor, part: Tensor) -> None:
        """Add a gradient [..., C, D] to a tensor per candidate."""

    def scopes(self, ours: Keys, theirs: Keys) -> tuple[Keys, Keys]:
        """Return the tile's keys of anchors and slots."""
        return ours.map(self.anchors), theirs.map(self.slots)


@dataclass(frozen=True)
class _Shared(Tile):
    """A run of anchors against a run of candidates."""

    rows: slice
    columns: slice

    def anchors(self, tensor: Tensor) -> Tensor:
        return tensor[self.rows]

    def candidates(self, tensor: Tensor) -> Tensor:
        return tensor[self.columns]

    slots = candidates

    def put(self, total: Tensor, part: Tensor) -> None:
        total[self.rows] = part

    def add_anchors(self, total: Tensor, part: Tensor) -> None:
        total[self.rows] += part

    def add_candidates(self, total: Tensor, part: Tensor) -> None:
        total[self.columns] += part


@dataclass(frozen=True)
class _Indexed(Tile):
    """A run of anchors, each a group by itself, against a run of its own slots."""

    rows: slice
    index: Tensor  # [G, K]
    columns: slice

    def anchors(self, tensor: Tensor) -> Tensor:
        return tensor[self.rows][:, None]

    def candidates(self, tensor: Tensor) -> Tensor:
        return tensor[self.index]

    def slots(self, tensor: Tensor) -> Tensor:
        return tensor[self.rows, self.columns]

    def put(self, total: Tensor, part: Tensor) -> None:
        total[self.rows] = part[:, 0]

    def add_anchors(self, total: Tensor, part: Tensor) -> None:
        total[self.rows] += part[:, 0]

    def add_candidates(self, total: Tensor, part: Tensor) -> None:
        total.index_add_(0, self.index.flatten(), part.flatten(0, 1))


@dataclass(frozen=True)
class _Grouped(Tile):
    """Groups of anchors and candidates of one scope each; short groups are padded with -1."""

    rows: Tensor  # [G, A]
    columns: Tensor  # [G, C]
    padded: bool

    def anchors(self, tensor: Tensor) -> Tensor:
        return self._read(tensor, self.rows)

    def candidates(self, tensor: Tensor) -> Tensor:
        return self._read(tensor, self.columns)

    slots = candidates

    def put(self, total: Tensor, part: Tensor) -> None:
        if self.padded:
            live = self.rows >= 0
            total[self.rows[live]] = part[live]
        else:
            total[self.rows.flatten()] = part.flatten(0, 1)

    def add_anchors(self, total: Tensor, part: Tensor) -> None:
        self._add(total, part, self.rows)

    def add_candidates(self, total: Tensor, part: Tensor) -> None:
        self._add(total, part, self.columns)

    def scopes(self, ours: Keys, theirs: Keys) -> tuple[Keys, Keys]:
        """Return the tile's keys; the padding's scope is -1, which is compared with nothing."""
        return self._keys(ours, self.rows), self._keys(theirs, self.columns)

    def _keys(self, keys: Keys, index: Tensor) -> Keys:
        found = keys.map(lambda key: self._read(key, index))
        # All rows of a group share a scope: it need be compared only to keep the padding out.
        return Keys(torch.where(index >= 0, 0, -1) if self.padded else None, found.row, found.match, found.alias)

    def _read(self, tensor: Tensor, index: Tensor) -> Tensor:
        return tensor[index.clamp(min=0) if self.padded else index]

    def _add(self, total: Tensor, part: Tensor, index: Tensor) -> None:
        # The padding's gradient is zero: it may be added to any row.
        total.index_add_(0, index.clamp(min=0).flatten(), part.flatten(0, 1))


def tiles(block: Block, entries: int) -> Iterator[Tile]:
    """Yield tiles that cover every pair that may be compared, each of about `entries` scores at most.

    Pairs whose scopes differ are in no tile: rows are sorted by scope, and scopes that do not meet are skipped.
    """
    a, c = len(block.anchors), len(block.candidates)
    if block.index is not None:
        k = block.index.shape[1]
        columns = min(k, max(1, entries // 32))
        # What is gathered, [G, K, D], is D times the scores: it is held to eight times the entries.
        rows = max(1, min(entries // max(columns, 1), 8 * entries // max(columns * block.anchors.shape[1], 1)))
        for j in range(0, k, columns):
            for i in range(0, a, rows):
                part = slice(i, i + rows), slice(j, j + columns)
                yield _Indexed(part[0], block.index[part], part[1])
        return
    ours, theirs = block.anchor_keys.scope, block.candidate_keys.scope
    if ours is not None and theirs is not None:
        yield from _grouped(ours, theirs, entries)
        return
    side = max(1, int(entries**0.5))
    rows = min(a, max(side, entries // max(c, 1)))
    columns = min(c, max(1, entries // max(rows, 1)))
    for i in range(0, a, max(rows, 1)):
        for j in range(0, c, max(columns, 1)):
            yield _Shared(slice(i, i + rows), slice(j, j + columns))


def _grouped(ours: Tensor, theirs: Tensor, entries: int) -> Iterator[Tile]:
    order_a, values_a, start_a, count_a = _groups(ours)
    order_c, values_c, start_c, count_c = _groups(theirs)
    at = torch.searchsorted(values_c, values_a).clamp(max=max(len(values_c) - 1, 0))
    if not len(values_c):
        return
    meets = values_c[at] == values_a
    start_a, count_a, start_c, count_c = start_a[meets], count_a[meets], start_c[at[meets]], count_c[at[meets]]
    # Groups of about one size are stacked: at most half of a side is padding.
    size_a, size_c = (torch.log2(count.double()).ceil().long() for count in (count_a, count_c))
    for size in torch.unique(size_a * 64 + size_c).tolist():
        which = (size_a * 64 + size_c == size).nonzero()[:, 0]
        a, c = int(count_a[which].max()), int(count_c[which].max())
        padded = int(count_a[which].min()) < a or int(count_c[which].min()) < c
        side = max(1, int(entries**0.5))
        rows = min(a, max(side, entries // c))
        columns = min(c, max(1, entries // rows))
        for groups in which.split(max(1, entries // (rows * columns))):
            for i in range(0, a, rows):
                index_a = _padded(order_a, start_a[groups], count_a[groups], i, min(i + rows, a))
                for j in range(0, c, columns):
                    index_c = _padded(order_c, start_c[groups], count_c[groups], j, min(j + columns, c))
                    yield _Grouped(index_a, index_c, padded)


def _groups(scope: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return (order of the rows by scope, the scopes, where each begins in the order, its rows); -1 is left out."""
    ordered, order = scope.sort(stable=True)
    values, counts = torch.unique_consecutive(ordered, return_counts=True)
    starts = counts.cumsum(0) - counts
    real = values != -1
    return order, values[real], starts[real], counts[real]


def _padded(order: Tensor, start: Tensor, count: Tensor, first: int, last: int) -> Tensor:
    """Return the rows `first` to `last` of every group, [G, last - first]; -1 beyond a group's end."""
    position = torch.arange(first, last, device=order.device)
    index = order[(start[:, None] + position).clamp(max=len(order) - 1)]
    return torch.where(position < count[:, None], index, -1)
