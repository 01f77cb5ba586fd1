"""The check of samplers that rows are known by their keys, not by their place.

Shapes: V views, N samples, D embedding size.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from kontrast import Encoded, PairSampler

from .checks import ConformanceError
from .relations import Compared, Step, relations
from .sampler import SamplerCase
from .sampler_values import measured_on
from .scene import Measured, commit, pairs_of

__all__ = ["CHECKS"]

SIZES = (4, 6, 3, 5)


def order_of_rows(case: SamplerCase) -> None:
    """Depends on positions: the batch, or one view of it, in another order, with its keys, is compared otherwise."""
    *earlier, last = case.steps(SIZES)
    sampler = case.sampler()
    for step in earlier:
        case.pairs(sampler, step)
        commit(sampler, step.encoded)
    same, other = torch.arange(5), torch.tensor([3, 0, 4, 1, 2])
    views = len(last.encoded)
    plain = _in_order(case, sampler, last, [same] * views)
    for which, orders in (("the rows", [other] * views), ("the last view's rows", [same] * (views - 1) + [other])):
        found = _in_order(case, sampler, last, orders)
        if plain.relations != found.relations:
            example = next(iter((plain.relations - found.relations) or (found.relations - plain.relations)))
            raise ConformanceError(f"with {which} in another order other rows are compared, such as {example}")
        before, after = plain.measured, found.measured
        if not math.isclose(before.value, after.value, rel_tol=1e-9, abs_tol=1e-12):
            raise ConformanceError(f"the loss is {before.value!r}, and with {which} in another order {after.value!r}")
        turned = torch.stack([rows[order] for rows, order in zip(before.embeddings, orders, strict=True)])
        if not torch.allclose(turned, after.embeddings, rtol=1e-7, atol=1e-10):
            raise ConformanceError(f"a row's gradient is another with {which} in another order")


class _Ordered(NamedTuple):
    """What comes of a batch whose views are in some order: who is compared, and the loss."""

    relations: Counter[Compared]
    measured: Measured


def _in_order(case: SamplerCase, sampler: PairSampler, step: Step, orders: Sequence[Tensor]) -> _Ordered:
    """Return what comes of a batch with each view's rows in an order of its own."""
    views = [_picked(view, order) for view, order in zip(step.encoded, orders, strict=True)]
    rows = torch.stack([view.rows for view in views if view.rows is not None])
    compared = relations(pairs_of(sampler, case.similarity, views), step)
    return _Ordered(compared, measured_on(case, sampler, views, rows))


def _picked(view: Encoded, order: Tensor) -> Encoded:
    """Return some rows of a view in another order, with their keys and streams."""
    if len(view.ids) != SIZES[-1]:
        return view  # a stream of something else than the batch's rows
    labels, groups = (None if key is None else key[order] for key in (view.labels, view.groups))
    rows, dense = (None if part is None else part[order] for part in (view.rows, view.dense))
    streams = {name: _picked(stream, order) for name, stream in view.streams.items()}
    return replace(
        view,
        rows=rows,
        ids=view.ids[order],
        copies=view.copies[order],
        labels=labels,
        groups=groups,
        dense=dense,
        streams=streams,
    )


CHECKS = (order_of_rows,)
