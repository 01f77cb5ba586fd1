"""Blocks where keys match many: everything compared is told from what is not by a few pairs, positives add up by key.

With ten labels every tenth pair is a positive: too many to be listed, and a comparison of keys in every tile costs more
than the products. What an anchor is compared with is all but a few; the sum over its positives is one product with the
sum of the rows that carry its key. Where negatives are wanted by themselves, keys are compared as small numbers.

Shapes: A anchors, C candidates, D embedding size, E pairs, L different keys.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .block import Block
from .keys import equals, join
from .listing import few

__all__ = ["Labelled", "labelled"]


@dataclass(frozen=True)
class Labelled:
    """A block's relation by its match keys, and the few pairs it does not hold for.

    Args:
        ignored: (anchor [E], candidate [E]) that are neither positives nor negatives.
        unmatched: those of them whose match keys are equal, which are no positives.
        labels: the match keys of anchors [A] and candidates [C], int32 in [0, L); -1, which equals nothing, is L of an
            anchor and L + 1 of a candidate.
        different: L.
        positives: how many each anchor has, int64 [A].
        negatives: likewise.
    """

    ignored: tuple[Tensor, Tensor]
    unmatched: tuple[Tensor, Tensor]
    labels: tuple[Tensor, Tensor]
    different: int
    positives: Tensor
    negatives: Tensor

    def positive_sums(self, anchors: Tensor, candidates: Tensor) -> Tensor:
        """Return for each prepared anchor [A, D] the sum of its products with its positives among [C, D], [A]."""
        ours, theirs = self.labels
        sums = candidates.new_zeros(self.different + 2, candidates.shape[1]).index_add(0, theirs, candidates)
        products = torch.einsum("ad,ad->a", anchors, sums[ours])
        anchor, candidate = self.unmatched
        extra = torch.einsum("ed,ed->e", anchors[anchor], candidates[candidate])
        return products.index_add(0, anchor, extra, alpha=-1)


def labelled(block: Block) -> Labelled | None:
    """Return a block's relation in this form; None where it has an index, scopes, one kind of pairs or long lists."""
    ours, theirs = block.anchor_keys, block.candidate_keys
    scoped = ours.scope is not None and theirs.scope is not None
    if block.index is not None or scoped or not block.positives or not block.negatives:
        return None
    if ours.match is None or theirs.match is None:
        return None
    found = list[tuple[Tensor, Tensor]]()
    for name in ("row", "alias"):
        first, second = getattr(ours, name), getattr(theirs, name)
        if first is None or second is None:
            continue
        pairs = join(first, second, few(block))
        if pairs is None:
            return None
        anchor, candidate = pairs
        if name == "alias":  # a positive whatever its alias says; and what the row key singled out is listed already
            new = ~_equal(ours.match, theirs.match, pairs)
            if found:
                assert ours.row is not None
                assert theirs.row is not None
                new &= ~_equal(ours.row, theirs.row, pairs)
            anchor, candidate = anchor[new], candidate[new]
        found.append((anchor, candidate))
    nothing = torch.zeros(0, dtype=torch.int64, device=block.anchors.device)
    ignored = torch.cat([nothing, *(anchor for anchor, _ in found)]), torch.cat([nothing, *(c for _, c in found)])
    equal = _equal(ours.match, theirs.match, ignored)
    unmatched = ignored[0][equal], ignored[1][equal]
    count = len(block.anchors)
    positives = equals(ours.match, theirs.match) - torch.bincount(unmatched[0], minlength=count)
    negatives = len(block.candidates) - torch.bincount(ignored[0], minlength=count) - positives
    labels, different = _numbered(ours.match, theirs.match)
    return Labelled(ignored, unmatched, labels, different, positives, negatives)


def _numbered(ours: Tensor, theirs: Tensor) -> tuple[tuple[Tensor, Tensor], int]:
    values, at = torch.unique(torch.cat([ours, theirs]), return_inverse=True)
    sides = []
    for n, (match, number) in enumerate(zip((ours, theirs), at.split([len(ours), len(theirs)]), strict=True)):
        sides.append(torch.where(match == -1, len(values) + n, number).to(torch.int32))
    return (sides[0], sides[1]), len(values)


def _equal(ours: Tensor, theirs: Tensor, pairs: tuple[Tensor, Tensor]) -> Tensor:
    first = ours[pairs[0]]
    return (first == theirs[pairs[1]]) & (first != -1)
