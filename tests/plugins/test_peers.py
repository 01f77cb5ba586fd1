"""Values of other libraries on the same tensors: equal where they compute the same, and where not, how they differ.

Each library is in the extra `bench`; without it its tests are skipped.
"""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import kontrast as kt
from kontrast.plugins import objectives as O
from kontrast.plugins.objectives.info_nce import cross_entropies
from kontrast.plugins.samplers import GuidedNegatives

N, D = 24, 16


def rows(seed: int = 0, count: int = N) -> Tensor:
    return F.normalize(torch.randn(count, D, generator=torch.Generator().manual_seed(seed)), dim=1)


def ours(
    objective: kt.Objective,
    sampler: kt.PairSampler,
    *views: Tensor,
    similarity: kt.Similarity | None = None,
    labels: Tensor | None = None,
) -> float:
    encoded = [replace(view, similarity=similarity) for view in kt.embedded(*views, labels=labels)]
    losses = [objective(pairs).scaled(pairs.weight) for pairs in sampler.pairs(encoded)]
    return float(kt.Loss.sum_of(losses).reduced().value)


def close(value: Tensor | float) -> Any:
    return pytest.approx(float(value), rel=1e-5, abs=1e-6)


# lightly


@pytest.mark.filterwarnings("ignore:To copy construct")  # lightly's DCLW
def test_lightly() -> None:
    loss = pytest.importorskip("lightly.loss", reason="lightly is not installed; it is in the extra bench")
    a, b = rows(0), rows(1)
    assert ours(O.NTXent(0.5), kt.InBatch(), a, b) == close(loss.NTXentLoss(0.5)(a, b))
    assert ours(O.DCL(0.1), kt.InBatch(), a, b) == close(loss.DCLLoss(0.1)(a, b))
    assert ours(O.DCLW(0.1), kt.InBatch(), a, b) == close(loss.DCLWLoss(0.1)(a, b))


def test_lightlys_vicreg_differs_by_its_variance_halved() -> None:
    loss = pytest.importorskip("lightly.loss", reason="lightly is not installed; it is in the extra bench")
    a, b = 3 * rows(0), 3 * rows(1)
    pairs = kt.Positives("forward").pairs(kt.embedded(a, b))[0]
    terms = O.VICReg()(pairs).reduced().terms
    halved = 25 * terms["invariance"] + 25 * terms["variance"] / 2 + terms["covariance"]
    assert float(loss.VICRegLoss()(a, b)) == pytest.approx(float(halved), rel=1e-4)


# pytorch-metric-learning


def test_pytorch_metric_learning() -> None:
    losses = pytest.importorskip("pytorch_metric_learning.losses", reason="it is in the extra bench")
    a, b = rows(0), rows(1)
    both, names = torch.cat([a, b]), torch.arange(N).repeat(2)
    labels = torch.arange(N) % 5
    assert ours(O.NTXent(0.5), kt.InBatch(), a, b) == close(losses.NTXentLoss(0.5)(both, names))
    # With several positives its NT-Xent tells each from the negatives alone: our InfoNCE, over pairs, not anchors.
    sampler = kt.InBatch(match="labels")
    by_class = torch.tensor([2 * int((labels == c).sum()) - 1 for c in labels] * 2).double()
    pairs = sampler.pairs(kt.embedded(a.double(), b.double(), labels=labels))[0]
    per_anchor = cross_entropies(kt.row_statistics(pairs, temperature=0.5))
    assert float(per_anchor.sum() / by_class.sum()) == pytest.approx(
        float(losses.NTXentLoss(0.5)(both.double(), labels.repeat(2))), rel=1e-5
    )
    assert ours(O.SupCon(0.1), sampler, a, b, labels=labels) == close(losses.SupConLoss(0.1)(both, labels.repeat(2)))


def test_pytorch_metric_learnings_triplets_are_the_mean_over_active_ones() -> None:
    losses = pytest.importorskip("pytorch_metric_learning.losses", reason="it is in the extra bench")
    reducers = pytest.importorskip("pytorch_metric_learning.reducers")
    distances = pytest.importorskip("pytorch_metric_learning.distances")
    a, b = rows(0), rows(1)
    both, names = torch.cat([a, b]), torch.arange(N).repeat(2)
    cosine = distances.CosineSimilarity()
    theirs = losses.TripletMarginLoss(0.2, distance=cosine, reducer=reducers.MeanReducer())(both, names)
    assert ours(O.Triplet(0.2), kt.InBatch(), a, b) == close(theirs)
    by_default = losses.TripletMarginLoss(0.2, distance=cosine)(both, names)
    assert float(by_default) > float(theirs)
    contrastive = losses.ContrastiveLoss(0.0, 1.0, reducer=reducers.MeanReducer())(both, names)
    # d and the hinge themselves, where Hadsell et al. square them.
    apart = torch.cdist(both, both)
    other = names[:, None] != names
    expected = apart[(~other) & ~torch.eye(2 * N, dtype=torch.bool)].mean() + torch.relu(1 - apart[other]).mean()
    assert float(contrastive) == pytest.approx(float(expected), rel=1e-4)


