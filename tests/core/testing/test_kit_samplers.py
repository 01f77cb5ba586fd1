"""The kit finds the fault in samplers that are broken on purpose, by the check that names it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from kit_faults import caught_by, faults
from torch import Tensor

import kontrast as kt
from kontrast.plugins.objectives import InfoNCE
from kontrast.testing import ConformanceError, check_sampler, run_checks, sampler_checks
from kontrast.testing.sampler import Batch

Views = Sequence[kt.Encoded]


class Good(kt.PairSampler):
    """Every row against every other one of all ranks; the others differ from it by one fault."""

    @property
    def gives(self) -> kt.Gives:
        return kt.Gives(min_batch=2)

    def pairs(self, encoded: Views) -> list[kt.Pairs]:
        return [kt.Pairs.between(*self.sides(encoded))]

    def sides(self, encoded: Views) -> tuple[kt.Encoded, kt.Encoded]:
        return kt.stack(encoded), kt.across_ranks(kt.stack(encoded, "target"))

    def keys(self, pairs: kt.Pairs, ours: kt.Keys, theirs: kt.Keys) -> list[kt.Pairs]:
        return [replace(pairs, blocks=(replace(pairs.blocks[0], anchor_keys=ours, candidate_keys=theirs),))]


class Mutates(Good):
    def pairs(self, encoded: Views) -> list[kt.Pairs]:
        for view in encoded:
            if view.rows is not None:
                view.rows.data.mul_(2)
        return super().pairs(encoded)


class MutatesInCommit(Good):
    def commit(self, encoded: Views) -> None:
        for view in encoded:
            view.ids.add_(1)


class NoList(Good):
    def pairs(self, encoded: Views) -> list[kt.Pairs]:
        return super().pairs(encoded)[0]  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


class Int32Keys(Good):
    def pairs(self, encoded: Views) -> list[kt.Pairs]:
        (pairs,) = super().pairs(encoded)
        return self.keys(pairs, kt.Keys(match=torch.zeros(1).int()), kt.Keys(match=torch.zeros(1).int()))


class IndexBeyond(Good):
    def pairs(self, encoded: Views) -> list[kt.Pairs]:
        (pairs,) = super().pairs(encoded)
        block = pairs.blocks[0]
        index = torch.full((len(block.anchors), 1), len(block.candidates))
        keys = kt.Keys(match=torch.zeros(len(block.anchors), 1, dtype=torch.int64))
        return [replace(pairs, blocks=(kt.Block(block.anchors, block.candidates, kt.Keys(), keys, index),))]


class MeetsItself(Good):
    def pairs(self, encoded: Views) -> list[kt.Pairs]:
        (pairs,) = super().pairs(encoded)
        block = pairs.blocks[0]
        return self.keys(pairs, replace(block.anchor_keys, row=None), replace(block.candidate_keys, row=None))


class MeetsItsTarget(Good):
    def pairs(self, encoded: Views) -> list[kt.Pairs]:
        ours, theirs = self.sides(encoded)
        if any(view.streams for view in encoded):
            theirs = replace(theirs, copies=theirs.copies + (1 << 50))
        return [kt.Pairs.between(ours, theirs)]


class WrongPositives(Good):
    def pairs(self, encoded: Views) -> list[kt.Pairs]:
        (pairs,) = super().pairs([replace(view, ids=view.ids // 3) for view in encoded])
        return [pairs]


class NoPositives(Good):
    def pairs(self, encoded: Views) -> list[kt.Pairs]:
        ours, theirs = self.sides(encoded)
        (pairs,) = [kt.Pairs.between(replace(ours, ids=ours.copies), replace(theirs, ids=theirs.copies))]
        block = pairs.blocks[0]
        ids = replace(block.anchor_keys, alias=ours.ids), replace(block.candidate_keys, alias=theirs.ids)
        return self.keys(pairs, *ids)


class CopiesAreNegatives(Good):
    """Copies of one sample are told apart by their view."""

    def pairs(self, encoded: Views) -> list[kt.Pairs]:
        (pairs,) = super().pairs(encoded)
        block = pairs.blocks[0]
        ids = block.anchor_keys.match
        assert ids is not None
        twice = torch.arange(len(ids)) % len(encoded[0].ids) % 2 == 0
        return self.keys(
            pairs, replace(block.anchor_keys, match=torch.where(twice, ids, ids + 100)), block.candidate_keys
        )


class OfThisRank(Good):
    def sides(self, encoded: Views) -> tuple[kt.Encoded, kt.Encoded]:
        return kt.stack(encoded), kt.stack(encoded, "target")


class AnchorsOfAllRanks(Good):
    def sides(self, encoded: Views) -> tuple[kt.Encoded, kt.Encoded]:
        return kt.across_ranks(kt.stack(encoded)), kt.across_ranks(kt.stack(encoded, "target"))


class GathersWithoutGradient(Good):
    def sides(self, encoded: Views) -> tuple[kt.Encoded, kt.Encoded]:
        ours, theirs = super().sides(encoded)
        if kt.world_size() == 1 or theirs.rows is None or ours.rows is None:
            return ours, theirs
        first = int((theirs.copies == ours.copies[0]).nonzero()[0])
        rows = theirs.rows.detach().clone()
        rows[first : first + len(ours.copies)] = ours.rows  # what the field calls gather without gradient
        return ours, replace(theirs, rows=rows)


class Detaches(Good):
    def sides(self, encoded: Views) -> tuple[kt.Encoded, kt.Encoded]:
        ours, theirs = super().sides(encoded)
        return ours, theirs.detach()


class WeighsByPosition(Good):
    def pairs(self, encoded: Views) -> list[kt.Pairs]:
        (pairs,) = super().pairs(encoded)
        block = pairs.blocks[0]
        return [replace(pairs, blocks=(replace(block, log_weights=torch.arange(len(block.candidates)).double()),))]


class LeavesOutThird(Good):
    """The third row of the batch is no candidate."""

    def pairs(self, encoded: Views) -> list[kt.Pairs]:
        (pairs,) = super().pairs(encoded)
        block = pairs.blocks[0]
        weights = torch.zeros(len(block.candidates)).double()
        weights[2:3] = -torch.inf
        return [replace(pairs, blocks=(replace(block, log_weights=weights),))]


class OnePerValue(Good):
    """Takes candidates that are equal for one and the same."""

    def pairs(self, encoded: Views) -> list[kt.Pairs]:
        (pairs,) = super().pairs(encoded)
        block = pairs.blocks[0]
        twice = (block.candidates[:, None] == block.candidates[None]).all(-1).tril(-1).any(1)
        return [replace(pairs, blocks=(replace(block, log_weights=torch.where(twice, -torch.inf, 0.0)),))]


class Divides(Good):
    """Scales rows by itself, and divides by zero, or with `least` by little."""

    least = 0.0

    def sides(self, encoded: Views) -> tuple[kt.Encoded, kt.Encoded]:
        ours, theirs = super().sides(encoded)
        assert ours.rows is not None
        return replace(ours, rows=ours.rows / ours.rows.norm(dim=1, keepdim=True).clamp(min=self.least)), theirs


class WeighsByLength(Good):
    """Candidates count by their length, in their own precision."""

    def pairs(self, encoded: Views) -> list[kt.Pairs]:
        (pairs,) = super().pairs(encoded)
        block = pairs.blocks[0]
        weights = self.weights(block.candidates.detach().norm(dim=1))
        return [replace(pairs, blocks=(replace(block, log_weights=weights),))]

    def weights(self, lengths: Tensor) -> Tensor:
        return lengths


class Overflows(WeighsByLength):
    """Exponentials instead of their logarithms."""

    def weights(self, lengths: Tensor) -> Tensor:
        return (40 * lengths).exp().log()


class Random(Good):
    def pairs(self, encoded: Views) -> list[kt.Pairs]:
        (pairs,) = super().pairs(encoded)
        block = pairs.blocks[0]
        return [replace(pairs, blocks=(replace(block, log_weights=torch.rand(len(block.candidates))),))]


class SaysNone(Good):
    @property
    def gives(self) -> kt.Gives:
        return kt.Gives(negatives=False)


class SaysSome(kt.Positives):
    @property
    def gives(self) -> kt.Gives:
        return kt.Gives()


class SaysPlain(kt.HardNegatives):
    @property
    def gives(self) -> kt.Gives:
        return kt.Gives(min_batch=2)


class ReadsMore(Good):
    def reads(self, num_views: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return (0,), tuple(range(1, num_views))


class Drops(Good):
    def arrange(self, order: Tensor, batch_size: int, labels: Tensor | None, groups: Tensor | None) -> Tensor:
        return order[: len(order) // 5 * 5]


class Shuffles(Good):
    def arrange(self, order: Tensor, batch_size: int, labels: Tensor | None, groups: Tensor | None) -> Tensor:
        return order[torch.randperm(len(order))]


class SortsInPlace(Good):
    def arrange(self, order: Tensor, batch_size: int, labels: Tensor | None, groups: Tensor | None) -> Tensor:
        order.copy_(order.sort().values)
        return order


class Memory(Good):
    """Every row against those of the last batches too: right, and the base of what is not."""

    rows: Tensor
    ids: Tensor
    persistent = True
    size = 11

    def __init__(self) -> None:
        super().__init__()
        self.pointer = 0
        self.register_buffer("rows", torch.zeros(self.size, 8, dtype=torch.float64), persistent=self.persistent)
        self.register_buffer("ids", torch.full((self.size,), -1), persistent=self.persistent)

    def pairs(self, encoded: Views) -> list[kt.Pairs]:
        return [self.with_memory(pairs) for pairs in super().pairs(encoded)]

    def with_memory(self, pairs: kt.Pairs) -> kt.Pairs:
        assert pairs.rows is not None
        filled = self.ids != -1
        if not filled.any():
            return pairs
        ours, theirs = kt.Keys(alias=pairs.rows.ids), kt.Keys(alias=self.ids[filled])
        rows = self.rows[filled].to(pairs.anchors.dtype)
        return pairs.with_blocks([kt.Block(pairs.anchors, rows, ours, theirs)])

    def commit(self, encoded: Views) -> None:
        new = self.new(encoded)
        assert new.rows is not None
        for row, sample in zip(new.rows, new.ids, strict=True):
            self.rows[self.pointer], self.ids[self.pointer] = row, sample
            self.pointer = (self.pointer + 1) % self.size

    def new(self, encoded: Views) -> kt.Encoded:
        return kt.stack([kt.across_ranks(view.stream("target")) for view in encoded])

    def get_extra_state(self) -> int:
        return self.pointer

    def set_extra_state(self, state: int) -> None:
        self.pointer = state


class LosesItsPointer(Memory):
    def get_extra_state(self) -> int:
        return 0

    def set_extra_state(self, state: int) -> None:
        pass


class LosesItsRows(Memory):
    persistent = False


class RemembersInPairs(Memory):
    def pairs(self, encoded: Views) -> list[kt.Pairs]:
        found = super().pairs(encoded)
        super().commit([view.detach() for view in encoded])
        return found

    def commit(self, encoded: Views) -> None:
        pass


class StartsWithNoise(Memory):
    def __init__(self) -> None:
        super().__init__()
        self.rows.normal_(generator=torch.Generator().manual_seed(0))
        self.ids.fill_(1 << 40)


class MeetsItsOldCopies(Memory):
    def with_memory(self, pairs: kt.Pairs) -> kt.Pairs:
        pairs = super().with_memory(pairs)
        more = tuple(replace(block, anchor_keys=kt.Keys(), candidate_keys=kt.Keys()) for block in pairs.blocks[1:])
        return replace(pairs, blocks=(pairs.blocks[0], *more))


class RemembersOwnRank(Memory):
    def new(self, encoded: Views) -> kt.Encoded:
        return kt.stack([view.stream("target") for view in encoded])


class RemembersByRank(Memory):
    """Joins the ranks' views, not the views' ranks: what a full memory lets go then depends on their number."""

    def new(self, encoded: Views) -> kt.Encoded:
        return kt.across_ranks(kt.stack(encoded, "target"))


class TakesMultiples(Memory):
    def commit(self, encoded: Views) -> None:
        if 2 * len(encoded[0].ids) > self.size:
            raise kt.InvalidValueError("the batch does not fit")
        super().commit(encoded)


class ByPlace(Good):
    """Row i of view 0 belongs to row i of view 1, whatever their ids."""

    def pairs(self, encoded: Views) -> list[kt.Pairs]:
        ours, all_ours = encoded[0], kt.across_ranks(encoded[0])
        theirs = kt.across_ranks(encoded[1])
        assert ours.rows is not None
        assert theirs.rows is not None
        place = (all_ours.copies[:, None] == ours.copies).double().argmax(0)
        match = kt.Keys(match=place), kt.Keys(match=torch.arange(len(theirs.rows)))
        return [kt.Pairs((kt.Block(ours.rows, theirs.rows, *match),), rows=ours)]

    def reads(self, num_views: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return (0,), (1,)


class PassesCommitOn(kt.Wrapper):
    def commit(self, encoded: Views) -> None:
        self.inner.commit(encoded)


BROKEN: dict[str, tuple[Callable[[], kt.PairSampler], ...]] = {
    "inputs-unchanged": (Mutates, MutatesInCommit),
    "keys-and-shapes": (NoList, Int32Keys, IndexBeyond),
    "own-copy": (MeetsItself, MeetsItsTarget),
    "positives-match": (WrongPositives, NoPositives),
    "no-positive-among-negatives": (CopiesAreNegatives,),
    "no-old-copy-among-negatives": (MeetsItsOldCopies,),
    "deterministic": (Random,),
    "candidates-of-all-ranks": (OfThisRank, RemembersOwnRank),
    "anchors-stay-local": (AnchorsOfAllRanks,),
    "relations-on-2-processes": (RemembersByRank,),
    "relations-on-3-processes": (RemembersByRank,),
    "gradient-on-2-processes": (GathersWithoutGradient,),
    "gradient-on-3-processes": (GathersWithoutGradient,),
    "gradcheck": (Detaches,),
    "order-of-rows": (WeighsByPosition, LeavesOutThird, ByPlace),
    "duplicates": (OnePerValue,),
    "zero-vectors": (Divides,),
    "half-precision": (WeighsByLength,),
    "temperatures": (Overflows,),
    "gives-is-true": (SaysNone, SaysSome, lambda: SaysPlain(kt.InBatch())),
    "reads-is-true": (ReadsMore,),
    "arrange": (Drops, Shuffles, SortsInPlace),
    "pairs-change-nothing": (RemembersInPairs,),
    "commit-stays-outside": (
        lambda: PassesCommitOn(kt.Queue(kt.InBatch(), size=64)),
        lambda: kt.HardNegatives(PassesCommitOn(kt.Queue(kt.InBatch(), size=64))),
    ),
    "starts-empty": (StartsWithNoise,),
    "any-batch-size": (TakesMultiples,),
    "state-continues": (LosesItsPointer, LosesItsRows),
}


@faults(BROKEN)
def test_a_fault_is_caught_by_the_check_that_names_it(name: str, broken: Callable[[], kt.PairSampler]) -> None:
    caught_by(name, sampler_checks(broken))


@pytest.mark.parametrize("right", [Good, Memory])  # ours, and compositions of them: tests/plugins/test_conformance.py
@pytest.mark.usefixtures("gloo")
def test_what_is_right_passes(right: Callable[[], kt.PairSampler]) -> None:
    report = check_sampler(right)
    assert {result.state for result in report.results} <= {"passed", "not applicable", "not given"}


def every_other(batches: list[Batch]) -> float:
    """Each row of the last batch against all its others."""
    last = batches[-1]
    rows = [(row, sample) for view in last["views"] for row, sample in zip(view, last["ids"], strict=True)]
    losses = []
    for i, (anchor, sample) in enumerate(rows):
        logits = {}
        for k, (row, _) in enumerate(rows):
            dot = math.fsum(x * y for x, y in zip(anchor, row, strict=True))
            logits[k] = dot / math.hypot(*anchor) / math.hypot(*row) / 0.7
        total = math.log(math.fsum(math.exp(logit) for k, logit in logits.items() if k != i))
        (positive,) = (logits[k] for k, (_, other) in enumerate(rows) if k != i and other == sample)
        losses.append(total - positive)
    return math.fsum(losses) / len(losses)


def test_an_oracle_and_a_reference_decide() -> None:
    report = run_checks(
        check for check in sampler_checks(Good, oracle=every_other) if check.name.startswith("equals-the-")
    )
    assert (report.state("equals-the-oracle"), report.state("equals-the-reference")) == ("passed", "not given")
    crossed = sampler_checks(kt.InBatch("cross"), oracle=every_other)
    caught_by("equals-the-oracle", crossed, says="on the batches of seed 0 the loss is")
    wrong = sampler_checks(Good, reference={3: 1.25})
    caught_by("equals-the-reference", wrong, says=r"on the batches of seed 3 the loss is .* 1\.25")


@pytest.mark.parametrize(
    ("name", "broken", "says"),
    [
        ("state-continues", LosesItsPointer, r"after \d more batches: a position or a count"),
        ("state-continues", LosesItsRows, "at once: contents"),
        ("candidates-of-all-ranks", OfThisRank, "rank 0 never meet what rank 1 embedded in this step; gather"),
        ("candidates-of-all-ranks", RemembersOwnRank, "rank 0 never meet what rank 1 embedded in step 0, in step 1"),
    ],
)
@pytest.mark.usefixtures("gloo")
def test_what_was_lost_is_said(name: str, broken: Callable[[], kt.PairSampler], says: str) -> None:
    caught_by(name, sampler_checks(broken), says)


def guided(encoded: list[kt.Encoded]) -> list[kt.Encoded]:
    """Give every view a further stream, which is a function of its rows."""
    return [
        replace(view, streams={**view.streams, "guide": replace(view, rows=-view.rows)})
        for view in encoded
        if view.rows is not None
    ]


class Guided(Good):
    def sides(self, encoded: Views) -> tuple[kt.Encoded, kt.Encoded]:
        for view in encoded:
            assert torch.equal(view.streams["guide"].ids, view.ids)
        return super().sides(encoded)


@pytest.mark.usefixtures("gloo")
def test_what_a_sampler_reads_beside_rows_is_added_by_its_author() -> None:
    check_sampler(Guided, dress=guided)
    with pytest.raises(ConformanceError, match="KeyError: 'guide'"):
        check_sampler(Guided)


class AgainstDrawn(kt.PairSampler):
    """View 0 against view 1, and against rows of a stream that are no row of any batch."""

    def reads(self, num_views: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return (0,), (1,)

    def pairs(self, encoded: Views) -> list[kt.Pairs]:
        ours, theirs = encoded[0], kt.across_ranks(encoded[1].stream("target"))
        drawn = kt.across_ranks(encoded[1].streams["drawn"])
        assert drawn.rows is not None
        block = kt.Block(ours.rows, drawn.rows, kt.Keys(alias=ours.ids), kt.Keys())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        return [kt.Pairs.between(ours, theirs).with_blocks([block])]


def drawn(encoded: list[kt.Encoded], apart: int = 1000) -> list[kt.Encoded]:
    """Give every view a stream of drawn rows, which go by numbers of their own."""
    return [
        replace(view, streams={**view.streams, "drawn": replace(view, rows=-view.rows, ids=view.ids + apart)})
        for view in encoded
        if view.rows is not None
    ]


def drawn_among_positives(encoded: list[kt.Encoded]) -> list[kt.Encoded]:
    return drawn(encoded, apart=0)


@pytest.mark.usefixtures("gloo")
def test_candidates_of_a_stream_are_known_by_their_ids() -> None:
    check_sampler(AgainstDrawn, dress=drawn)
    wrong = sampler_checks(AgainstDrawn, dress=drawn_among_positives)
    caught_by("no-positive-among-negatives", wrong, says="a positive stands among")


@pytest.mark.usefixtures("gloo")
def test_a_sampler_that_needs_something_is_given_by_a_function() -> None:
    class Demanding(Good):
        def __init__(self, radius: float) -> None:
            super().__init__()

    with pytest.raises(
        kt.InvalidValueError, match=r"`Demanding` needs `radius`, which no check can make up; pass an ob"
    ):
        check_sampler(Demanding)
    with pytest.raises(kt.InvalidValueError, match=r"`InfoNCE` must make a kontrast\.PairSampler, got InfoNCE"):
        check_sampler(InfoNCE)
