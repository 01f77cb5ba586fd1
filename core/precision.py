"""Full precision for scores and statistics, whatever the encoders run under."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["full_precision"]


@contextmanager
def full_precision(like: Tensor) -> Iterator[None]:
    """Switch off autocast and reduced float32 products (TF32, bf16) on the device of `like`.

    A temperature of 0.05 multiplies the rounding of a score by 20: the three digits that TF32 keeps are too few.
    """
    before = torch.get_float32_matmul_precision()
    if before != "highest":
        torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(like.device.type, enabled=False):
            yield
    finally:
        if before != "highest":
            torch.set_float32_matmul_precision(before)
