"""Checks of samplers: what they remember, when, and whether a checkpoint holds it."""

from typing import Any

import torch

from kontrast import KontrastError, PairSampler

from .checks import ConformanceError, NotCheckedError
from .relations import Step, compared
from .sampler import SamplerCase
from .scene import commit, stateful
from .snapshot import difference, snapshot
from .states import reloaded

__all__ = ["CHECKS"]


def pairs_change_nothing(case: SamplerCase) -> None:
    """Changes state in pairs(): asked twice it answers twice differently; state changes in commit() alone."""
    sampler = case.sampler()
    for step in case.steps((4, 6, 3, 5)):
        before = snapshot(sampler.state_dict())
        with torch.random.fork_rng(devices=[]):
            first, second = (_after(case, sampler, step) for _ in range(2))
        if what := difference(before, snapshot(sampler.state_dict())):
            raise ConformanceError(f"pairs() changed the state: {what}")
        if what := difference(first, second):
            raise ConformanceError(f"pairs() gives other pairs when it is asked again: {what}")
        commit(sampler, step.encoded)


def _after(case: SamplerCase, sampler: PairSampler, step: Step) -> dict[str, Any]:
    torch.manual_seed(0)
    return snapshot(case.pairs(sampler, step))


def starts_empty(case: SamplerCase) -> None:
    """Starts with rows that nobody embedded: the first batch is compared with random numbers or zeros."""
    step, pairs = next(case.run((4,)))
    if any(found.anchor is None or found.candidate is None for found in compared(pairs, step)):
        raise ConformanceError("in the first step rows are compared that are no embedding of the batch")


def any_batch_size(case: SamplerCase) -> None:
    """Takes some batch sizes only: one sample, uneven sizes, or more than fit into a queue."""
    least = max(1, case.sampler().gives.min_batch)
    for sizes in ((1, 2, 7, 20, 3), (20, 20), (5, 1, 1, 9)):
        sampler = case.sampler()
        for step in case.steps(sizes):
            size = len(step.encoded[0].ids)
            try:
                pairs = case.pairs(sampler, step)
                commit(sampler, step.encoded)
            except KontrastError as error:
                if size < least:
                    continue
                raise ConformanceError(f"batches of {sizes} samples fail at {size}: {error}") from error
            if any(found.anchor is None or found.candidate is None for found in compared(pairs, step)):
                raise ConformanceError(f"at batches of {sizes} samples rows are compared that are no embedding of any")


def state_continues(case: SamplerCase) -> None:
    """Loses state: saved and loaded in mid-run, the next pairs are not those of the run that went on."""
    if not stateful(case.sampler()):
        raise NotCheckedError("it has no state")
    for sizes in ((3,), (2, 5, 4), (9, 2)):
        sampler = case.sampler()
        batches = list(case.steps((*sizes, 3, 4, 2, 5)))
        for step in batches[: len(sizes)]:
            case.pairs(sampler, step)
            commit(sampler, step.encoded)
        saved = snapshot(sampler.state_dict())
        other = reloaded(sampler, case.sampler())
        if what := difference(saved, snapshot(other.state_dict())):
            raise ConformanceError(f"what was loaded is not what was saved: {what}")
        for number, step in enumerate(batches[len(sizes) :]):
            first, second = (snapshot(case.pairs(part, step)) for part in (sampler, other))
            if what := difference(first, second):
                when = "at once: contents" if not number else f"after {number} more batches: a position or a count"
                raise ConformanceError(f"after save and load the pairs are others {when} were lost ({what})")
            for part in (sampler, other):
                commit(part, step.encoded)


def commit_stays_outside(case: SamplerCase) -> None:
    """Passes commit() on: a method calls that of every part, and what is inside takes each batch in twice."""
    step = next(case.steps((4,)))
    detached = [view.detach() for view in step.encoded]
    wraps = False
    for path, _ in case.sampler().named_modules():
        sampler = case.sampler()
        case.pairs(sampler, step)
        part = sampler.get_submodule(path)
        inside = [other for other in part.modules() if other is not part and isinstance(other, PairSampler)]
        if not isinstance(part, PairSampler) or not inside:
            continue
        wraps = True
        before = [snapshot(other.state_dict()) for other in inside]
        part.commit(detached)
        for other, state in zip(inside, before, strict=True):
            if what := difference(state, snapshot(other.state_dict())):
                raise ConformanceError(
                    f"commit() of {type(part).__name__} changed the state of the {type(other).__name__} inside it, "
                    f"whose own commit() a method calls too: {what}"
                )
    if not wraps:
        raise NotCheckedError("it has no sampler inside")


CHECKS = (pairs_change_nothing, commit_stays_outside, starts_empty, any_batch_size, state_continues)
