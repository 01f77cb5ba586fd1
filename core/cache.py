"""How much is worked on at once: a tile that stays in the processor's cache."""

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["tile_entries"]


def tile_entries(like: Tensor, elsewhere: Mapping[str, int]) -> int:
    """Return how many numbers a tile on the device of `like` has: on a card a quarter of its second-level cache.

    Beside the scores there lie their exponentials, their slopes, and the rows that are read.

    Args:
        like: of the tile's dtype.
        elsewhere: numbers by type of device, for those that do not say how large their cache is, with one thread.
    """
    if like.device.type != "cuda":
        # Every operation ends in a wait for the slowest thread: larger tiles have fewer, for some misses of the cache.
        return elsewhere[like.device.type] * (4 if torch.get_num_threads() > 1 else 1)
    return max(1 << 16, int(torch.cuda.get_device_properties(like.device).L2_cache_size) // (4 * like.element_size()))
