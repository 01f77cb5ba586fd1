"""Groups: rows of one scope, which meet those of the same scope alone; and stacks of them, one batched product each.

Shapes: A anchors, C candidates, G groups of n rows (and m columns) in a stack.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from .arrays import Array, argsort, array, between, library, numbers, runs, tensor, true_at

__all__ = ["Meeting", "Members", "groups_of", "meetings"]


@dataclass(frozen=True)
class Members:
    """Which rows are in some groups of one size.

    Args:
        index: the rows, group after group, [G x n]; None: all there are, in one group.
        shape: (G, n).
        live: which are not padding, bool [G, n]; None: all. Padding is read as some row and compared with none.
        lattice: (first row, how many from one group to the next, how many from one row of a group to the next), where
            all rows are at such distances: they are then read where they lie, and not copied.
    """

    index: Tensor | None
    shape: tuple[int, int]
    live: Tensor | None = None
    lattice: tuple[int, int, int] | None = None

    @classmethod
    def every(cls, count: int) -> "Members":
        """Return all of `count` rows as one group."""
        return cls(None, (1, count), None, (0, count, 1))

    @classmethod
    def of(cls, order: Array, start: Array, count: Array, first: int, last: int) -> "Members":
        """Return the rows `first` to `last` of the groups that begin at `start` in the order and have `count` rows."""
        position = numbers(last, order)[first:]
        shape = (len(start), last - first)
        index = order[(start[:, None] + position).clip(0, len(order) - 1)]
        live = position < count[:, None]
        if not bool(live.all()):
            return cls(tensor(index.reshape(-1)), shape, tensor(live))
        corner = index[:2, :2].tolist()
        begin = corner[0][0]
        across = corner[1][0] - begin if shape[0] > 1 else 1
        along = corner[0][1] - begin if shape[1] > 1 else 1
        expected = begin + across * numbers(len(start), order)[:, None] + along * (position - first)
        even = across > 0 and bool((index == expected).all())
        return cls(tensor(index.reshape(-1)), shape, None, (begin, across, along) if even else None)

    def read(self, tensor: Tensor) -> Tensor:
        """Return the rows [G, n, *]: a view of the tensor [A, *] where they are a lattice."""
        if self.lattice is None:
            assert self.index is not None
            return tensor.index_select(0, self.index).view(*self.shape, *tensor.shape[1:])
        begin, across, along = self.lattice
        each, *rest = tensor.stride()
        shape = *self.shape, *tensor.shape[1:]
        return tensor.as_strided(shape, (across * each, along * each, *rest), tensor.storage_offset() + begin * each)

    def put(self, total: Tensor, part: Tensor) -> None:
        """Write [G, n, *] into the rows."""
        if self.lattice is not None:
            self.read(total).copy_(part)
        elif self.live is None:
            total[self.index] = part.flatten(0, 1)
        else:
            assert self.index is not None
            total[self.index[self.live.flatten()]] = part[self.live]

    def add(self, total: Tensor, part: Tensor) -> None:
        """Add [G, n, *] to the rows; the padding's part must be zero, since it may be added to any."""
        if self.lattice is not None:
            self.read(total).add_(part)
        else:
            assert self.index is not None
            total.index_add_(0, self.index, part.flatten(0, 1))

    def opened(self, total: Tensor) -> Tensor:
        """Return what may be added to in place and then `close`d: the rows [G, n, *] themselves, or as many zeros."""
        return self.read(total) if self.lattice is not None else total.new_zeros(*self.shape, *total.shape[1:])

    def close(self, total: Tensor, part: Tensor) -> None:
        """Add what `opened` returned to the rows, where it is not they themselves."""
        if self.lattice is None:
            self.add(total, part)


def groups_of(scope: Tensor) -> tuple[Array, Array, Array, Array]:
    """Return (order of the rows by scope, the scopes, where each begins in the order, its rows); -1 is left out.

    The scopes come in order of their first rows.
    """
    rows = array(scope)
    order, ordered = numbers(len(rows), rows), rows
    starts, counts = runs(ordered)
    if 2 * len(starts) > len(rows) or not _once(ordered[starts]):
        order = argsort(rows)
        ordered = rows[order]
        starts, counts = runs(ordered)
    values = ordered[starts]
    real = true_at(values != -1)
    real = real[argsort(order[starts[real]])]
    return order, values[real], starts[real], counts[real]


def _once(values: Array) -> bool:
    """Return whether none of the values but -1 comes twice."""
    ordered = values[argsort(values)]
    return not bool(((ordered[1:] == ordered[:-1]) & (ordered[1:] != -1)).any())


@dataclass(frozen=True)
class Meeting:
    """The scopes that both sides know.

    Args:
        order_a: the anchors by scope, [A].
        start_a: where each group begins in that order, [G].
        count_a: how many anchors it has.
        order_c: the candidates by scope, [C].
        start_c: likewise.
        count_c: likewise.
    """

    order_a: Array
    start_a: Array
    count_a: Array
    order_c: Array
    start_c: Array
    count_c: Array

    def classes(self) -> Iterator[tuple[Array, int, int]]:
        """Yield groups of about one size, and the most anchors and candidates among them: half a side is padding."""
        size = _doublings(self.count_a) * 64 + _doublings(self.count_c)
        for one in library(size).unique(size).tolist():
            which = true_at(size == one)
            yield which, int(self.count_a[which].max()), int(self.count_c[which].max())

    def rows(self, groups: Array, first: int, last: int) -> Members:
        """Return the anchors `first` to `last` of some groups."""
        return Members.of(self.order_a, self.start_a[groups], self.count_a[groups], first, last)

    def columns(self, groups: Array, first: int, last: int) -> Members:
        """Return the candidates `first` to `last` of some groups."""
        return Members.of(self.order_c, self.start_c[groups], self.count_c[groups], first, last)


def _doublings(count: Array) -> Array:
    """Return how often 1 must be doubled to reach each count."""
    return library(count).ceil(library(count).log2(count))


def meetings(ours: Tensor, theirs: Tensor) -> Meeting:
    """Return the groups of anchors [A] and of candidates [C] whose scopes are equal; -1 meets nothing."""
    order_a, values_a, start_a, count_a = groups_of(ours)
    if theirs is ours:
        return Meeting(order_a, start_a, count_a, order_a, start_a, count_a)
    order_c, values_c, start_c, count_c = groups_of(theirs)
    by_value = argsort(values_c)
    at, found = between(values_c[by_value], values_a)
    meets = true_at(found)
    of_c = by_value[at[meets]]
    return Meeting(order_a, start_a[meets], count_a[meets], order_c, start_c[of_c], count_c[of_c])
