"""How alike two embeddings are: a module of its own, which a method owns and its Pairs carry.

Shapes: A anchors, C candidates, P pairs, D embedding size.
"""

import math
from abc import ABC
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .errors import InvalidValueError
from .part import Part
from .precision import full_precision

__all__ = ["Cosine", "Dot", "LearnedTemperature", "Scaling", "Similarity", "normalize"]


class Scaling(NamedTuple):
    """A preparation that multiplies each row by a number.

    Args:
        unit: whether rows are brought to length 1 first.
        scale: what the product of two rows is multiplied by, with gradient.
    """

    unit: bool
    scale: float | Tensor


class Similarity(Part, ABC):
    """A score of an anchor and a candidate: ``transform(prepare(anchor) . prepare_candidates(candidate))``.

    A score of this form is taken tile by tile at the price of a matrix product. One that is not sets `factors` to False
    and overrides `scores`, which is then evaluated for every tile, and once more in the backward pass.

    `symmetric` says that `prepare` serves candidates too, so that score(a, c) = score(c, a): a tensor of rows that are
    both is then prepared once, and where rows are compared with each other each product serves both directions. A class
    with a `prepare_candidates` of its own is not symmetric unless it says so.
    """

    factors = True
    symmetric = True

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "prepare_candidates" in vars(cls) and "symmetric" not in vars(cls):
            cls.symmetric = False
        if not {"prepare", "prepare_candidates"}.isdisjoint(vars(cls)) and "scaling" not in vars(cls):
            # What is inherited speaks of another preparation.
            cls.scaling = Similarity.scaling  # type: ignore[method-assign]

    @property
    def bound(self) -> float | Tensor | None:
        """The largest absolute score there can be, detached; None where there is no such bound."""
        return None

    def prepare(self, rows: Tensor) -> Tensor:
        """Return what an anchor [..., D] brings to the product, [..., E]."""
        return rows

    def prepare_candidates(self, rows: Tensor) -> Tensor:
        """Return what a candidate [..., D] brings to the product, [..., E]."""
        return self.prepare(rows)

    def scaling(self) -> Scaling | None:
        """Return how rows are prepared where that only scales them: kernels may then read them as they are."""
        return None

    def transform(self, products: Tensor) -> Tensor:
        """Return scores from products, entry by entry and without parameters."""
        return products

    def scores(self, anchors: Tensor, candidates: Tensor) -> Tensor:
        """Return the scores [..., A, C] of anchors [..., A, D] against candidates [..., C, D]."""
        return self.transform(self.prepare(anchors) @ self.prepare_candidates(candidates).transpose(-1, -2))

    def paired(self, anchors: Tensor, candidates: Tensor) -> Tensor:
        """Return the scores [P] of anchors [P, D] against candidates [P, D], row by row."""
        if not self.factors:
            return self.scores(anchors[:, None], candidates[:, None])[:, 0, 0]
        return self.transform((self.prepare(anchors) * self.prepare_candidates(candidates)).sum(-1))


class Cosine(Similarity):
    """The cosine of the angle between two rows; a zero row has score 0 and no gradient."""

    @property
    def bound(self) -> float:
        """1."""
        return 1.0

    def prepare(self, rows: Tensor) -> Tensor:
        """Return the rows scaled to length 1."""
        return normalize(rows)

    def scaling(self) -> Scaling:
        """Length 1."""
        return Scaling(True, 1.0)


class Dot(Similarity):
    """The dot product, as it is (TS2Vec, DPR); unbounded."""

    def scaling(self) -> Scaling:
        """As they are."""
        return Scaling(False, 1.0)


