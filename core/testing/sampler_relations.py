"""Checks of samplers: who is compared with whom, and what is said about it."""

from collections.abc import Callable
from dataclasses import replace

import torch

from kontrast import IncompatibleError

from .checks import ConformanceError, NotCheckedError
from .relations import KEYS, Compared, compared, relations
from .sampler import SamplerCase
from .scene import commit
from .snapshot import difference, snapshot

__all__ = ["CHECKS"]

SIZES = (4, 6, 3, 5)


def keys_and_shapes(case: SamplerCase) -> None:
    """Wrong shape or dtype: no list of Pairs, keys that are not int64 one per row, an index that leads nowhere."""
    for step, pairs in case.run(SIZES):
        width = step.encoded[0].rows
        assert width is not None
        for part in pairs:
            for block in part.blocks:
                if block.anchors.shape[1] != width.shape[1]:
                    raise ConformanceError(
                        f"the anchors are {list(block.anchors.shape)}, and the embeddings {list(width.shape)}"
                    )
                if not (block.anchors.isfinite().all() and block.candidates.isfinite().all()):
                    raise ConformanceError("anchors or candidates are not finite")
                index = block.index
                if index is not None and index.numel() and not 0 <= index.min() <= index.max() < len(block.candidates):
                    found = f"{int(index.min())} to {int(index.max())}"
                    raise ConformanceError(f"an index into {len(block.candidates)} candidates holds {found}")
        if not any(len(block.anchors) for part in pairs for block in part.blocks):
            raise ConformanceError(f"a batch of {len(width)} samples has no anchor")


def own_copy(case: SamplerCase) -> None:
    """Compares a row with itself: the own copy, or its target's embedding, is among positives or negatives."""
    for target in (False, True):
        for step, pairs in case.run(SIZES, target=target):
            for found in compared(pairs, step):
                if found.anchor is not None and found.anchor == found.candidate:
                    kind = "positive" if found.positive else "negative"
                    which = " (its target's embedding)" if target else ""
                    raise ConformanceError(
                        f"{_said(found)}: a row{which} is its own {kind}; give both the same row key"
                    )


def positives_match(case: SamplerCase) -> None:
    """Wrong positives: rows whose match keys differ, rows of no batch, or samples that get none."""
    for step, pairs in case.run(SIZES):
        seen = set()
        for found in compared(pairs, step):
            key = _key(found)
            if not found.positive:
                continue
            if found.anchor is None or found.candidate is None:
                raise ConformanceError("a positive pair holds a row that is no embedding of any batch")
            if key(found.anchor.sample) != key(found.candidate.sample):
                raise ConformanceError(f"{_said(found)}: positives whose `{found.match}` differ")
            seen.add(found.anchor.sample)
        missing = sorted(set(step.encoded[0].ids.tolist()) - seen)
        if missing:
            raise ConformanceError(f"samples {missing} of the batch are in no positive pair, and each has two copies")


def no_positive_among_negatives(case: SamplerCase) -> None:
    """A positive among the negatives: rows with the same match key, or copies of one sample, are pushed apart."""
    for step, pairs in case.run(SIZES):
        for found in compared(pairs, step):
            if found.positive or found.anchor is None or found.candidate is None:
                continue
            same_key = found.match in KEYS and _key(found)(found.anchor.sample) == _key(found)(found.candidate.sample)
            if found.anchor.step == found.candidate.step and (
                same_key or found.anchor.sample == found.candidate.sample
            ):
                raise ConformanceError(f"{_said(found)}: a positive stands among the negatives")


def no_old_copy_among_negatives(case: SamplerCase) -> None:
    """A sample's own earlier embedding among its negatives: what is remembered is not known by its id."""
    remembers = False
    for step, pairs in case.run((6, 8, 7, 9)):
        for found in compared(pairs, step):
            if found.anchor is None or found.candidate is None or found.anchor.step == found.candidate.step:
                continue
            remembers = True
            if not found.positive and found.anchor.sample == found.candidate.sample:
                raise ConformanceError(
                    f"{_said(found)}: an old copy of the sample is its negative; give it the alias key"
                )
    if not remembers:
        raise NotCheckedError("it compares with nothing of earlier batches")


def deterministic(case: SamplerCase) -> None:
    """Not deterministic: the same batches give other pairs the second time, as gradient caching would see."""
    found = []
    with torch.random.fork_rng(devices=[]):
        for seed in (1, 2):
            torch.manual_seed(seed)
            found.append([snapshot(pairs) for _, pairs in case.run(SIZES)])
    for first, second in zip(*found, strict=True):
        if what := difference(first, second):
            raise ConformanceError(f"a second run over the same batches gives other pairs: {what}")


