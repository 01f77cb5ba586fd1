"""What a block is cut into on the CPU, by numpy, is what it is cut into elsewhere, by torch."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kontrast import groups, keys, listing, stacks
from kontrast.arrays import argsort, array, between, ranges, runs, tensor
from kontrast.block import Block
from kontrast.keys import Keys, join
from kontrast.listing import listed
from kontrast.stacks import plan

KEYS = [[], [4], [1, 2, 3], [-1, 4, 9], [5, 5, 2], [3, -1, 3, -1, 3, 7], [-1, -1], [2, 0, 1, 1, 0, 2, 1]]


@pytest.fixture(name="by_torch")
def _by_torch(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Have what follows compute as on a GPU."""

    def switch() -> None:
        for module in (groups, keys, listing, stacks):
            monkeypatch.setattr(module, "array", lambda given: given)

    return switch


@pytest.mark.parametrize("values", KEYS)
def test_functions_agree(values: list[int]) -> None:
    given = torch.tensor(values, dtype=torch.int64)
    some = torch.tensor([3, 1, -1, 8])
    ordered = given.sort().values
    counts = torch.arange(len(given)) % 3
    for function in (
        lambda kind: (argsort(kind(given)),),
        lambda kind: between(kind(ordered), kind(some)),
        lambda kind: runs(kind(ordered)),
        lambda kind: (ranges(kind(given), kind(counts)),),
    ):
        ours, theirs = function(array), function(lambda one: one)
        assert [tensor(part).tolist() for part in ours] == [part.tolist() for part in theirs]


@pytest.mark.parametrize("first", KEYS)
@pytest.mark.parametrize("second", KEYS)
def test_a_join_agrees(first: list[int], second: list[int], by_torch: Callable[[], None]) -> None:
    a, c = (torch.tensor(values, dtype=torch.int64) for values in (first, second))
    expected = [(i, j) for i, one in enumerate(first) for j, other in enumerate(second) if one == other != -1]
    by_numpy = join(a, c)
    by_torch()
    for found in (by_numpy, join(a, c)):
        assert list(zip(*(part.tolist() for part in found), strict=True)) == expected
        assert all(part.dtype == torch.int64 for part in found)


@pytest.mark.parametrize("mirrored", [True, False])
@pytest.mark.parametrize("scoped", [True, False])
def test_a_plan_agrees(mirrored: bool, scoped: bool, by_torch: Callable[[], None]) -> None:
    made = torch.Generator().manual_seed(0)

    def keys_of(count: int) -> Keys:
        def drawn(high: int) -> Tensor:
            return torch.randint(-1, high, (count,), generator=made)

        return Keys(drawn(5) if scoped else None, torch.arange(count), drawn(30), drawn(40))

    ours = keys_of(70)
    theirs = ours if mirrored else keys_of(45)
    rows = torch.randn(70, 4)
    block = Block(rows, rows if mirrored else torch.randn(45, 4), ours, theirs)

    def described() -> list[object]:
        lists = listed(block)
        assert lists is not None
        scopes = None if ours.scope is None or theirs.scope is None else (ours.scope, theirs.scope)
        cut = plan((70, len(block.candidates)), mirrored, lists.excepted, scopes, entries=400, stacked=900)
        parts: list[object] = [part.tolist() for part in lists.excepted]
        parts += [cut.sizes.tolist(), cut.entries, cut.largest, lists.which]
        for stack in cut.stacks:
            for members in (stack.rows, stack.columns):
                parts += [members.read(torch.arange(70)).tolist(), members.shape, members.lattice]
                parts.append(None if members.live is None else members.live.tolist())
            for part in stack.parts:
                parts += [part.rows, part.columns, part.diagonal]
                parts += [one.tolist() for one in (part.place, part.turned, part.number)]
        return parts

    by_numpy = described()
    by_torch()
    assert described() == by_numpy
