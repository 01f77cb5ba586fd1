"""Samplers that choose or weigh the negatives another sampler finds: hard ones, mined ones, debiased ones.

Shapes: A anchors, P positive pairs.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .block import Rule
from .errors import IncompatibleError, InvalidValueError
from .mining import TopNegatives, only, top_negatives
from .pairs import Pairs
from .sampler import Gives, PairSampler, Wrapper
from .values import Encoded

__all__ = ["Debiased", "HardNegatives", "HardestNegatives", "SemiHardNegatives"]


class _Choosing(Wrapper):
    """A wrapper that makes other Pairs of each of the inner sampler's."""

    def __init__(self, inner: PairSampler) -> None:
        super().__init__(inner)
        name, source = type(self).__name__, type(inner).__name__
        if not inner.gives.negatives:
            raise IncompatibleError(
                f"{name} chooses among negatives, and {source} gives none; take InBatch, or put a Queue in between"
            )
        for part in self.inside():
            if type(part) is type(self):
                raise IncompatibleError(f"{name} stands around another {name}; one of them is enough, leave one out")
            for first, second, reason in _SENSELESS:
                if all(isinstance(one, (first, second)) for one in (self, part)):
                    raise IncompatibleError(f"{name} does not go with {type(part).__name__}: {reason}; leave one out")

    def pairs(self, encoded: Sequence[Encoded]) -> list[Pairs]:
        """Return the inner sampler's pairs with other negatives, or other weights of them."""
        return [self.chosen(pairs) for pairs in self.inner.pairs(encoded)]

    def chosen(self, pairs: Pairs) -> Pairs:
        """Return what is made of one Pairs."""
        raise NotImplementedError


class HardNegatives(_Choosing):
    """Weigh negatives by exp(hardness x logit): those near the anchor count more in a softmax-type objective's sum.

    The sum over an anchor's n negatives becomes ``n sum exp((1 + h) l) / sum exp(h l)``, of logits l.

    Args:
        inner: whose negatives are weighed.
        hardness: h above (beta in the paper), >= 0; 0.5 to 2 there.
        detach: take the weights as constants. The paper's code does not, and the gradients differ.

    Raises:
        InvalidValueError: if `hardness` is not >= 0 and finite.
        IncompatibleError: if `inner` gives no negatives, or chooses or weighs them in a way that does not go with this.

    Source:
        Robinson et al. 2021, arXiv:2010.04592, eq. 4. The mean of the weights is over the negatives, as in the authors'
        code, and n is the number there are, not the batch size.
    """

    def __init__(self, inner: PairSampler, hardness: float = 1.0, detach: bool = False) -> None:
        super().__init__(inner)
        if not 0 <= hardness < float("inf"):
            raise InvalidValueError(
                f"`hardness` must be >= 0 and finite, got {hardness!r}; it is the power of the negatives' weights"
            )
        self.hardness, self.detach = hardness, detach

    @property
    def gives(self) -> Gives:
        """What the inner sampler gives, reweighted."""
        return replace(self.inner.gives, reweighted=True)

    def chosen(self, pairs: Pairs) -> Pairs:
        """Return the pairs with this hardness."""
        return replace(pairs, hardness=self.hardness, detach_hardness=self.detach)


