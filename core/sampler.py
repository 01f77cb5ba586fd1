"""Pair samplers: who is compared with whom. The interface, and the two that need nothing but the batch.

Shapes: V views, M rows of a view, D embedding size.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from .errors import IncompatibleError, InvalidValueError
from .pairs import Pairs
from .part import Part
from .values import Encoded, across_ranks, stack

__all__ = ["Gives", "InBatch", "PairSampler", "Positives", "ViewPairing", "Wrapper"]

ViewPairing = Literal["all", "cross", "forward"]


@dataclass(frozen=True)
class Gives:
    """What a sampler offers an objective.

    Args:
        negatives: whether there are any.
        min_batch: the smallest batch (of all ranks) with which it has something to compare.
        reweighted: whether the negatives' sum is an estimate (hard, debiased), which only objectives of the softmax
            type can take.
        bounded: whether the similarity must have a bound, which floors that estimate.
        views: how many views of a batch it takes; 0: any number it can pair.
        own_rows: whether what is compared are the batch's rows (`compared`), known by their ids: a queue's entries
            stand beside those, and a guide judges them.
    """

    negatives: bool = True
    min_batch: int = 1
    reweighted: bool = False
    bounded: bool = False
    views: int = 0
    own_rows: bool = True


class PairSampler(Part, ABC):
    """Encoded views -> Pairs, in three phases: read, score, commit.

    `pairs` never changes state, so it may run under gradient caching and be repeated; `commit` does, once per step,
    after the optimizer. A method calls `commit` of every module it contains: a sampler that wraps another does not
    pass it on.
    """

    @property
    def gives(self) -> Gives:
        """What this sampler offers an objective."""
        return Gives()

    def reads(self, num_views: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return which views are anchors and which are candidates, so that a method encodes no more than is read."""
        return tuple(range(num_views)), tuple(range(num_views))

    def arrange(self, order: Tensor, batch_size: int, labels: Tensor | None, groups: Tensor | None) -> Tensor:
        """Return an epoch's samples in the order in which runs of `batch_size` are to be its batches.

        Args:
            order: a random permutation of the samples, int64 [N], the same on every rank.
            batch_size: samples per step, of all ranks.
            labels: of all samples, int64 [N], where the data set knows them.
            groups: likewise.

        Returns:
            A permutation of `order`; a function of the arguments alone, so that every rank and a resume agree.
        """
        return order

    def compared(self, encoded: Sequence[Encoded]) -> list[Encoded]:
        """Return the views as what is compared: as they are, or their elements as rows (`Elements`)."""
        return list(encoded)

    @abstractmethod
    def pairs(self, encoded: Sequence[Encoded]) -> list[Pairs]:
        """Return the comparisons of this batch: anchors of this rank, candidates of all (`across_ranks`)."""

    def commit(self, encoded: Sequence[Encoded]) -> None:
        """Take this batch, detached, into the sampler's state; the default has none."""


