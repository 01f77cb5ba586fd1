"""The conformance checks of pair samplers: the subject, its list of checks, and the function that runs them all."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypedDict

import torch

from kontrast import Cosine, InBatch, Pairs, PairSampler, SamplerRecord, Similarity

from .checks import Check, Report, checks_of, run_checks
from .relations import Dress, Step, steps
from .scene import commit, failures_of, made, pairs_of

__all__ = ["Batch", "SamplerCase", "SamplerOracle", "check_sampler", "sampler_checks"]


class Batch(TypedDict):
    """A batch as plain numbers, for an oracle: views [V][N][D], and keys [N]."""

    views: list[list[list[float]]]
    ids: list[int]
    labels: list[int]
    groups: list[int]


SamplerOracle = Callable[[list[Batch]], float]


class SamplerCase:
    """A sampler with the similarity it is checked with, in float64.

    Args:
        subject: a sampler, its registered name, or what makes one.
        similarity: see `check_sampler`, like the rest.
        dress: likewise.
        reference: likewise.
        oracle: likewise.
    """

    def __init__(
        self,
        subject: Any,
        similarity: Similarity | None,
        dress: Dress | None,
        reference: Mapping[int, float] | None,
        oracle: SamplerOracle | None,
    ) -> None:
        fill = {"inner": InBatch(), "size": 13}
        self.name, _, sampler = made(subject, SamplerRecord, PairSampler, fill)  # type: ignore[type-abstract]
        self._sampler = copy.deepcopy(sampler)
        self.similarity = copy.deepcopy(Cosine() if similarity is None else similarity).double()
        self.dress, self.reference, self.oracle = dress, reference, oracle
        self.dtype = torch.float64
        self.kept: dict[Any, Any] = {}  # what several checks read

    def sampler(self) -> PairSampler:
        """Return a copy of the sampler as it was given, in float64 or the case's own precision."""
        return copy.deepcopy(self._sampler).to(self.dtype)

    def in_precision(self, dtype: torch.dtype) -> "SamplerCase":
        """Return the same case with sampler and similarity in another precision."""
        other = copy.copy(self)
        other.dtype, other.similarity, other.kept = dtype, copy.deepcopy(self.similarity).to(dtype), {}
        return other

    def steps(self, sizes: Sequence[int], **options: Any) -> Iterator[Step]:
        """Yield batches as `relations.steps`, with what the author adds to them."""
        return steps(sizes, dress=self.dress, **options)

    def pairs(self, sampler: PairSampler, step: Step) -> list[Pairs]:
        """Return what a sampler makes of a batch."""
        return pairs_of(sampler, self.similarity, step.encoded)

    def run(
        self, sizes: Sequence[int], *, sampler: PairSampler | None = None, **options: Any
    ) -> Iterator[tuple[Step, list[Pairs]]]:
        """Yield every batch and its pairs; what is yielded was not yet taken into the state."""
        sampler = self.sampler() if sampler is None else sampler
        for step in self.steps(sizes, **options):
            yield step, self.pairs(sampler, step)
            commit(sampler, step.encoded)


def sampler_checks(
    subject: Any,
    *,
    similarity: Similarity | None = None,
    dress: Dress | None = None,
    reference: Mapping[int, float] | None = None,
    oracle: SamplerOracle | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> list[Check]:
    """Return the checks that `check_sampler` runs, with its arguments; for `parametrize_with_checks`."""
    from . import sampler_order, sampler_ranks, sampler_relations, sampler_state, sampler_values

    case = SamplerCase(subject, similarity, dress, reference, oracle)
    functions = (
        *sampler_relations.CHECKS,
        *sampler_order.CHECKS,
        *sampler_values.CHECKS,
        *sampler_state.CHECKS,
        *sampler_ranks.CHECKS,
    )
    return checks_of(f"sampler {case.name}", functions, case, failures_of(case.sampler(), expected_failures))


def check_sampler(
    subject: Any,
    *,
    similarity: Similarity | None = None,
    dress: Dress | None = None,
    reference: Mapping[int, float] | None = None,
    oracle: SamplerOracle | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> Report:
    """Hold a pair sampler to what the interface promises; about a second, the first time a few more.

    Args:
        subject: a sampler, its registered name, or a class or function that makes one. A parameter `inner` is given
            `InBatch()`, a parameter `size` 13.
        similarity: by default the cosine.
        dress: adds to the encoded views of a batch what the sampler reads beside rows and keys, such as a stream, whose
            rows are known by their ids in it; it must be a function of the views' values and found by its import name.
        reference: seed -> value, as the oracle's, on the kit's batches of that seed.
        oracle: what should be compared once more, independent of the sampler: the batches so far as plain numbers -> a
            value of the last: the weighted sum over Pairs of the mean over anchors that have a positive of
            ``log sum over all compared of e^(s / 0.7) - mean over positives of s / 0.7`` (without any negative: of the
            last part alone).
        expected_failures: by the name of a check, why it fails; one that passes is a failure. A class may carry
            further ones as its attribute `expected_failures`.

    Returns:
        The report, where no check failed.

    Raises:
        ConformanceError: names every check that failed, with what was found.
    """
    report = run_checks(
        sampler_checks(
            subject,
            similarity=similarity,
            dress=dress,
            reference=reference,
            oracle=oracle,
            expected_failures=expected_failures,
        )
    )
    report.raise_failures()
    return report
