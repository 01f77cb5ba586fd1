"""Everything we register is held to what the conformance kit checks; what is registered later is so by itself.

Shapes: V views, N samples, D embedding size.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import test_compositions as loops
import test_objectives
import test_pair_objectives
import torch

import kontrast as kt
from kontrast.adapters import timeseries
from kontrast.plugins.samplers import GuidedNegatives
from kontrast.testing import check_adapter, check_augmenter, check_encoder, check_method, check_objective, check_sampler
from kontrast.testing.sampler import Batch, SamplerOracle

several_processes = pytest.mark.usefixtures("gloo")

# On example_views(0), six samples: the papers' formulas in the plain loops of the tests beside this one.
REFERENCES: dict[str, float] = {
    "alignment-uniformity": -0.696323101796,
    "cosine-regression": 2.44290758358,
    "dcl": 7.93857134184,
    "dclw": 9.13130697137,
    "graphcl": 4.56461411451,
    "info-nce": 7.94182509111,
    "jensen-shannon": 3.29355375018,
    "n-pair": 6.6923525854,
    "nt-xent": 3.03925891311,
    "pairwise-contrastive": 10.2748787492,
    "positive-unlabelled": 3.27893319135,
    "siglip": 12.2396623768,
    "soft-triplet": 0.846621804192,
    "sup-con": 7.94182509111,
    "temperature-free": 3.12704297401,
    "triplet": 0.482182821863,
    "vicreg": 74.0021390488,
}


def _given(name: str) -> dict[str, Any]:
    """Return the oracle of a registered objective, and what it is compared on."""
    if name in test_pair_objectives.CASES:
        case = test_pair_objectives.CASES[name]

        def oracle(views: Any, labels: list[int] | None = None) -> float:
            return case.oracle(test_pair_objectives.table(views, case.score, labels, "all"))

        return {"oracle": oracle, "similarity": case.similarity(), "sampler": kt.InBatch()}
    if name in test_objectives.CASES:
        plain = test_objectives.CASES[name]
        return {"oracle": plain.oracle, "sampler": plain.sampler}
    return {}


@pytest.mark.parametrize("name", kt.get_records(kt.ObjectiveRecord))
@several_processes
def test_objective(name: str) -> None:
    reference = {0: REFERENCES[name]} if name in REFERENCES else None
    report = check_objective(name, reference=reference, **_given(name))
    assert report.state("equals-the-oracle") == "passed", f"give `{name}` an oracle in plain loops"
    assert report.state("equals-the-reference") == "passed", f"give `{name}` a reference value"


@pytest.mark.parametrize("name", ["info-nce", "nt-xent", "sup-con", "triplet"])
@pytest.mark.parametrize(
    "sampler",
    [
        lambda: kt.InBatch(match="labels"),
        lambda: kt.InBatch("cross"),
        lambda: kt.Queue(kt.Positives("forward"), size=9),
        lambda: kt.HardestNegatives(kt.InBatch(), count=2),
    ],
    ids=["labels", "cross", "queue", "hardest"],
)
@several_processes
def test_objective_with_another_sampler(name: str, sampler: Callable[[], kt.PairSampler]) -> None:
    check_objective(name, sampler=sampler())


def _table() -> torch.Tensor:
    return torch.randn(64, 5, generator=torch.Generator().manual_seed(0))


# What a name alone does not say.
MADE: dict[str, Callable[[], kt.PairSampler]] = {
    "guided-negatives": lambda: GuidedNegatives(kt.InBatch(), _table(), margin=0.3),
}


# Who is compared with whom by plain loops, and what comes of it on the kit's batches of seed 0.
SAMPLED: dict[str, tuple[loops.Sampled, float]] = {
    "debiased": (loops.estimated(loops.in_batch("all"), prior=0.1), 2.54274052344),
    "elements": (loops.in_batch("all"), 2.51818871002),  # an element is its sample's row, read backwards
    "guided-negatives": (loops.guided(loops.in_batch("all"), 0.3, _table()), 2.38796502691),
    "hard-negatives": (loops.estimated(loops.in_batch("all"), hardness=1.0), 2.66252325269),
    "hardest-negatives": (loops.hardest(loops.in_batch("all"), 1), 1.2606614662),
    "in-batch": (loops.in_batch("all"), 2.51818871002),
    "local-global": (loops.local_global, 1.90612373554),
    "nearest-neighbors": (loops.nearest(13), 2.03556651434),
    "no-duplicates": (loops.in_batch("all"), 2.51818871002),
    "per-class": (loops.in_batch("all"), 2.51818871002),
    "positives": (loops.positives("all"), 0.119919487779),
    "queue": (loops.queue(loops.in_batch("all"), 13), 3.28117474958),
    "same-group": (loops.in_batch("all"), 2.51818871002),
    "semi-hard-negatives": (loops.semi_hard(loops.in_batch("all")), 0.668731132009),
}


def _sampled(sampled: loops.Sampled) -> SamplerOracle:
    """Return the value that the kit asks of an oracle."""

    def value(rows: list[loops.Scores], part: loops.Comparison) -> float:
        losses = []
        for positives, negatives in rows:
            if not positives:
                continue
            total = loops.negative_sum((positives, negatives), part, lambda s: s / 0.7)
            total += math.fsum(math.exp(s / 0.7) for s in positives)
            losses.append((math.log(total) if negatives else 0.0) - math.fsum(positives) / 0.7 / len(positives))
        return math.fsum(losses) / len(losses)

    def oracle(batches: list[Batch]) -> float:
        *earlier, last = batches
        past = [
            (row, sample, view)
            for batch in earlier
            for view, rows in enumerate(batch["views"])
            for row, sample in zip(rows, batch["ids"], strict=True)
        ]
        return loops.expected(sampled, value, loops.World(list(last["views"]), last["ids"], past))  # type: ignore[arg-type]

    return oracle


@pytest.mark.parametrize("name", kt.get_records(kt.SamplerRecord))
@several_processes
def test_sampler(name: str) -> None:
    assert name in SAMPLED, f"give `{name}` an oracle in plain loops and a reference value"
    sampled, reference = SAMPLED[name]
    report = check_sampler(MADE.get(name, name), oracle=_sampled(sampled), reference={0: reference})
    assert report.state("equals-the-oracle") == report.state("equals-the-reference") == "passed"


@pytest.mark.parametrize(
    "make",
    [
        lambda: kt.InBatch("cross", match="labels"),
        lambda: kt.InBatch("forward", match="groups"),
        lambda: kt.Queue(kt.Positives("forward"), size=5),
        lambda: kt.Queue(kt.InBatch(match="labels"), size=7),
        lambda: kt.Debiased(kt.HardNegatives(kt.Queue(kt.InBatch(), size=9), hardness=0.5), positive_prior=0.1),
        lambda: kt.HardestNegatives(kt.Queue(kt.InBatch(), size=9), count=3),
        lambda: kt.SemiHardNegatives(kt.Queue(kt.Positives("forward"), size=9)),
        lambda: kt.HardestNegatives(GuidedNegatives(kt.Queue(kt.InBatch(), size=9), _table(), margin=0.3), count=2),
    ],
)
@several_processes
def test_sampler_composed(make: Callable[[], kt.PairSampler]) -> None:
    check_sampler(make)


@pytest.mark.parametrize("name", kt.get_records(kt.MethodRecord))
@several_processes
def test_method(name: str) -> None:
    check_method(name)


@pytest.mark.parametrize("name", kt.get_records(kt.AugmenterRecord))
def test_augmenter(name: str) -> None:
    home = kt.get_record(kt.AugmenterRecord, name).adapter
    check_augmenter(name, data=None if home else kt.ArrayData(torch.randn(24, 5)))


@pytest.mark.parametrize("name", kt.get_records(kt.EncoderRecord))
@several_processes
def test_encoder(name: str) -> None:
    check_encoder(name)


@pytest.mark.parametrize(
    "name", [name for name, record in kt.get_records(kt.EncoderRecord).items() if record.adapter == "timeseries"]
)
@several_processes
def test_encoder_of_series_on_crops_with_hidden_steps(name: str) -> None:
    check_encoder(name, augmenter=timeseries.OverlappingCrops())


@pytest.mark.parametrize("name", kt.get_records(kt.AdapterRecord))
def test_adapter(name: str) -> None:
    check_adapter(name)