# open_clip


def test_open_clip() -> None:
    peer = pytest.importorskip("open_clip.loss", reason="open-clip-torch is not installed; it is in the extra bench")
    a, b = rows(0), rows(1)
    scale, bias = torch.tensor(1 / 0.07), torch.tensor(-10.0)
    similarity = kt.LearnedTemperature(initial=0.07)
    ours_clip = ours(O.InfoNCE(1.0), kt.InBatch("cross"), a, b, similarity=similarity)
    assert ours_clip == close(peer.ClipLoss()(a, b, scale))
    similarity = kt.LearnedTemperature(initial=0.1, bias=-10.0)
    ours_sigmoid = ours(O.SigLIP(), kt.InBatch("forward"), a, b, similarity=similarity)
    assert ours_sigmoid == close(peer.SigLipLoss()(a, b, torch.tensor(10.0), bias))


# sentence-transformers


def _sentence_losses() -> Any:
    reason = "sentence-transformers is not installed; it is in the extra bench"
    return pytest.importorskip("sentence_transformers.sentence_transformer.losses", reason=reason)


class _Table(nn.Module):
    """Stands for a sentence encoder whose outputs are given."""

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": features["embedding"]}


def test_sentence_transformers() -> None:
    losses = _sentence_losses()
    a, b = rows(0), rows(1)
    ranking = losses.MultipleNegativesRankingLoss(_Table(), scale=20.0)
    theirs = ranking([{"embedding": a}, {"embedding": b}], torch.arange(N))
    assert ours(O.InfoNCE(1 / 20), kt.InBatch("forward"), a, b) == close(theirs)


@pytest.mark.parametrize("margin", [0.0, 0.1])
def test_guided_negatives_of_sentence_transformers(margin: float) -> None:
    losses = _sentence_losses()
    a, b = rows(0), rows(1)
    guide = [rows(2), rows(3)]
    gist = losses.GISTEmbedLoss.__new__(losses.GISTEmbedLoss)  # its constructor wants tokenizers
    nn.Module.__init__(gist)
    settings = {"temperature": 0.05, "margin": margin, "margin_strategy": "absolute", "gather_across_devices": False}
    settings |= {"contrast_anchors": False, "contrast_positives": False, "must_retokenize": False}
    settings |= {
        "cross_entropy_loss": nn.CrossEntropyLoss(),
        "model": _Table(),
        "guide": _Guide(guide),
        "similarity_fct": nn.CosineSimilarity(dim=-1),
    }
    for name, value in settings.items():
        setattr(gist, name, value)
    theirs = float(gist([{"embedding": a, "column": 0}, {"embedding": b, "column": 1}], torch.arange(N)))
    sampler = GuidedNegatives(kt.InBatch("forward"), guide, margin)
    assert ours(O.InfoNCE(0.05), sampler, a, b) == close(theirs)
    assert ours(O.InfoNCE(0.05), kt.InBatch("forward"), a, b) != close(theirs)


class _Guide(nn.Module):
    def __init__(self, tables: list[Tensor]) -> None:
        super().__init__()
        self.tables = tables

    def forward(self, features: dict[str, Any]) -> dict[str, Tensor]:
        return {"sentence_embedding": self.tables[features["column"]]}


# The authors' formulas, which PyGCL's versions of them do not compute


@pytest.mark.parametrize("hardness", [0.0, 0.5, 1.0])
def test_hard_and_debiased_as_the_authors_wrote_them(hardness: float) -> None:
    a, b = rows(0).double(), rows(1).double()
    a, b = F.normalize(a), F.normalize(b)
    t, prior, total = 0.5, 0.1, 0.0
    stacked = torch.cat([a, b])
    count = 2 * N - 2
    for i in range(2 * N):
        positive = math.exp(float(stacked[i] @ stacked[(i + N) % (2 * N)]) / t)
        negative = [
            math.exp(float(stacked[i] @ stacked[j]) / t) for j in range(2 * N) if j not in (i, (i + N) % (2 * N))
        ]
        importance = [value**hardness for value in negative]
        weighted = math.fsum(x * w for x, w in zip(negative, importance, strict=True)) / (math.fsum(importance) / count)
        estimate = max((weighted - count * prior * positive) / (1 - prior), count * math.exp(-1 / t))
        total -= math.log(positive / (positive + estimate)) / (2 * N)
    sampler: kt.PairSampler = kt.Debiased(kt.HardNegatives(kt.InBatch(), hardness), prior)
    assert ours(O.InfoNCE(t), sampler, a, b) == pytest.approx(total, rel=1e-10)
