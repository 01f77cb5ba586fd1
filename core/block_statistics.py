"""A block's part of the row statistics, by the fastest way that its keys, weights and similarity allow.

Shapes: A anchors, C candidates of a block (or slots, with an index), P positive pairs.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .block import Block
from .exponentials import Exponentials
from .fused import fused_sums, wanted
from .labelled import Labelled, labelled
from .listing import Listed, listed, listed_positives
from .precision import precisely
from .prepared import Prepared
from .similarity import Similarity
from .sums import listed_logits
from .walk import Measure, Merge, Scored, log_add, log_sum_exp

__all__ = ["BlockStatistics", "Measured", "Sums"]


@dataclass(frozen=True)
class Sums:
    """What is summed over a row; `weight` is the log of the sum of the negatives' weights."""

    positive_count: Tensor
    negative_count: Tensor
    positive_sum: Tensor
    positive_logsumexp: Tensor
    negative: tuple[Tensor, ...]
    weight: Tensor


@dataclass(frozen=True)
class Measured:
    """The logits of a block's positives where they are listed, as (anchor [P], logit [P]), and its sums."""

    positives: tuple[Tensor, Tensor] | None
    sums: Sums


@dataclass(frozen=True)
class BlockStatistics:
    """A block's part, taken when it is asked for: with labels not everything that can be asked for costs the same.

    Args:
        block: who is compared with whom.
        prepared: its rows as the similarity wants them.
        inverse_temperature: what scores are multiplied by.
        powers: of the negatives' exponentials: (1,), or for hard negatives (1 + h, h).
    """

    block: Block
    prepared: Prepared
    inverse_temperature: float
    powers: tuple[float, ...]

    @property
    def plain(self) -> bool:
        """Whether logits are products and nothing else."""
        similarity, block = self.prepared.similarity, self.block
        weighted = block.log_weights is not None or bool(block.rules)
        return similarity.factors and type(similarity).transform is Similarity.transform and not weighted

    @cached_property
    def _found(self) -> Listed | None:
        return listed(self.block) if self.plain and self.block.negatives else None

    @cached_property
    def labelled(self) -> Labelled | None:
        """The relation by labels, where that is faster for some of the statistics."""
        if not self.plain or wanted(self.block.anchors) or self._found is not None:
            return None
        return labelled(self.block)

    @cached_property
    def measured(self) -> Measured:
        """Positives and negatives, told apart."""
        return _measured(self, self._found)

    @cached_property
    def counts(self) -> tuple[Tensor, Tensor]:
        """How many positives and how many negatives each anchor has, [A] and [A]."""
        if self.labelled is not None:
            return self.labelled.positives, self.labelled.negatives
        return self.measured.sums.positive_count, self.measured.sums.negative_count

    @cached_property
    def positive_sum(self) -> Tensor:
        """The sum of the positives' logits, [A]."""
        if self.labelled is None:
            return self.measured.sums.positive_sum
        function = self.labelled.positive_sums
        (sums,) = precisely(
            lambda a, c: (function(a, c),), (self.prepared.anchors(self.block), self.prepared.candidates(self.block))
        )
        return sums * self.inverse_temperature

    @property
    def positives(self) -> tuple[Tensor, Tensor] | None:
        """The positives' logits, as (anchor [P], logit [P]), where those are listed."""
        return None if self.labelled is not None else self.measured.positives

    @cached_property
    def positive_logsumexp(self) -> Tensor:
        """The log-sum-exp over the positives, [A]: with labels each anchor meets those of its own alone."""
        if self.labelled is None:
            return self.measured.sums.positive_logsumexp
        ours, theirs = self.block.anchor_keys.match, self.block.candidate_keys.match
        assert ours is not None
        assert theirs is not None
        return self.exponentials((1.0,), self.labelled.unmatched, (ours, theirs))[1][0]

    @cached_property
    def negative(self) -> tuple[tuple[Tensor, ...], Tensor]:
        """The log-sum-exp over the negatives for each power, [A] each, and the log of the sum of their weights, [A]."""
        if self.labelled is None:
            return self.measured.sums.negative, self.measured.sums.weight
        _, sums, _ = self.exponentials(self.powers, self.labelled.ignored, None, self.labelled.labels)
        return sums.unbind(0), self.labelled.negatives.to(sums.dtype).log()

    @cached_property
    def logsumexp(self) -> Tensor:
        """The log-sum-exp over everything compared, without hardness, [A]."""
        if self.labelled is None:
            return log_add(self.positive_logsumexp, self.negative[0][0])
        return self.exponentials((1.0,), self.labelled.ignored, None)[1][0]

    def exponentials(
        self,
        powers: tuple[float, ...],
        excepted: tuple[Tensor, Tensor],
        scopes: tuple[Tensor, Tensor] | None,
        labels: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Exponentials, Tensor, Tensor]:
        """Return the fast way through the block, its log-sums and the excepted pairs' logits."""
        a, c = self.prepared.anchors(self.block), self.prepared.candidates(self.block)
        bound = self.prepared.similarity.bound
        bound = bound if isinstance(bound, float) else None
        sides = a, None if self.block.mirrored and a is c else c
        way = Exponentials.between(*sides, self.inverse_temperature, powers, excepted, bound, scopes, labels)
        return way, *way.log_sums(*sides)


