"""Elements against whole samples: who belongs to whom.

Shapes: M rows of a view, E elements of all of them, D embedding size.
"""

from collections.abc import Sequence
from dataclasses import replace

from kontrast import Encoded, Gives, Pairs, PairSampler, across_ranks, elements

__all__ = ["LocalGlobal"]


class LocalGlobal(PairSampler):
    """Every element of a view meets every sample's pooled row of it: its own is the positive, the rest negatives.

    The encoder must give both `rows` and `dense`. Several views stand side by side, each compared within itself.

    Source:
        Hjelm et al. 2019, arXiv:1808.06670 (local Deep InfoMax); Sun et al. 2020, arXiv:1908.01000 (InfoGraph).
    """

    def __init__(self) -> None:
        super().__init__()

    @property
    def gives(self) -> Gives:
        """Negatives from two samples on."""
        return Gives(min_batch=2)

    def pairs(self, encoded: Sequence[Encoded]) -> list[Pairs]:
        """Return one Pairs per view, the samples' rows gathered over ranks."""
        made = []
        for view in encoded:
            inside = elements(view)
            assert inside.groups is not None
            local = replace(inside, ids=inside.groups)  # an element goes by the sample it is part of
            whole = across_ranks(replace(view, dense=None, owner=None))
            made.append(Pairs.between(local, whole, weight=1 / len(encoded)))
        return made