class Wrapper(PairSampler):
    """A sampler around another one, which it passes on to where it has nothing of its own to say."""

    def __init__(self, inner: PairSampler) -> None:
        super().__init__()
        if not isinstance(inner, PairSampler):
            name = type(self).__name__
            raise InvalidValueError(f"{name} goes around a sampler, got {inner!r}; write {name}(InBatch())")
        self.inner = inner

    def inside(self) -> Iterator[PairSampler]:
        """Yield the samplers that this one goes around, from the outermost to the innermost."""
        inner: PairSampler = self.inner
        yield inner
        if isinstance(inner, Wrapper):
            yield from inner.inside()

    @property
    def gives(self) -> Gives:
        """What the inner sampler gives."""
        return self.inner.gives

    def reads(self, num_views: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return what the inner sampler reads."""
        return self.inner.reads(num_views)

    def arrange(self, order: Tensor, batch_size: int, labels: Tensor | None, groups: Tensor | None) -> Tensor:
        """Return the inner sampler's order."""
        return self.inner.arrange(order, batch_size, labels, groups)

    def compared(self, encoded: Sequence[Encoded]) -> list[Encoded]:
        """Return what the inner sampler compares."""
        return self.inner.compared(encoded)

    def pairs(self, encoded: Sequence[Encoded]) -> list[Pairs]:
        """Return the inner sampler's pairs."""
        return self.inner.pairs(encoded)


class _ViewSampler(PairSampler):
    """Which views meet: `all` stacks them, `cross` pairs each with each other one, `forward` each with later ones."""

    def __init__(self, views: ViewPairing) -> None:
        super().__init__()
        if views not in ("all", "cross", "forward"):
            raise InvalidValueError(f"`views` must be all, cross or forward, got {views!r}")
        self.views: ViewPairing = views

    def reads(self, num_views: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the views that are anchors and those that are candidates."""
        every = tuple(range(num_views))
        return (every[:-1], every[1:]) if self.views == "forward" else (every, every)

    def _meetings(self, encoded: Sequence[Encoded], *, gather: bool) -> list[tuple[Encoded, Encoded]]:
        """Return (anchors, candidates) for each Pairs, each view gathered once."""
        if len(encoded) < 2:
            raise IncompatibleError(
                f"{type(self).__name__} pairs views of the same samples, and there is {len(encoded)}; "
                "take an augmenter that makes two or more"
            )
        if self.views == "all":
            anchors = stack(encoded)
            # One tensor where rows are compared with each other: each product then serves both.
            candidates = stack(encoded, "target") if any(view.streams for view in encoded) else anchors
            return [(anchors, across_ranks(candidates) if gather else candidates)]
        targets = [view.stream("target") for view in encoded]
        _, read = self.reads(len(encoded))
        joined = {j: across_ranks(targets[j]) if gather else targets[j] for j in read}
        return [
            (encoded[i], joined[j])
            for i in range(len(encoded))
            for j in read
            if i < j or (self.views == "cross" and i != j)
        ]


class InBatch(_ViewSampler):
    """Every other row of the batch, of all ranks, is a candidate: copies of one's sample positives, the rest negatives.

    Args:
        views: `"all"`: the views are stacked and each row meets all others (SimCLR's 2N; V - 1 positives with V
            views). `"cross"`: one Pairs for each ordered couple of views, negatives from the other view alone
            (CLIP's two directions). `"forward"`: only from a view to later ones (SimCSE, MoCo's queries and keys).
        match: the key whose equality makes a positive: ids, labels (supervised) or groups. Copies of a sample without
            a label (-1) are then neither positives nor negatives of each other.

    With a target (momentum, stop-gradient) the candidates are its embeddings. Several Pairs weigh the same, and one
    together.
    """

    def __init__(self, views: ViewPairing = "all", match: str = "ids") -> None:
        super().__init__(views)
        if match not in ("ids", "labels", "groups"):
            raise InvalidValueError(f"`match` must be ids, labels or groups, got {match!r}")
        self.match = match

    @property
    def gives(self) -> Gives:
        """Negatives from two samples on."""
        return Gives(min_batch=2)

    def pairs(self, encoded: Sequence[Encoded]) -> list[Pairs]:
        """Return the in-batch comparisons, candidates gathered over ranks."""
        meetings = self._meetings(encoded, gather=True)
        weight = 1 / len(meetings)
        return [Pairs.between(a, c, match=self.match, alias="ids", weight=weight) for a, c in meetings]


class Positives(_ViewSampler):
    """Each row beside the other copies of its sample, and nothing else: for methods without negatives.

    Nothing is gathered: the copies of a sample must live on one rank, as a run has it (a batch holds no id twice).

    Args:
        views: as for `InBatch`.
    """

    def __init__(self, views: ViewPairing = "all") -> None:
        super().__init__(views)

    @property
    def gives(self) -> Gives:
        """Positives alone."""
        return Gives(negatives=False)

    def pairs(self, encoded: Sequence[Encoded]) -> list[Pairs]:
        """Return the positives of this rank's rows."""
        meetings = self._meetings(encoded, gather=False)
        # Scoped by id, rows of different samples are not compared at all.
        return [Pairs.between(a, c, scope="ids", weight=1 / len(meetings)) for a, c in meetings]