def _measured(part: BlockStatistics, found: Listed | None) -> Measured:
    block, prepared, inverse_temperature, powers = part.block, part.prepared, part.inverse_temperature, part.powers
    weighted = block.log_weights is not None or bool(block.rules)
    fused = fused_sums(block, prepared, inverse_temperature, powers) if part.plain else None
    a = block.anchors if fused else prepared.anchors(block)
    found = None if fused is not None else found
    slots = fused.positives if fused else listed_positives(block) if found is None else found.positives
    walked = tuple[Tensor, ...]()
    logits: tuple[Tensor, Tensor] | None = None
    if fused is not None:
        sums, negatives, logits = fused.log_sums.unbind(0), fused.negatives, (fused.positives[0], fused.logits)
    elif found is not None:
        ours, theirs = block.anchor_keys.scope, block.candidate_keys.scope
        scopes = None if ours is None or theirs is None else (ours, theirs)
        spec, log_sums, excepted = part.exponentials(powers, found.excepted, scopes)
        sums = log_sums.unbind(0)
        negatives = spec.plan.sizes - torch.bincount(found.excepted[0], minlength=len(a))
        logits = found.positives[0], excepted[found.which]
    elif block.negatives or slots is None:
        measure = _Logits(inverse_temperature, (*powers, 0.0) if weighted else powers, positives=slots is None)
        walked = prepared.walk(block).measured(measure)
        negatives, sums = walked[0], walked[1 : 1 + len(powers)]
    else:
        negatives = torch.zeros(len(a), dtype=torch.int64, device=a.device)
        sums = (a.new_full((len(a),), -torch.inf),) * len(powers)

    if slots is None:
        count, total, positive = walked[-3:]
    else:
        if logits is None:  # they were not among the products
            logits = listed_logits(prepared, block, slots, inverse_temperature)
        count = torch.bincount(logits[0], minlength=len(a))
        least, most = _extremes(count)
        if least == most == 1:  # the common case; they are in order of anchors
            total = positive = logits[1]
        else:
            total = logits[1].new_zeros(len(a)).index_add(0, logits[0], logits[1])
            if most <= 1:
                positive = torch.where(count > 0, total, -torch.inf)
            else:
                positive = _scattered_log_sum_exp(logits[1], logits[0], len(a))
    weight = walked[1 + len(powers)] if walked and weighted else negatives.to(total.dtype).log()
    return Measured(logits, Sums(count, negatives, total, positive, tuple(sums), weight))


def _extremes(count: Tensor) -> tuple[int, float]:
    """Return the least and the most positives an anchor has; on a card, which would be waited for, what is possible."""
    if count.is_cuda or not len(count):
        return 0, math.inf
    least, most = count.aminmax()
    return int(least), int(most)


@dataclass(frozen=True)
class _Logits(Measure):
    """The negatives' count and log-sum-exp for each power, and if wanted the positives' count, sum and log-sum-exp."""

    inverse_temperature: float
    powers: tuple[float, ...]
    positives: bool

    @property
    def merges(self) -> tuple[Merge, ...]:
        merge: Merge = "logsumexp"
        negatives: tuple[Merge, ...] = ("count", *(merge for _ in self.powers))
        return (*negatives, "count", "sum", merge) if self.positives else negatives

    def __call__(self, tile: Scored) -> tuple[Tensor, ...]:
        shape = tile.scores.shape
        positive, negative = tile.counted()
        logits = tile.scores * self.inverse_temperature
        weights = tile.negative_log_weights()
        sums = [
            log_sum_exp(logits * power if weights is None else logits * power + weights, negative)
            for power in self.powers
        ]
        negatives = (negative.expand(shape).sum(-1), *sums)
        if not self.positives:
            return negatives
        if tile.log_weights is not None:
            logits = logits + tile.log_weights
        total = torch.where(positive, logits, 0.0).sum(-1)
        return (*negatives, positive.expand(shape).sum(-1), total, log_sum_exp(logits, positive))


def _scattered_log_sum_exp(logits: Tensor, row: Tensor, count: int) -> Tensor:
    """Return the log-sum-exp of the logits [P] of each row [A]; -inf, with zero gradient, where it has none."""
    top = logits.detach().new_full((count,), -torch.inf).scatter_reduce(0, row, logits.detach(), "amax")
    shift = torch.where(top == -torch.inf, 0.0, top)
    sums = torch.zeros_like(top).index_add(0, row, (logits - shift[row]).exp())
    some = sums != 0  # not-a-number stays visible
    return torch.where(some, torch.where(some, sums, 1.0).log() + shift, -torch.inf)
