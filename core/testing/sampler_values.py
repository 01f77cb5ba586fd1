"""Checks of samplers by what a loss makes of their pairs: values, gradients, edges, precision.

Shapes: V views, N samples, D embedding size.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kontrast import Cosine, Encoded, Loss, Needs, Objective, Pairs, PairSampler, pair_counts, row_statistics

from .checks import ConformanceError, NotCheckedError
from .relations import element
from .sampler import Batch, SamplerCase
from .scene import Measured, commit, measured, pairs_of, scored

__all__ = ["CHECKS", "Softmax", "measured_on"]

SIZES = (4, 6, 3, 5)


class Softmax(Objective):
    """Reads all that a sampler says: the positives' mean, against everything compared where there are negatives."""

    needs = Needs(softmax=True)

    def __init__(self, temperature: float = 0.7) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, pairs: Pairs) -> Loss:
        """Return the loss over anchors with a positive."""
        rows = row_statistics(pairs, temperature=self.temperature)
        others = torch.where(rows.negative_count > 0, rows.logsumexp, 0.0)
        return Loss.over_rows(others - rows.positive_mean, rows.positive_count > 0)


@dataclass(frozen=True)
class _Last:
    """A sampler that has seen all batches but the last, and that one."""

    sampler: PairSampler
    encoded: list[Encoded]

    @property
    def rows(self) -> Tensor:
        """The embeddings [V, N, D] of the last batch."""
        return torch.stack([view.rows for view in self.encoded if view.rows is not None])


def _last(case: SamplerCase, seed: int = 0, change: Callable[[list[Encoded]], list[Encoded]] = list) -> _Last:
    """Return what stands before the last batch; each batch is changed on its way."""
    sampler = case.sampler()
    *earlier, last = case.steps(SIZES, seed=seed)
    for step in earlier:
        encoded = change(step.encoded)
        pairs_of(sampler, case.similarity, encoded)
        commit(sampler, encoded)
    return _Last(sampler, change(last.encoded))


def _embedding(case: SamplerCase, encoded: list[Encoded], rows: Tensor) -> list[Encoded]:
    """Return the views with other embeddings [V, N, D], of samples and of the elements inside them."""
    views = [replace(view, rows=own) for view, own in zip(encoded, rows, strict=True)]
    return [element(view) for view in views] if case.dress is None else views


def measured_on(
    case: SamplerCase, sampler: PairSampler, encoded: list[Encoded], rows: Tensor, temperature: float = 0.7
) -> Measured:
    """Return loss and gradients of a batch with other embeddings [V, N, D] in their own precision."""
    rows = rows.detach().requires_grad_()
    views = _embedding(case, encoded, rows)
    similarity = copy.deepcopy(case.similarity).to(rows.dtype if rows.dtype == torch.float64 else torch.float32)
    return measured(scored(Softmax(temperature), pairs_of(sampler, similarity, views)), rows, similarity, sampler)


def _value(case: SamplerCase, seed: int) -> float:
    last = _last(case, seed)
    return measured_on(case, last.sampler, last.encoded, last.rows).value


def equals_the_reference(case: SamplerCase) -> None:
    """Another value than the one that was published or computed elsewhere."""
    if case.reference is None:
        raise NotCheckedError("no reference value was given: reference={seed: value of the last batch}", given=False)
    for seed, value in case.reference.items():
        found = _value(case, seed)
        if not math.isclose(found, value, rel_tol=1e-6, abs_tol=1e-9):
            raise ConformanceError(f"on the batches of seed {seed} the loss is {found!r} and the reference {value!r}")


def equals_the_oracle(case: SamplerCase) -> None:
    """Another value than plain loops find of what should be compared."""
    if case.oracle is None:
        raise NotCheckedError("no oracle was given: oracle=the comparisons in plain loops over lists", given=False)
    for seed in range(3):
        batches: list[Batch] = []
        for step in case.steps(SIZES, seed=seed):
            first = step.encoded[0]
            batches.append(
                {
                    "views": [[] if view.rows is None else view.rows.tolist() for view in step.encoded],
                    "ids": first.ids.tolist(),
                    "labels": first.key("labels").tolist(),
                    "groups": first.key("groups").tolist(),
                }
            )
        found, expected = _value(case, seed), float(case.oracle(batches))
        if not math.isclose(found, expected, rel_tol=1e-7, abs_tol=1e-9):
            raise ConformanceError(f"on the batches of seed {seed} the loss is {found!r} and the oracle's {expected!r}")


