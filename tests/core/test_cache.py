"""How large a tile is."""

from collections.abc import Iterator

import pytest
import torch

from kontrast.cache import tile_entries


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("threads_now", "entries"), [(1, 100), (2, 400), (4, 400)])
def test_several_threads_share_larger_tiles(threads_now: int, entries: int) -> None:
    torch.set_num_threads(threads_now)
    assert tile_entries(torch.empty(0), {"cpu": 100}) == entries
