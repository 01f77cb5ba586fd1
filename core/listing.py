"""The few pairs of a block that its keys single out, found by sorting instead of comparing all with all.

Shapes: A anchors, C candidates, P positive pairs, E excepted pairs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .arrays import array, tensor
from .block import Block
from .keys import join, key

__all__ = ["Listed", "few", "listed", "listed_positives"]


@dataclass(frozen=True)
class Listed:
    """A block's relation as two lists; whatever is in neither, and in the same scope, is a negative.

    Args:
        excepted: (anchor [E], candidate [E]) that are no negatives: the positives, and what is ignored; each once.
        which: of these the positives, in order of anchors.
    """

    excepted: tuple[Tensor, Tensor]
    which: slice

    @property
    def positives(self) -> tuple[Tensor, Tensor]:
        """The positives as (anchor [P], candidate [P])."""
        return self.excepted[0][self.which], self.excepted[1][self.which]


# How many pairs may be listed, as a multiple of anchors and candidates.
FEW = 8


def few(block: Block) -> int:
    """Return how many pairs may be listed: memory stays O(A + C)."""
    return FEW * (len(block.anchors) + len(block.candidates))


def listed(block: Block) -> Listed | None:
    """Return the lists, within scopes; None where they are long or the block has an index."""
    if block.index is not None:
        return None
    ours, theirs = block.anchor_keys, block.candidate_keys
    scopes = None if ours.scope is None or theirs.scope is None else (ours.scope, theirs.scope)
    found: list[tuple[Tensor, Tensor]] = []
    read: list[tuple[Tensor, Tensor]] = []
    which = slice(0, 0)
    for name in ("row", "match", "alias"):
        first, second = getattr(ours, name), getattr(theirs, name)
        if first is None or second is None or any(first is a and second is c for a, c in read):
            continue
        within = first, second
        if scopes is not None and name != "row":
            own = key(scopes[0], first)
            within = own, own if block.mirrored else key(scopes[1], second)
        pairs = join(*within, few(block))
        if pairs is None:
            return None
        if scopes is not None and name == "row":  # no need to join keys first: an embedding is itself alone
            pairs = _where(*pairs, _same(*scopes, *pairs))
        for a, c in read:  # what an earlier key has singled out is listed already
            pairs = _where(*pairs, ~_same(a, c, *pairs))
        if name == "match" and block.positives:
            begin = sum(len(anchor) for anchor, _ in found)
            which = slice(begin, begin + len(pairs[0]))
        read.append((first, second))
        found.append(pairs)
    nothing = torch.zeros(0, dtype=torch.int64, device=block.anchors.device)
    anchor, candidate = (torch.cat([nothing, *(pairs[side] for pairs in found)]) for side in (0, 1))
    return Listed((anchor, candidate), which)


def _same(first: Tensor, second: Tensor, anchor: Tensor, candidate: Tensor) -> Tensor:
    """Return which pairs have equal keys; -1 equals nothing."""
    own = array(first)[array(anchor)]
    return tensor((own == array(second)[array(candidate)]) & (own != -1))


def _where(anchor: Tensor, candidate: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Return some of the pairs."""
    at = array(kept)
    return (anchor, candidate) if at.all() else (tensor(array(anchor)[at]), tensor(array(candidate)[at]))


def listed_positives(block: Block) -> tuple[Tensor, Tensor] | None:
    """Return the block's positives (anchor [P], slot [P]), or None where they are many."""
    if (block.matches() if block.index is None else block.index.numel()) > few(block):
        return None
    return block.positive_slots()