def gradcheck(case: SamplerCase) -> None:
    """Wrong gradient, of the embeddings or of a parameter of sampler or similarity: something is detached."""
    last = _last(case)
    rows = last.rows.requires_grad_()
    parameters = [p for module in (case.similarity, last.sampler) for p in module.parameters() if p.requires_grad]

    def value(rows: Tensor, *parameters: Tensor) -> Tensor:
        views = _embedding(case, last.encoded, rows)
        return scored(Softmax(), pairs_of(last.sampler, case.similarity, views)).reduced().backward

    if not torch.autograd.gradcheck(value, (rows, *parameters), raise_exception=False):
        raise ConformanceError("the gradient is not that of the value by finite differences (torch.autograd.gradcheck)")


def duplicates(case: SamplerCase) -> None:
    """Tells rows apart by their values: samples that are embedded alike are taken for one."""
    last = _last(case)
    for what, which in (("some samples", [0, 1, 0, 3, 0]), ("all samples", [0] * 5)):
        rows = last.rows[:, which]
        measured_on(case, last.sampler, last.encoded, rows).check_finite(f"with {what} embedded alike")
        near = rows + 1e-7 * torch.randn(rows.shape, generator=torch.Generator().manual_seed(1), dtype=rows.dtype)
        # The loss itself may jump: what lies just below a positive is chosen, and what equals it is not.
        equal, apart = (_counts(case, last, part) for part in (rows, near))
        if equal != apart:
            raise ConformanceError(
                f"anchors have {equal} positives and negatives where {what} are embedded alike, {apart} where almost"
            )


def _counts(case: SamplerCase, last: _Last, rows: Tensor) -> list[list[int]]:
    """Return how many positives, and how many negatives, each anchor has, of all Pairs."""
    views = _embedding(case, last.encoded, rows)
    return [counts.tolist() for part in pairs_of(last.sampler, case.similarity, views) for counts in pair_counts(part)]


def zero_vectors(case: SamplerCase) -> None:
    """Breaks on zero vectors: NaN, or under the cosine a gradient of a row that has no direction."""
    last = _last(case)
    for what, at in (
        ("one zero row", (0, 1)),
        ("a sample of zeros", (slice(None), 2)),
        ("zeros alone", (slice(None),)),
    ):
        rows = last.rows.clone()
        rows[at] = 0
        found = measured_on(case, last.sampler, last.encoded, rows)
        found.check_finite(f"with {what}")
        if isinstance(case.similarity, Cosine) and found.embeddings[(rows == 0).all(-1)].any():
            raise ConformanceError(f"with {what} a zero row has a gradient; the cosine's is zero (kontrast.Cosine)")


def temperatures(case: SamplerCase) -> None:
    """Overflows or loses precision in float32, at temperatures from 0.01 to 10."""
    both = _cast(case, torch.float32)
    for temperature in (0.01, 0.1, 1.0, 10.0):
        _same(case, both, temperature, f"at temperature {temperature} in float32", 1e-3, 5e-2)


def half_precision(case: SamplerCase) -> None:
    """Computes in half precision: bf16 or fp16 embeddings give another loss than their values do in float64."""
    for dtype in (torch.bfloat16, torch.float16):
        _same(case, _cast(case, dtype), 0.7, f"on {dtype} embeddings", 1e-4, 2e-2 if dtype == torch.bfloat16 else 4e-3)


def _cast(case: SamplerCase, dtype: torch.dtype) -> tuple[_Last, _Last]:
    """Return what stands before the last batch where embeddings have a dtype, and where their values are float64."""

    def cast(*dtypes: torch.dtype) -> Callable[[list[Encoded]], list[Encoded]]:
        def rows_of(view: Encoded) -> Encoded:
            rows, dense = view.rows, view.dense
            for dtype in dtypes:
                rows, dense = (None if part is None else part.to(dtype) for part in (rows, dense))
            streams = {name: rows_of(stream) for name, stream in view.streams.items()}
            return replace(view, rows=rows, dense=dense, streams=streams)

        return lambda encoded: [rows_of(view) for view in encoded]

    return _last(case.in_precision(torch.float32), change=cast(dtype)), _last(case, change=cast(dtype, torch.float64))


def _same(
    case: SamplerCase, both: tuple[_Last, _Last], temperature: float, where: str, value: float, slope: float
) -> None:
    found, exact = (measured_on(case, one.sampler, one.encoded, one.rows, temperature) for one in both)
    found.check_finite(where)
    if not math.isclose(found.value, exact.value, rel_tol=value, abs_tol=value):
        raise ConformanceError(f"{where} the loss is {found.value:.7g}, and {exact.value:.7g} in float64")
    apart = float((found.embeddings.double() - exact.embeddings).norm())
    if not apart <= slope * float(exact.embeddings.norm()) + 1e-6:
        raise ConformanceError(f"{where} the gradient is off by {apart:.2g}")


CHECKS: Sequence[Callable[[SamplerCase], None]] = (
    equals_the_reference,
    equals_the_oracle,
    gradcheck,
    duplicates,
    zero_vectors,
    temperatures,
    half_precision,
)
