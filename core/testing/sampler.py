"""The conformance checks of pair samplers: the subject, its list of checks, and the function that runs them all."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kontrast import Cosine, InBatch, Pairs, PairSampler, SamplerRecord, Similarity

from .checks import Check, Report, checks_of, run_checks
from .relations import Dress, Step, steps
from .scene import commit, failures_of, made, pairs_of

__all__ = ["SamplerCase", "check_sampler", "sampler_checks"]


class SamplerCase:
    """A sampler with the similarity it is checked with, in float64.

    Args:
        subject: a sampler, its registered name, or what makes one.
        similarity: see `check_sampler`, like the rest.
        dress: likewise.
    """

    def __init__(self, subject: Any, similarity: Similarity | None, dress: Dress | None) -> None:
        fill = {"inner": InBatch(), "size": 13}
        self.name, _, sampler = made(subject, SamplerRecord, PairSampler, fill)  # type: ignore[type-abstract]
        self._sampler = copy.deepcopy(sampler)
        self.similarity = copy.deepcopy(Cosine() if similarity is None else similarity).double()
        self.dress = dress
        self.kept: dict[Any, Any] = {}  # what several checks read

    def sampler(self) -> PairSampler:
        """Return a copy of the sampler as it was given, in float64."""
        return copy.deepcopy(self._sampler).double()

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
    expected_failures: Mapping[str, str] | None = None,
) -> list[Check]:
    """Return the checks that `check_sampler` runs, with its arguments; for `parametrize_with_checks`."""
    from . import sampler_ranks, sampler_relations, sampler_state

    case = SamplerCase(subject, similarity, dress)
    functions = (*sampler_relations.CHECKS, *sampler_state.CHECKS, *sampler_ranks.CHECKS)
    return checks_of(f"sampler {case.name}", functions, case, failures_of(case.sampler(), expected_failures))


def check_sampler(
    subject: Any,
    *,
    similarity: Similarity | None = None,
    dress: Dress | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> Report:
    """Hold a pair sampler to what the interface promises; about a second, the first time a few more.

    Args:
        subject: a sampler, its registered name, or a class or function that makes one. A parameter `inner` is given
            `InBatch()`, a parameter `size` 13.
        similarity: by default the cosine.
        dress: adds to the encoded views of a batch what the sampler reads beside rows and keys, such as a stream, whose
            rows are known by their ids in it; it must be a function of the views' values and found by its import name.
        expected_failures: by the name of a check, why it fails; one that passes is a failure. A class may carry
            further ones as its attribute `expected_failures`.

    Returns:
        The report, where no check failed.

    Raises:
        ConformanceError: names every check that failed, with what was found.
    """
    checks = sampler_checks(subject, similarity=similarity, dress=dress, expected_failures=expected_failures)
    report = run_checks(checks)
    report.raise_failures()
    return report
