"""Embeddings that are not finite are named where they are compared, not steps later by a loss of nan."""

import math
from typing import TYPE_CHECKING

from torch import Tensor

from .errors import NonFiniteLossError

if TYPE_CHECKING:
    from .pairs import Pairs

__all__ = ["check_embeddings", "check_finite"]


def check_finite(pairs: "Pairs", *values: Tensor) -> None:
    """Refuse statistics that are nan or inf; -inf is the log of nothing. On a GPU looking would wait: a run looks.

    Raises:
        NonFiniteLossError: says which embeddings are not finite, and the first such row.
    """
    if _not_finite(values):
        _name_embeddings(pairs)
        raise NonFiniteLossError(
            f"scores must be finite, got nan or inf from finite embeddings; look at the parameters of "
            f"{type(pairs.similarity).__name__}, and at embeddings too long for its products"
        )


def check_embeddings(pairs: "Pairs", *values: Tensor) -> None:
    """Refuse embeddings that are not finite, where what was made of them is not.

    Raises:
        NonFiniteLossError: says which embeddings are not finite, and the first such row.
    """
    if _not_finite(values):
        _name_embeddings(pairs)


def _not_finite(values: tuple[Tensor, ...]) -> bool:
    if not all(value.device.type == "cpu" for value in values):
        return False
    # The maximum of what holds nan is nan, and nan is not below infinity.
    return not all(float(value.detach().max()) < math.inf for value in values if value.numel())


def _name_embeddings(pairs: "Pairs") -> None:
    for block in pairs.blocks:
        for what, rows in (("anchors", block.anchors), ("candidates", block.candidates)):
            wrong = ~rows.detach().isfinite().all(1)
            if wrong.any():
                first = int(wrong.nonzero()[0])
                raise NonFiniteLossError(
                    f"embeddings must be finite, got nan or inf in {int(wrong.sum())} of {len(rows)} {what}, "
                    f"the first in row {first}"
                )
