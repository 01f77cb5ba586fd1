"""Row statistics the plain way: the whole matrix of scores, a mask of relations, one reduction.

Memory O(A x C). It is what the statistics mean, in the simplest form; anything faster is tested against it.
"""

import torch
from torch import Tensor

from .pairs import Block, Pairs
from .similarity import Similarity

__all__ = ["dense_scores", "dense_statistics"]


def dense_statistics(pairs: Pairs, inverse_temperature: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return positive count, negative count, positive mean, positive and negative log-sum-exp, each [A].

    Half-precision embeddings are compared in float32, float64 ones in float64, whatever autocast says.
    """
    logits, positive, negative = [], [], []
    with torch.autocast(pairs.anchors.device.type, enabled=False):
        for block in pairs.blocks:
            scores = dense_scores(block, pairs.similarity) * inverse_temperature
            logits.append(scores if block.log_weights is None else scores + block.log_weights)
            block_positive, block_negative = block.relation()
            positive.append(block_positive)
            negative.append(block_negative)
        joined, positives, negatives = (torch.cat(parts, dim=1) for parts in (logits, positive, negative))
        count = positives.sum(1)
        mean = torch.where(positives, joined, 0.0).sum(1) / count.clamp(min=1)
        return count, negatives.sum(1), mean, _logsumexp(joined, positives), _logsumexp(joined, negatives)


def dense_scores(block: Block, similarity: Similarity) -> Tensor:
    """Return the similarities of a block, [A, C] or with an index [A, K], in float32 or better."""
    dtype = torch.promote_types(block.anchors.dtype, torch.float32)
    anchors, candidates = block.anchors.to(dtype), block.candidates.to(dtype)
    if block.index is None:
        return similarity.scores(anchors, candidates)
    return similarity.scores(anchors[:, None], candidates[block.index])[:, 0]


def _logsumexp(logits: Tensor, mask: Tensor) -> Tensor:
    """Log-sum-exp over a row's masked entries; -inf with zero gradient where it has none."""
    masked = torch.where(mask, logits, -torch.inf)
    if not masked.shape[1]:
        return masked.new_full((len(masked),), -torch.inf)
    some = (masked > -torch.inf).any(1)
    # A row of nothing (or of log-weights -inf) is made finite first: the gradient of log(0) is not a number.
    safe = torch.where(some[:, None], masked, 0.0)
    return torch.where(some, safe.logsumexp(1), -torch.inf)
