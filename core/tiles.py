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

__all__ = ["Tile", "groups_of", "tiles"]


class Tile(ABC):
    """Which anchors, candidates and slots a tile holds, and how their tensors are read and added to."""

    entries: int  # how many scores it holds

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

    def keys(self, ours: Keys, theirs: Keys) -> tuple[Keys, Keys]:
        """Return the tile's keys of anchors and slots."""
        return ours.map(self.anchors), theirs.map(self.slots)


@dataclass(frozen=True)
class _Shared(Tile):
    """A run of anchors against a run of candidates."""

    rows: slice
    columns: slice
    entries: int

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
    entries: int

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
    """Groups of anchors and candidates of one scope each; short groups are padded."""

    rows: "_Members"
    columns: "_Members"

    @property
    def entries(self) -> int:  # type: ignore[override]
        """The number of scores."""
        return self.rows.shape[0] * self.rows.shape[1] * self.columns.shape[1]

    def anchors(self, tensor: Tensor) -> Tensor:
        return self.rows.read(tensor)

    def candidates(self, tensor: Tensor) -> Tensor:
        return self.columns.read(tensor)

    slots = candidates

    def put(self, total: Tensor, part: Tensor) -> None:
        index, live = self.rows.index, self.rows.live
        if live is None:
            total[index] = part.flatten(0, 1)
        else:
            total[index[live.flatten()]] = part[live]

    def add_anchors(self, total: Tensor, part: Tensor) -> None:
        self.rows.add(total, part)

    def add_candidates(self, total: Tensor, part: Tensor) -> None:
        self.columns.add(total, part)

    def keys(self, ours: Keys, theirs: Keys) -> tuple[Keys, Keys]:
        """Return the tile's keys; the padding's scope is -1, which is compared with nothing."""
        return self.rows.keys(ours), self.columns.keys(theirs)


@dataclass(frozen=True)
class _Members:
    """Which rows are in some groups of one size.

    Args:
        index: the rows, group after group, [G x n].
        shape: (G, n).
        live: which are not padding, bool [G, n]; None: all. Padding is read as some row and compared with none.
        run: the same rows where they lie in order, so that they need not be copied together.
    """

    index: Tensor
    shape: tuple[int, int]
    live: Tensor | None
    run: slice | None

    @classmethod
    def of(cls, order: Tensor, start: Tensor, count: Tensor, first: int, last: int) -> "_Members":
        """Return the rows `first` to `last` of the groups that begin at `start` in the order and have `count` rows."""
        position = torch.arange(first, last, device=order.device)
        index = order[(start[:, None] + position).clamp(max=len(order) - 1)].flatten()
        shape = (len(start), last - first)
        live = position < count[:, None]
        if not bool(live.all()):
            return cls(index, shape, live, None)
        begin = int(index[0])
        run = slice(begin, begin + len(index))
        straight = torch.equal(index, torch.arange(run.start, run.stop, device=order.device))
        return cls(index, shape, None, run if straight else None)

    def read(self, tensor: Tensor) -> Tensor:
        """Return the rows, [G, n, *]."""
        rows = tensor.index_select(0, self.index) if self.run is None else tensor[self.run]
        return rows.view(*self.shape, *tensor.shape[1:])

    def add(self, total: Tensor, part: Tensor) -> None:
        """Add [G, n, *] to the rows; the padding's gradient is zero, so it may be added to any."""
        if self.run is None:
            total.index_add_(0, self.index, part.flatten(0, 1))
        else:
            total[self.run] += part.flatten(0, 1)

    def keys(self, keys: Keys) -> Keys:
        """Return the rows' keys [G, n], with scope 0, or -1 for padding."""
        found = keys.map(self.read)
        # All rows of a group share a scope: it need be compared only to keep the padding out.
        scope = torch.zeros_like(found.scope) if found.scope is not None else None
        if scope is not None and self.live is not None:
            scope = torch.where(self.live, 0, -1)
        return Keys(scope, found.row, found.match, found.alias)


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
                index = block.index[part]
                yield _Indexed(part[0], index, part[1], index.numel())
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
            yield _Shared(slice(i, i + rows), slice(j, j + columns), rows * columns)


def _grouped(ours: Tensor, theirs: Tensor, entries: int) -> Iterator[Tile]:
    order_a, values_a, start_a, count_a = groups_of(ours)
    order_c, values_c, start_c, count_c = groups_of(theirs)
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
        side = max(1, int(entries**0.5))
        rows = min(a, max(side, entries // c))
        columns = min(c, max(1, entries // rows))
        for groups in which.split(max(1, entries // (rows * columns))):
            for i in range(0, a, rows):
                members = _Members.of(order_a, start_a[groups], count_a[groups], i, min(i + rows, a))
                for j in range(0, c, columns):
                    others = _Members.of(order_c, start_c[groups], count_c[groups], j, min(j + columns, c))
                    yield _Grouped(members, others)


def groups_of(scope: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return (order of the rows by scope, the scopes, where each begins in the order, its rows); -1 is left out."""
    ordered, order = scope.sort(stable=True)
    values, counts = torch.unique_consecutive(ordered, return_counts=True)
    starts = counts.cumsum(0) - counts
    real = values != -1
    return order, values[real], starts[real], counts[real]