class LearnedTemperature(Similarity):
    """Another similarity divided by a temperature that is learned (CLIP): give the objective a temperature of 1.

    The parameter is the log of the inverse temperature; where it would pass the bound it is held there.

    Args:
        similarity: what is scaled; the cosine by default.
        initial: temperature at the start, > 0; 0.07 in CLIP, 0.1 in SigLIP.
        smallest: temperature it cannot fall below, > 0; 0.01 in CLIP.
        bias: what is added to the scaled score, learned from this value on; -10 in SigLIP. None: nothing.

    Raises:
        InvalidValueError: if a temperature is not > 0, or `initial` is below `smallest`.

    Source:
        Radford et al. 2021, arXiv:2103.00020, section 2.5; the bias: Zhai et al. 2023, arXiv:2303.15343, section 3.2.
    """

    def __init__(
        self,
        similarity: Similarity | None = None,
        initial: float = 0.07,
        smallest: float = 0.01,
        bias: float | None = None,
    ) -> None:
        super().__init__()
        if not math.inf > initial >= smallest > 0:
            raise InvalidValueError(
                f"temperatures must be `initial` >= `smallest` > 0, got {initial!r} and {smallest!r}"
            )
        self.similarity = Cosine() if similarity is None else similarity
        self.log_inverse_temperature = nn.Parameter(torch.tensor(-math.log(initial)))
        self.bias = None if bias is None else nn.Parameter(torch.tensor(float(bias)))
        self.largest = 1 / smallest
        # A pointwise function between product and scale keeps the scale out of the product.
        inner = self.similarity
        self.factors = inner.factors and type(inner).transform is Similarity.transform
        self.symmetric = inner.symmetric and bias is None  # the bias is a column of the candidates alone

    @property
    def bound(self) -> Tensor | None:
        """The scale as it is now times the inner bound; None with a bias."""
        inner = self.similarity.bound
        return None if inner is None or self.bias is not None else self._scale(torch.float64).detach() * inner

    def prepare(self, rows: Tensor) -> Tensor:
        """Return the inner similarity's rows, scaled by the root of the inverse temperature."""
        return self._scaled(self.similarity.prepare(rows), None if self.bias is None else rows.new_ones(()))

    def prepare_candidates(self, rows: Tensor) -> Tensor:
        """Return the same for candidates, with the bias beside it."""
        return self._scaled(self.similarity.prepare_candidates(rows), self.bias)

    def scaling(self) -> Scaling | None:
        """Return the inner similarity's, times the inverse temperature; None with a bias."""
        inner = self.similarity.scaling() if self.bias is None else None
        return None if inner is None else Scaling(inner.unit, self._scale(torch.float32) * inner.scale)

    def scores(self, anchors: Tensor, candidates: Tensor) -> Tensor:
        """Return the scaled scores of the inner similarity."""
        if self.factors:
            return super().scores(anchors, candidates)
        scores = self.similarity.scores(anchors, candidates)
        scores = scores * self._scale(scores.dtype)
        return scores if self.bias is None else scores + self.bias.to(scores.dtype)

    def metrics(self) -> dict[str, float]:
        """Return the temperature, and the bias where there is one."""
        bias = {} if self.bias is None else {"bias": self.bias.item()}
        return {"temperature": 1 / self._scale(torch.float64).item(), **bias}

    def _scale(self, dtype: torch.dtype) -> Tensor:
        return self.log_inverse_temperature.to(dtype).exp().clamp(max=self.largest)

    def _scaled(self, rows: Tensor, last: Tensor | None) -> Tensor:
        # The root on both sides keeps the product symmetric; a further column of ones meets one of the bias.
        rows = rows * self._scale(rows.dtype).sqrt()
        return rows if last is None else torch.cat([rows, last.to(rows.dtype).expand(*rows.shape[:-1], 1)], dim=-1)


def normalize(rows: Tensor) -> Tensor:
    """Scale rows [..., D] to length 1; a zero row stays zero and gets no gradient (`F.normalize` gives it 1e12)."""
    result: Tensor = _Normalize.apply(rows)
    return result


class _Normalize(torch.autograd.Function):
    """By hand, for one copy of the rows in memory instead of four."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        norms = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
        inverse = torch.where(norms > 0, norms, 1.0).reciprocal_()
        unit = rows * inverse
        ctx.save_for_backward(unit, torch.where(norms > 0, inverse, 0.0))
        return unit

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        unit, inverse = ctx.saved_tensors
        gradient = gradients[0]
        with full_precision(gradient):
            along = torch.einsum("...d,...d->...", gradient, unit)[..., None]
        result: Tensor = torch.addcmul(gradient, unit, along, value=-1).mul_(inverse)
        return result