class Debiased(_Choosing):
    """Correct for negatives that are none: subtract what positives among them are expected to add to the sum.

    The sum S over an anchor's n negatives becomes ``max((S - n p E) / (1 - p), n exp(least logit))``, with E the
    mean of the positives' exponentials.

    Args:
        inner: whose negatives are corrected.
        positive_prior: p above (tau+ in the paper): the chance that a random negative is a positive, in [0, 1), such as
            one over the number of classes.
        least_score: the least similarity there can be; None: minus the bound of the method's similarity.

    Raises:
        InvalidValueError: if `positive_prior` is not in [0, 1), or `least_score` not finite.
        IncompatibleError: if `inner` gives no negatives, or chooses or weighs them in a way that does not go with this.

    Source:
        Chuang et al. 2020, arXiv:2007.00224, eq. 7 and 8. n is the number of negatives there are, not 2 (B - 1).
    """

    def __init__(self, inner: PairSampler, positive_prior: float = 0.1, least_score: float | None = None) -> None:
        super().__init__(inner)
        if not 0 <= positive_prior < 1:
            raise InvalidValueError(
                f"`positive_prior` must be in [0, 1), got {positive_prior!r}; "
                "it is the chance that a random negative is a positive"
            )
        if least_score is not None and not math.isfinite(least_score):
            raise InvalidValueError(f"`least_score` must be finite, got {least_score!r}; it floors the debiased sum")
        self.positive_prior, self.least_score = positive_prior, least_score

    @property
    def gives(self) -> Gives:
        """What the inner sampler gives, reweighted."""
        return replace(self.inner.gives, reweighted=True, bounded=self.least_score is None)

    def chosen(self, pairs: Pairs) -> Pairs:
        """Return the pairs with this prior."""
        return replace(pairs, positive_prior=self.positive_prior, least_score=self.least_score)


class HardestNegatives(_Choosing):
    """Keep the `count` negatives of every anchor that score highest, and all of its positives.

    Args:
        inner: whose negatives are mined.
        count: how many are kept, >= 1; 1 is FaceNet's hardest negative.

    Raises:
        InvalidValueError: if `count` is not >= 1.
        IncompatibleError: if `inner` gives no negatives, or chooses or weighs them in a way that does not go with this.

    Source:
        Schroff et al. 2015 (FaceNet), arXiv:1503.03832, section 3.2, with `count` 1.
    """

    def __init__(self, inner: PairSampler, count: int = 1) -> None:
        super().__init__(inner)
        if count < 1:
            raise InvalidValueError(f"`count` must be >= 1, got {count!r}; it is how many negatives are kept")
        self.count = count

    def chosen(self, pairs: Pairs) -> Pairs:
        """Return the pairs with their hardest negatives alone."""
        return only(pairs, top_negatives(pairs, self.count))


class SemiHardNegatives(_Choosing):
    """For every positive pair keep one negative: the hardest of those that score below the positive.

    Where all score above it the lowest is taken, so that no pair is lost. Each positive pair becomes an anchor of its
    own.

    Args:
        inner: whose negatives are mined.

    Raises:
        IncompatibleError: if `inner` gives no negatives, or chooses or weighs them in a way that does not go with this.

    Source:
        Schroff et al. 2015 (FaceNet), arXiv:1503.03832, section 3.2. The paper leaves open what a pair without a
        semi-hard negative gets.
    """

    def chosen(self, pairs: Pairs) -> Pairs:
        """Return one anchor per positive pair, with one negative."""
        rows = pairs.per_positive()
        _, scores = rows.positive_scores()
        below = Rule(_below, anchors=(scores.detach(),))
        best, least = top_negatives(rows, 1, rule=below), top_negatives(rows, 1, lowest=True)
        none = best.slot < 0
        return only(
            rows,
            TopNegatives(
                torch.where(none, least.scores, best.scores),
                torch.where(none, least.block, best.block),
                torch.where(none, least.slot, best.slot),
            ),
        )


def _below(scores: Tensor, anchors: tuple[Tensor, ...], candidates: tuple[Tensor, ...]) -> Tensor:
    (positive,) = anchors
    return torch.where(scores < positive[..., None], 0.0, -torch.inf)


# Of each two, one takes away what the other is for, whichever goes around the other.
_SENSELESS: tuple[tuple[type[_Choosing], type[_Choosing], str], ...] = (
    (Debiased, HardestNegatives, "a positive prior is of random negatives, and the hardest are not"),
    (Debiased, SemiHardNegatives, "a positive prior is of random negatives, and the semi-hard are not"),
    (HardNegatives, SemiHardNegatives, "one negative is left for each pair, and there is nothing to weigh"),
    (HardestNegatives, SemiHardNegatives, "each of them chooses the negatives"),
)
