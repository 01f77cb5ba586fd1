"""The interface of objectives."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import IncompatibleError
from .finite import check_embeddings
from .loss import Loss
from .pairs import Pairs
from .part import Part
from .precision import full_precision
from .similarity import Cosine, Similarity

if TYPE_CHECKING:
    from .sampler import PairSampler

__all__ = ["Needs", "Objective"]


@dataclass(frozen=True)
class Needs:
    """What an objective asks of the pairs it is given.

    Args:
        negatives: whether it is meaningless without negatives.
        min_batch: the smallest batch (of all ranks) it is defined for.
        softmax: whether it reads the negatives as `row_statistics(...).negative_logsumexp` alone, where hard and
            debiased estimates stand.
        similarity: the kind of similarity it is defined on; None: any.
        weights: whether its means heed `Pairs.anchor_weights`; if not, pairs that carry them are refused.
    """

    negatives: bool = False
    min_batch: int = 1
    softmax: bool = False
    similarity: type[Similarity] | None = None
    weights: bool = False


class Objective(Part, ABC):
    """Pairs -> Loss, pure in its tensors.

    Subclasses define `forward` from `row_statistics`, `Pairs.aligned` or `Pairs.positive_scores`, and declare `needs`.
    Memory, ranks and precision are the core's business: return sums and counts, never a mean over this rank's rows.
    """

    needs = Needs()

    def __call__(self, pairs: Pairs) -> Loss:
        """Return `forward(pairs)`, computed in full precision whatever autocast the encoders ran under."""
        self._check_similarity(pairs.similarity)
        if pairs.anchor_weights is not None and not self.needs.weights:
            raise IncompatibleError(
                f"the sampler weighs its anchors, and {type(self).__name__} does not heed weights; pass "
                "pairs.anchor_weights to Loss.over_rows and say needs = Needs(weights=True)"
            )
        with full_precision(pairs.anchors):
            loss: Loss = super().__call__(pairs)
        if isinstance(loss, Loss):
            check_embeddings(pairs, *(term.sum for term in loss.terms))
        return loss

    @abstractmethod
    def forward(self, pairs: Pairs) -> Loss:
        """Return the loss of these pairs."""

    def check(self, sampler: "PairSampler", similarity: Similarity | None = None) -> None:
        """Refuse a sampler that cannot give what this objective needs, or a similarity it is not defined on.

        Raises:
            IncompatibleError: says which need is not met and what would meet it.
        """
        name, source = type(self).__name__, type(sampler).__name__
        self._check_similarity(Cosine() if similarity is None else similarity)
        if self.needs.negatives and not sampler.gives.negatives:
            raise IncompatibleError(
                f"{name} needs negatives, and the sampler {source} gives none; "
                "take kontrast.InBatch, or put a kontrast.Queue around it"
            )
        if sampler.gives.reweighted and not self.needs.softmax:
            raise IncompatibleError(
                f"the sampler {source} estimates the sum of the negatives' exponentials, and {name} reads no such sum; "
                "take a softmax-type objective such as InfoNCE, or leave HardNegatives and Debiased out"
            )

    def _check_similarity(self, similarity: Similarity) -> None:
        wanted = self.needs.similarity
        if wanted is not None and not isinstance(similarity, wanted):
            raise IncompatibleError(
                f"{type(self).__name__} is defined on the similarity {wanted.__name__}, "
                f"got {type(similarity).__name__}; give the method similarity=kontrast.{wanted.__name__}()"
            )
