"""How the fast way through a block is cut: stacks of groups, tiles of a stack, and in each the pairs struck from it.

Shapes: A anchors, C candidates, G groups of n rows and m columns in a stack, E excepted pairs.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .arrays import Array, argsort, array, cut, library, numbers, ranges, repeat, tensor
from .groups import Meeting, Members, meetings

__all__ = ["Part", "Plan", "Stack", "plan"]

# Rows from which a group that meets itself is cut in two, so that half of what lies off the diagonal is not multiplied.
HALVED = 512


@dataclass(frozen=True)
class Part:
    """A tile of a stack.

    Args:
        rows: of each group.
        columns: of each group.
        diagonal: whether it meets itself, so that it holds each of its pairs both ways.
        place: the excepted pairs it holds, by their place in [G, rows, columns] laid flat.
        turned: the places of the same pairs the other way round, in a tile on the diagonal; else empty.
        number: which of the excepted pairs they are.
    """

    rows: slice
    columns: slice
    diagonal: bool
    place: Tensor
    turned: Tensor
    number: Tensor

    def shape(self, stack: "Stack") -> tuple[int, int, int]:
        """Return [G, rows, columns]."""
        return stack.rows.shape[0], self.rows.stop - self.rows.start, self.columns.stop - self.columns.start


@dataclass(frozen=True)
class Stack:
    """Groups of one size, and the tiles they are walked by."""

    rows: Members
    columns: Members
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Plan:
    """All of a block.

    Args:
        stacks: in order.
        sizes: how many candidates each anchor meets, excepted or not, int64 [A].
        entries: scores of all tiles.
        largest: of the largest one.
    """

    stacks: tuple[Stack, ...]
    sizes: Tensor
    entries: int
    largest: int


def plan(
    shape: tuple[int, int],
    mirrored: bool,
    excepted: tuple[Tensor, Tensor],
    scopes: tuple[Tensor, Tensor] | None,
    *,
    entries: int,
    stacked: int,
) -> Plan:
    """Cut a block.

    Args:
        shape: (A, C).
        mirrored: whether candidates are the anchors themselves: a tile then serves both directions.
        excepted: (anchor [E], candidate [E]), inside of scopes.
        scopes: of anchors [A] and candidates [C]; None: all meet all.
        entries: scores in a tile.
        stacked: scores in a stack of several groups.
    """
    anchor, candidate = map(array, excepted)
    if scopes is None:
        sizes = torch.full((shape[0],), shape[1], device=excepted[0].device)
        found = [(Members.every(shape[0]), Members.every(shape[1]))] if min(shape) else []
        of = group = numbers(0, anchor)
        row, column = anchor, candidate
    else:
        meeting = meetings(*scopes)
        found, of, group = _stacks(meeting, mirrored, stacked)
        number_a, row = _positions(meeting.order_a, meeting.start_a, meeting.count_a)
        column = row if mirrored else _positions(meeting.order_c, meeting.start_c, meeting.count_c)[1]
        meets = number_a != -1
        sizes = number_a * 0
        sizes[meets] = meeting.count_c[number_a[meets]]
        sizes = tensor(sizes)
        number = number_a[anchor]
        of, group, row, column = of[number], group[number], row[anchor], column[candidate]
    number, ends = numbers(len(anchor), anchor), [len(anchor)]
    if len(found) > 1:
        number, ends = _by(of, len(found))
        row, column, group = row[number], column[number], group[number]
    stacks = []
    for n, (rows, columns) in enumerate(found):
        here = slice(ends[n - 1] if n else 0, ends[n])
        inside = 0 if scopes is None else group[here]
        parts = _parts(rows, columns, mirrored, inside, row[here], column[here], number[here], entries)
        stacks.append(Stack(rows, columns, tuple(parts)))
    tiles = [math.prod(part.shape(stack)) for stack in stacks for part in stack.parts]
    return Plan(tuple(stacks), sizes, sum(tiles), max(tiles, default=0))


def _stacks(meeting: Meeting, mirrored: bool, stacked: int) -> tuple[list[tuple[Members, Members]], Array, Array]:
    """Return the stacks, and of every group which stack it is in and where there."""
    found: list[tuple[Members, Members]] = []
    of, group = meeting.start_a * 0, meeting.start_a * 0
    for which, n, m in meeting.classes():
        for groups in cut(which, max(1, stacked // (n * m))):
            rows = meeting.rows(groups, 0, n)
            of[groups] = len(found)
            group[groups] = numbers(len(groups), groups)
            found.append((rows, rows if mirrored else meeting.columns(groups, 0, m)))
    return found, of, group


def _positions(order: Array, start: Array, count: Array) -> tuple[Array, Array]:
    """Return the group of every row, -1 where it is in none, and its position there."""
    number, position = order * 0 - 1, order * 0
    group = repeat(numbers(len(count), count), count)
    rows = order[ranges(start, count)]
    number[rows], position[rows] = group, ranges(start * 0, count)
    return number, position


def _by(of: Array, count: int) -> tuple[Array, list[int]]:
    """Return the order by `of`, and where each of its `count` values ends in it."""
    return argsort(of), library(of).bincount(of, minlength=count).cumsum(0).tolist()


def _parts(
    members: Members,
    others: Members,
    mirrored: bool,
    group: Array | int,
    row: Array,
    column: Array,
    number: Array,
    entries: int,
) -> list[Part]:
    (groups, n), m = members.shape, others.shape[1]
    rows, columns = _sides(groups, n, m, mirrored, entries)
    down, across = -(-n // rows), -(-m // columns)
    if mirrored and down > 1:  # below the diagonal there is no tile: the pair is in its mirror image
        turn = row // rows > column // columns
        row, column = library(row).where(turn, column, row), library(row).where(turn, row, column)
    ends: list[int] = [len(row)]
    high: Array | int = n
    wide: Array | int = m
    if down * across > 1:
        order, ends = _by(row // rows * across + column // columns, down * across)
        row, column, number = row[order], column[order], number[order]
        group = group if isinstance(group, int) else group[order]
        high, wide = (
            (side - at // size * size).clip(0, size) for at, side, size in ((row, n, rows), (column, m, columns))
        )
        row, column = row % rows, column % columns
    place = (group * high + row) * wide + column
    turned = (group * high + column) * wide + row
    parts = []
    for i in range(down):
        for j in range(i if mirrored else 0, across):
            at = i * across + j
            here = slice(ends[at - 1] if at else 0, ends[at])
            part = slice(i * rows, min(n, (i + 1) * rows)), slice(j * columns, min(m, (j + 1) * columns))
            diagonal = mirrored and i == j
            turned_here = turned[here if diagonal else slice(0)]
            parts.append(Part(*part, diagonal, tensor(place[here]), tensor(turned_here), tensor(number[here])))
    return parts


def _sides(groups: int, n: int, m: int, mirrored: bool, entries: int) -> tuple[int, int]:
    """Return how many rows and columns a tile has at most."""
    side = max(1, int(entries**0.5))
    if mirrored:
        pieces = max(-(-n // side), 2 if n >= HALVED else 1)
        rows = -(-n // pieces)
        return rows, rows
    if groups > 1:
        return n, m
    rows = min(n, side) if m >= side else min(n, max(1, entries // m))
    return rows, min(m, max(side, entries // (2 * rows)))
