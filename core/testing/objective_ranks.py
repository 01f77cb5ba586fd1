"""Checks of objectives on several processes: loss and gradients are those of one process on the joined batch.

Shapes: V views, N samples, D embedding size.
"""

import math

import torch
from torch import Tensor

from kontrast import IncompatibleError, Objective, PairSampler, Similarity, rank, world_size

from .checks import ConformanceError
from .objective import ObjectiveCase
from .processes import processes
from .scene import Measured, dressed, example_views, learned, measured, pairs_of, scored

__all__ = ["CHECKS", "same_gradient", "same_loss"]

COUNTS = {1: (7,), 2: (5, 2), 3: (4, 1, 2)}  # samples of each rank


def on_rank(objective: Objective, sampler: PairSampler, similarity: Similarity, views: Tensor) -> Measured:
    """Return what one rank makes of its samples of [V, N, D]; each process runs this."""
    counts = COUNTS[world_size()]
    start = sum(counts[: rank()])
    own = views[:, start : start + counts[rank()]].clone().requires_grad_()
    ids = torch.arange(start, start + counts[rank()])
    loss = scored(objective, pairs_of(sampler, similarity, dressed(own, ids)))
    return measured(loss, own, similarity, objective)


def _measured(case: ObjectiveCase, world: int) -> tuple[Measured, list[Measured]]:
    """Return what one process finds and what each of `world` finds, once for all checks that want it."""
    if world not in case.kept:
        objective, views = case.objective(), example_views(18, samples=sum(COUNTS[1]))
        try:
            similarity = learned(case.similarity, bias=True).double()
            one = on_rank(objective, case.sampler, similarity, views)
        except IncompatibleError:  # a similarity with a learned scale is not for everyone
            similarity = case.similarity
            one = on_rank(objective, case.sampler, similarity, views)
        try:
            ranks = processes().run(world, on_rank, objective, case.sampler, similarity, views)
        except Exception as error:
            case.kept[world] = error
            raise
        case.kept[world] = one, ranks
    if isinstance(case.kept[world], Exception):
        raise case.kept[world]
    found: tuple[Measured, list[Measured]] = case.kept[world]
    return found


def sums_and_counts(case: ObjectiveCase) -> None:
    """A mean instead of sum and count: ranks with few rows weigh as much as ranks with many."""
    one, ranks = _measured(case, 2)
    for term, *parts in zip(one.terms, *(part.terms for part in ranks), strict=True):
        own = [part.value for part in parts]
        joined = sum(part.sum for part in parts)
        if term.count is not None:
            joined /= sum(part.count or 0.0 for part in parts) or 1.0
        if not _close(joined, term.value) and any(_close(joined, total) for total in (sum(own) / len(own), sum(own))):
            raise ConformanceError(
                f"term `{term.name}` counts ranks of {COUNTS[2][0]} and {COUNTS[2][1]} samples the same: they have "
                f"{own[0]:.6g} and {own[1]:.6g}, together {joined:.6g}, and one process {term.value:.6g}; return sums "
                "and counts (Loss.over_rows), and take statistics of the whole batch with kontrast.all_sum"
            )


def loss_on_2_processes(case: ObjectiveCase) -> None:
    """Two processes have another loss than one on the joined batch."""
    same_loss(*_measured(case, 2))


def loss_on_3_processes(case: ObjectiveCase) -> None:
    """Three processes have another loss than one on the joined batch."""
    same_loss(*_measured(case, 3))


def gradient_on_2_processes(case: ObjectiveCase) -> None:
    """Two processes have another gradient than one: a missing or extra factor of 1/2, a gather without gradient."""
    same_gradient(*_measured(case, 2))


def gradient_on_3_processes(case: ObjectiveCase) -> None:
    """Three processes have another gradient than one: a missing or extra factor of 1/3, a gather without gradient."""
    same_gradient(*_measured(case, 3))


def _close(first: float, second: float) -> bool:
    return math.isclose(first, second, rel_tol=1e-6, abs_tol=1e-9)


def same_loss(one: Measured, ranks: list[Measured]) -> None:
    """Raise unless every rank has the loss of one process."""
    for number, part in enumerate(ranks):
        if not _close(part.value, one.value):
            raise ConformanceError(
                f"rank {number} of {len(ranks)} has loss {part.value:.7g}, and one process on the joined batch "
                f"{one.value:.7g}"
            )


def same_gradient(one: Measured, ranks: list[Measured]) -> None:
    """Raise unless the ranks together have the gradient of one process."""
    # A rank's gradient is W times its share; DDP's average over ranks brings that of a parameter back.
    embeddings = torch.cat([part.embeddings for part in ranks], dim=1) / len(ranks)
    _compare("the embeddings", embeddings, one.embeddings, len(ranks))
    for name, expected in one.parameters.items():
        averaged = torch.stack([part.parameters[name] for part in ranks]).mean(0)
        _compare(f"`{name}`", averaged, expected, len(ranks))


def _compare(name: str, found: Tensor, expected: Tensor, world: int) -> None:
    if torch.allclose(found, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()) + 1e-12):
        return
    factor = _proportion(found, expected)
    what = "another one" if factor is None else f"{factor:.4g} times it"
    raise ConformanceError(
        f"the gradient of {name} on {world} processes is not that of one on the joined batch, but {what}"
    )


def _proportion(found: Tensor, expected: Tensor) -> float | None:
    """Return the factor between two tensors, where there is one."""
    square = float(expected.square().sum())
    factor = float((found * expected).sum()) / square if square else math.nan
    return factor if torch.allclose(found, factor * expected, rtol=1e-6, atol=1e-9) else None


CHECKS = (
    sums_and_counts,
    loss_on_2_processes,
    loss_on_3_processes,
    gradient_on_2_processes,
    gradient_on_3_processes,
)