def inputs_unchanged(case: SamplerCase) -> None:
    """Mutates its inputs: pairs() or commit() changes embeddings or keys."""
    for target in (False, True):
        sampler = case.sampler()
        for step in case.steps(SIZES, target=target):
            before = snapshot(step.encoded)
            case.pairs(sampler, step)
            if what := difference(before, snapshot(step.encoded)):
                raise ConformanceError(f"pairs() changed what it was given: {what}")
            commit(sampler, step.encoded)
            if what := difference(before, snapshot(step.encoded)):
                raise ConformanceError(f"commit() changed what it was given: {what}")


def gives_is_true(case: SamplerCase) -> None:
    """Untrue `gives`: negatives, smallest batch or reweighting are not as it says, so that objectives are misled."""
    gives = case.sampler().gives
    least = max(gives.min_batch, 1)
    negatives = 0
    for step, pairs in case.run((max(least, 3),) * 3):
        negatives += sum(not found.positive for found in compared(pairs, step))
        if any(part.hardness or part.positive_prior for part in pairs) and not gives.reweighted:
            raise ConformanceError("its pairs ask for hard or debiased negatives, and gives.reweighted is False")
    if bool(negatives) != gives.negatives:
        raise ConformanceError(
            f"there are {negatives} negatives in three batches, and gives.negatives is {gives.negatives}"
        )
    for number, (step, pairs) in enumerate(case.run((least, least))):
        if number and not relations(pairs, step):
            raise ConformanceError(f"a batch of {least} compares nothing with nothing, and gives.min_batch is {least}")


def reads_is_true(case: SamplerCase) -> None:
    """Untrue `reads`: it looks at views that a method does not encode for it, or would miss one."""
    for views in (2, 3):
        anchors, candidates = case.sampler().reads(views)
        for target in (False, True):
            step, expected = next(case.run((5,), views=views, target=target))
            encoded = []
            for number, view in enumerate(step.encoded):
                online = number in anchors or (not target and number in candidates)
                streams = view.streams if number in candidates else {}
                encoded.append(replace(view, rows=view.rows if online else None, streams=streams))
            try:
                found = case.pairs(case.sampler(), replace(step, encoded=encoded))
            except Exception as error:
                raise ConformanceError(f"without the views that reads() leaves out pairs() fails: {error}") from error
            if relations(found, step) != relations(expected, step):
                raise ConformanceError("without the views that reads() leaves out the pairs are others")


def arrange(case: SamplerCase) -> None:
    """Loses or repeats samples when it arranges an epoch, or arranges it otherwise the second time."""
    order = torch.randperm(24, generator=torch.Generator().manual_seed(3))
    before, labels, groups = order.clone(), torch.arange(24) // 4, torch.arange(24) % 3
    for given in ((labels, groups), (None, None)):
        found = []
        with torch.random.fork_rng(devices=[]):
            for seed in (1, 2):
                torch.manual_seed(seed)
                try:
                    found.append(case.sampler().arrange(order, 8, *given))
                except IncompatibleError:
                    if given[0] is not None:
                        raise
                    return  # it needs labels or groups, and says so
        if not torch.equal(before, order):
            raise ConformanceError("arrange() changed the order it was given")
        if found[0].dtype != torch.int64 or not torch.equal(found[0].sort().values, order.sort().values):
            raise ConformanceError(f"arrange() must return a permutation of the order, got {found[0].tolist()}")
        if not torch.equal(*found):
            raise ConformanceError("arrange() gives another order the second time; ranks would disagree")


def _key(found: Compared) -> Callable[[int], int]:
    if found.match not in KEYS:
        raise NotCheckedError(f"its pairs are matched by `{found.match}`, which no check knows")
    return KEYS[found.match]


def _said(found: Compared) -> str:
    assert found.anchor is not None
    assert found.candidate is not None
    ours, theirs = (
        f"sample {row.sample} in view {row.view} of step {row.step}" for row in (found.anchor, found.candidate)
    )
    return f"{ours} and {theirs}"


CHECKS = (
    keys_and_shapes,
    own_copy,
    positives_match,
    no_positive_among_negatives,
    no_old_copy_among_negatives,
    deterministic,
    inputs_unchanged,
    gives_is_true,
    reads_is_true,
    arrange,
)
