"""The highest-scoring negatives of every anchor, found tile by tile.

Shapes: A anchors, C candidates, k entries of a row.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .block import Rule
from .errors import InvalidValueError
from .finite import check_finite
from .keys import Keys
from .pairs import Pairs
from .precision import full_precision
from .walk import Walk

__all__ = ["TopNegatives", "only", "top_negatives"]


@dataclass(frozen=True)
class TopNegatives:
    """The k negatives of every anchor that come first.

    Args:
        scores: [A, k], detached, in order; where an anchor has fewer, the rest is -inf (or inf, of the lowest).
        block: which block of the Pairs each is from, [A, k]; -1 where there is none.
        slot: which column of that block's relation it is, [A, k]: a candidate, or with an index a slot.
    """

    scores: Tensor
    block: Tensor
    slot: Tensor


@torch.no_grad()
def top_negatives(pairs: Pairs, k: int, *, rule: Rule | None = None, lowest: bool = False) -> TopNegatives:
    """Return the negatives with the highest scores, without gradient; memory O(A x k).

    Args:
        pairs: A anchors; scores are those of its similarity.
        k: how many, >= 1.
        rule: a further rule on which negatives count, for all blocks; its log-weights other than -inf do not matter.
        lowest: take the lowest-scoring ones.

    Raises:
        InvalidValueError: if `k` is not >= 1.
        NonFiniteLossError: if an embedding is not finite (on the CPU).
    """
    if k < 1:
        raise InvalidValueError(f"`k` must be >= 1, got {k!r}")
    anchors = pairs.anchors
    similarity = pairs.similarity
    sign = -1.0 if lowest else 1.0
    wide = torch.promote_types(anchors.dtype, torch.float32)
    best = torch.full((len(anchors), k), -torch.inf, dtype=wide, device=anchors.device)
    from_block = torch.full((len(anchors), k), -1, device=anchors.device)
    from_slot = torch.full((len(anchors), k), -1, device=anchors.device)
    rows = [side for block in pairs.blocks for side in (block.anchors, block.candidates) if side.numel()]
    check_finite(pairs, *(side.abs().amax() for side in rows))
    with full_precision(anchors):
        for n, block in enumerate(pairs.blocks):
            if rule is not None:
                block = replace(block, rules=(*block.rules, rule))
            a, c = block.anchors.to(wide), block.candidates.to(wide)
            if similarity.factors:
                a, c = similarity.prepare(a), similarity.prepare_candidates(c)
            walk = Walk(block, similarity, a, c)
            numbers = torch.arange(len(c) if block.index is None else block.index.shape[1], device=a.device)
            numbers = numbers if block.index is None else numbers.expand(block.index.shape)
            for tile in walk.tiles:
                scored = walk.scored(tile, (tile.anchors(a), tile.candidates(c)))
                _, counted = scored.counted()
                scores = torch.where(counted, sign * scored.scores, -torch.inf)
                found, column = scores.topk(min(k, scores.shape[-1]), dim=-1)
                slot = tile.slots(numbers)[..., None, :].expand(scores.shape).gather(-1, column)
                joined = torch.cat([tile.anchors(best), found], dim=-1)
                top, at = joined.topk(k, dim=-1)
                real = top > -torch.inf
                for total, new in ((from_block, torch.full_like(slot, n)), (from_slot, slot)):
                    merged = torch.cat([tile.anchors(total), new], dim=-1).gather(-1, at)
                    tile.put(total, torch.where(real, merged, -1))
                tile.put(best, top)
    return TopNegatives(sign * best, from_block, from_slot)


def only(pairs: Pairs, top: TopNegatives) -> Pairs:
    """Return the pairs with these negatives alone; positives stay as they are."""
    kept = []
    for n, block in enumerate(pairs.blocks):
        if block.positives:
            kept.append(replace(block, negatives=False))
        here = top.block == n
        if not block.negatives or not bool(here.any()):
            continue
        slot = torch.where(here, top.slot, 0)
        index = slot if block.index is None else block.index.gather(1, slot)
        weights = block.log_weights
        if weights is not None:
            weights = weights[slot] if block.index is None else weights.gather(1, slot)
        kept.append(
            replace(
                block,
                anchor_keys=Keys(scope=torch.zeros_like(index[:, 0])),
                candidate_keys=Keys(scope=torch.where(here, 0, -1)),
                index=index,
                log_weights=weights,
                positives=False,
            )
        )
    return replace(pairs, blocks=tuple(kept) or (replace(pairs.blocks[0], negatives=False),))
