"""Checks of objectives: whether they read all that a sampler says, every block and its hard negatives.

Shapes: V views, N samples, D embedding size, A anchors, C candidates, K slots of an anchor.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from kontrast import Block, Pairs

from .checks import ConformanceError, NotCheckedError
from .objective import ObjectiveCase
from .scene import Measured, example_views, measured, scored

__all__ = ["CHECKS"]


def candidates_in_blocks(case: ObjectiveCase) -> None:
    """Reads one block alone: with the candidates cut in two, as a queue adds to them, the loss is another."""
    views = example_views(24)
    whole, cut = _measured(case, views, lambda part: part), _measured(case, views, _in_two)
    if not math.isclose(whole.value, cut.value, rel_tol=1e-9, abs_tol=1e-12):
        raise ConformanceError(
            f"the loss is {whole.value!r}, and with the same candidates in two blocks {cut.value!r}; read all of "
            "pairs.blocks, or kontrast.row_statistics, which does"
        )
    if not torch.allclose(whole.embeddings, cut.embeddings, rtol=1e-7, atol=1e-10):
        raise ConformanceError("with the same candidates in two blocks the gradient is another")


def hardness_is_heeded(case: ObjectiveCase) -> None:
    """Says `needs.softmax` and reads the negatives otherwise: asked for hard ones, the loss stays as it is."""
    if not case.objective().needs.softmax:
        raise NotCheckedError("its `needs` say that it does not read a softmax's negatives")
    views = example_views(25)
    plain = _measured(case, views, lambda part: replace(part, hardness=0.0))
    hard = _measured(case, views, lambda part: replace(part, hardness=1.0))
    if math.isclose(plain.value, hard.value, rel_tol=1e-9, abs_tol=1e-12):
        raise ConformanceError(
            f"the loss is {plain.value!r} with Pairs.hardness 0 and 1 alike; read the negatives as "
            "row_statistics(...).negative_logsumexp of the pairs as they come, or do not say needs.softmax"
        )


def _measured(case: ObjectiveCase, views: Tensor, change: Callable[[Pairs], Pairs]) -> Measured:
    """Return loss and gradients of the sampler's pairs once they are changed."""
    views = views.detach().requires_grad_()
    return measured(scored(case.objective(), [change(part) for part in case.pairs(views)]), views, case.similarity)


def _in_two(pairs: Pairs) -> Pairs:
    return replace(pairs, blocks=tuple(half for block in pairs.blocks for half in _halves(block)))


def _halves(block: Block) -> list[Block]:
    """Return a block as two: each has half of the candidates, or with an index half of each anchor's slots."""
    slots = len(block.candidates) if block.index is None else block.index.shape[1]
    if slots < 2:
        return [block]
    return [_some(block, part) for part in (slice(0, slots // 2), slice(slots // 2, slots))]


def _some(block: Block, part: slice) -> Block:
    keys = block.candidate_keys.map(lambda key: key[..., part])
    weights = None if block.log_weights is None else block.log_weights[..., part]
    if block.index is not None:
        return replace(block, candidate_keys=keys, log_weights=weights, index=block.index[:, part])
    rules = tuple(replace(rule, candidates=tuple(rows[part] for rows in rule.candidates)) for rule in block.rules)
    return replace(block, candidates=block.candidates[part], candidate_keys=keys, log_weights=weights, rules=rules)


CHECKS = (candidates_in_blocks, hardness_is_heeded)
