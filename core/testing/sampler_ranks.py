"""Checks of samplers on several processes: together they compare what one does on the joined batch."""

from collections import Counter
from dataclasses import dataclass, replace

import torch

from kontrast import IncompatibleError, PairSampler, Similarity, rank, world_size

from .checks import ConformanceError
from .objective_ranks import same_gradient, same_loss
from .processes import processes
from .relations import Compared, Dress, Row, element, relations, steps
from .sampler import SamplerCase
from .sampler_values import Softmax
from .scene import Measured, commit, learned, measured, pairs_of, scored

__all__ = ["CHECKS"]

# Samples of each rank, step by step; uneven, and no rank always has the most.
COUNTS = {
    1: ((5,), (5,), (4,), (6,)),
    2: ((3, 2), (4, 1), (1, 3), (3, 3)),
    3: ((2, 1, 2), (1, 3, 1), (1, 1, 2), (2, 3, 1)),
}


@dataclass(frozen=True)
class Ranked:
    """What one rank did in one step."""

    samples: frozenset[int]
    relations: Counter[Compared]
    measured: Measured


def on_rank(sampler: PairSampler, similarity: Similarity, dress: Dress | None) -> list[Ranked]:
    """Return what this rank does in every step; each process runs this."""
    objective, done = Softmax(), []
    mine = [slice(sum(counts[: rank()]), sum(counts[: rank() + 1])) for counts in COUNTS[world_size()]]
    for step in steps([sum(counts) for counts in COUNTS[1]], mine=mine, dress=dress):
        encoded = step.encoded
        leaves = torch.stack([view.rows for view in encoded if view.rows is not None]).requires_grad_()
        encoded = [replace(view, rows=leaf) for view, leaf in zip(encoded, leaves, strict=True)]
        if dress is None:  # else the elements are as the author made them
            encoded = [element(view) for view in encoded]
        pairs = pairs_of(sampler, similarity, encoded)
        found = measured(scored(objective, pairs), leaves, similarity, sampler)
        done.append(Ranked(frozenset(encoded[0].ids.tolist()), relations(pairs, step), found))
        commit(sampler, encoded)
    return done


def _ranked(case: SamplerCase, world: int) -> tuple[list[Ranked], list[list[Ranked]]]:
    """Return what one process does and what each of `world` does, once for all checks that want it."""
    if world not in case.kept:
        try:
            case.kept[world] = _run(case, world)
        except Exception as error:
            case.kept[world] = error
    if isinstance(case.kept[world], Exception):
        raise case.kept[world]
    found: tuple[list[Ranked], list[list[Ranked]]] = case.kept[world]
    return found


def _run(case: SamplerCase, world: int) -> tuple[list[Ranked], list[list[Ranked]]]:
    try:
        similarity = learned(case.similarity, bias=False).double()  # a bias would take the bound that Debiased needs
        one = on_rank(case.sampler(), similarity, case.dress)
    except IncompatibleError:
        similarity = case.similarity
        one = on_rank(case.sampler(), similarity, case.dress)
    return one, processes().run(world, on_rank, case.sampler(), similarity, case.dress)


def anchors_stay_local(case: SamplerCase) -> None:
    """Anchors of other ranks: a loss row would be computed more than once, or the wrong number of times."""
    for world in (2, 3):
        _, ranks = _ranked(case, world)
        for number, done in enumerate(ranks):
            for step, part in enumerate(done):
                strange = {pair.anchor for pair in part.relations if not _own(pair.anchor, step, part)}
                if strange:
                    raise ConformanceError(
                        f"rank {number} of {world} has anchors that it did not embed in this step, such as "
                        f"{next(iter(strange))}; gather the candidates alone (across_ranks)"
                    )


def _own(row: Row | None, step: int, part: Ranked) -> bool:
    return row is not None and row.step == step and row.sample in part.samples


def candidates_of_all_ranks(case: SamplerCase) -> None:
    """Forgets a rank: anchors never meet what other ranks embedded, in this step or before, as on one process."""
    for world in (2, 3):
        one, ranks = _ranked(case, world)
        for step, joined in enumerate(one):
            homes = [
                {(earlier, sample): number for number, done in enumerate(ranks) for sample in done[earlier].samples}
                for earlier in range(step + 1)
            ]
            home = {row: number for part in homes for row, number in part.items()}
            wanted, found = (
                {
                    (home[a.step, a.sample], home[c.step, c.sample], c.step)
                    for a, c, *_ in pairs
                    if a is not None and c is not None and not a.stream and not c.stream
                }
                for pairs in (joined.relations, sum((done[step].relations for done in ranks), Counter[Compared]()))
            )
            if missing := sorted(wanted - found):
                ours, theirs, when = missing[0]
                what = "this step" if when == step else f"step {when}, in step {step}"
                raise ConformanceError(
                    f"on {world} processes anchors of rank {ours} never meet what rank {theirs} embedded in {what}; "
                    "gather candidates, and what is remembered, with across_ranks"
                )


def relations_on_2_processes(case: SamplerCase) -> None:
    """Two processes compare other rows, or call others positive, than one on the joined batch."""
    _same_relations(*_ranked(case, 2))


def relations_on_3_processes(case: SamplerCase) -> None:
    """Three processes compare other rows, or call others positive, than one on the joined batch."""
    _same_relations(*_ranked(case, 3))


def gradient_on_2_processes(case: SamplerCase) -> None:
    """Two processes have another loss or gradient than one: a gather without gradient, a factor of 1/2."""
    _same_gradients(*_ranked(case, 2))


def gradient_on_3_processes(case: SamplerCase) -> None:
    """Three processes have another loss or gradient than one: a gather without gradient, a factor of 1/3."""
    _same_gradients(*_ranked(case, 3))


def _same_relations(one: list[Ranked], ranks: list[list[Ranked]]) -> None:
    for step, joined in enumerate(one):
        together = sum((done[step].relations for done in ranks), Counter[Compared]())
        missing, extra = joined.relations - together, together - joined.relations
        if missing or extra:
            example = next(iter(missing or extra))
            raise ConformanceError(
                f"in step {step} {len(ranks)} processes lack {missing.total()} comparisons that one process makes, and "
                f"make {extra.total()} that it does not, such as {example}"
            )


def _same_gradients(one: list[Ranked], ranks: list[list[Ranked]]) -> None:
    for step, joined in enumerate(one):
        parts = [done[step].measured for done in ranks]
        same_loss(joined.measured, parts)
        same_gradient(joined.measured, parts)


CHECKS = (
    anchors_stay_local,
    candidates_of_all_ranks,
    relations_on_2_processes,
    relations_on_3_processes,
    gradient_on_2_processes,
    gradient_on_3_processes,
)
