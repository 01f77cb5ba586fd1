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

from .arrays import cut
from .block import Block
from .groups import Members, meetings
from .keys import Keys

__all__ = ["Tile", "tiles"]


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

    rows: Members
    columns: Members

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
        self.rows.put(total, part)

    def add_anchors(self, total: Tensor, part: Tensor) -> None:
        self.rows.add(total, part)

    def add_candidates(self, total: Tensor, part: Tensor) -> None:
        self.columns.add(total, part)

    def keys(self, ours: Keys, theirs: Keys) -> tuple[Keys, Keys]:
        """Return the tile's keys; the padding's scope is -1, which is compared with nothing."""
        return _keys(self.rows, ours), _keys(self.columns, theirs)


def _keys(members: Members, keys: Keys) -> Keys:
    """Return the rows' keys [G, n], with scope 0, or -1 for padding."""
    found = keys.map(members.read)
    # All rows of a group share a scope: it need be compared only to keep the padding out.
    scope = torch.zeros_like(found.scope) if found.scope is not None else None
    if scope is not None and members.live is not None:
        scope = torch.where(members.live, 0, -1)
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
    meeting = meetings(ours, theirs)
    side = max(1, int(entries**0.5))
    for which, a, c in meeting.classes():
        rows = min(a, max(side, entries // c))
        columns = min(c, max(1, entries // rows))
        for groups in cut(which, max(1, entries // (rows * columns))):
            for i in range(0, a, rows):
                members = meeting.rows(groups, i, min(i + rows, a))
                for j in range(0, c, columns):
                    yield _Grouped(members, meeting.columns(groups, j, min(j + columns, c)))
