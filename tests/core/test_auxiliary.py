"""What an encoder adds to the loss, and tables that are the same on every process: exact on several, and cached."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from gloo import GlooPool
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import kontrast as kt
from kontrast.gradient import StepModule, backward
from kontrast.loader import MicroBatch
from kontrast.plugins.objectives import CosineRegression, InfoNCE
from kontrast.testing import Check, method_checks, parametrize_with_checks

CLASSES, SIZE = 5, 3
LABELS = torch.tensor([0, 3, 1, 4, 4, 2, 0, 1, 3, 2, 1])


class Tabled(kt.Encoder):
    """Rows; a table of all classes; and the mean of their squares, the sum of a weight's, and a metric."""

    representation_size = SIZE

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, SIZE)
        self.classes = nn.Linear(CLASSES, SIZE)

    def forward(self, inputs: Tensor) -> Tensor:
        rows: Tensor = self.linear(inputs)
        return rows

    def encode(self, view: kt.View, copies: Tensor) -> kt.Encoded:
        encoded = super().encode(view, copies)
        assert encoded.rows is not None
        table = self.classes(torch.eye(CLASSES, dtype=encoded.rows.dtype))
        ids = torch.arange(CLASSES)
        lengths = kt.Loss.over_rows(encoded.rows.square().sum(1), view.ids % 3 > 0, name="lengths", weight=0.3)
        plain = kt.Term("plain", encoded.rows.pow(3).sum(), None, 0.1)
        metric = kt.Term("largest", encoded.rows.detach().sum(), float(len(copies)))
        return replace(
            encoded,
            streams={"classes": kt.Encoded(table, ids, torch.full_like(ids, -1), labels=ids, replicated=True)},
            auxiliary=kt.Loss((*lengths.terms, plain), (metric,)),
        )


class AgainstTable(kt.PairSampler):
    """The first view's rows against all classes; the table is asked for over all ranks, as a general sampler would."""

    def pairs(self, encoded: Any) -> list[kt.Pairs]:
        table = kt.across_ranks(encoded[0].streams["classes"])
        return [kt.Pairs.between(replace(encoded[0], streams={}), table, match="labels")]


def _method(**options: Any) -> kt.Method:
    torch.manual_seed(0)
    options = {"sampler": AgainstTable(), "objective": InfoNCE(0.5), **options}
    return kt.Method(Tabled(), **options).double().train()


def _views(rows: Tensor | slice = slice(None)) -> list[kt.View]:
    inputs = torch.randn(2, len(LABELS), 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    ids = torch.arange(len(LABELS))
    return [kt.View(part[rows], ids[rows], labels=LABELS[rows]) for part in inputs]


def test_terms_are_added_up_over_views_in_loops() -> None:
    method = _method()
    views = _views()
    linear, table = method.encoder.get_submodule("linear"), method.encoder.get_submodule("classes")
    rows = [[linear(row).tolist() for row in view.inputs] for view in views]
    classes = table(torch.eye(CLASSES, dtype=torch.float64)).tolist()

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)

    contrast = 0.0
    for row, label in zip(rows[0], LABELS.tolist(), strict=True):
        scores = [cosine(row, other) / 0.5 for other in classes]
        contrast += (math.log(sum(map(math.exp, scores))) - scores[label]) / len(LABELS)
    counted = [row for view in rows for i, row in enumerate(view) if i % 3]
    lengths = sum(x * x for row in counted for x in row) / len(counted)
    plain = sum(x**3 for view in rows for row in view for x in row)
    reduced = method(views)[0].reduced()
    assert float(reduced.value) == pytest.approx(contrast + 0.3 * lengths + 0.1 * plain, rel=1e-12)
    assert float(reduced.terms["lengths"]) == pytest.approx(lengths, rel=1e-12)
    mean = sum(x for view in rows for row in view for x in row) / (2 * len(LABELS))
    assert float(reduced.terms["largest"]) == pytest.approx(mean, rel=1e-12)


DATA = kt.ArrayData(
    torch.randn(23, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(4)), torch.arange(23) % CLASSES
)


@parametrize_with_checks(method_checks(_method(), data=DATA, augmenter=kt.Identity()))
def test_an_encoder_with_a_loss_of_its_own_passes_the_kit(check: Check) -> None:
    check()  # the gradient on two and three processes among others


def _both(micro: int, momentum: bool) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return a step's gradients at once and cached."""
    own = torch.arange(len(LABELS)).tensor_split(kt.world_size())[kt.rank()]
    results = []
    for parts in ([own], own.split(micro)):
        options: dict[str, Any] = {"target": kt.Momentum(0.9)} if momentum else {}
        method = _method(**options)
        step: nn.Module = StepModule(method)
        if kt.world_size() > 1:
            step = DistributedDataParallel(step)
        batches = [(MicroBatch(0, 0, len(ids) / len(own), False, ids), _views(ids)) for ids in parts]
        reduced, _ = backward(step, method, batches, "cache")
        found = {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
        results.append({**found, "value": reduced.value, **reduced.terms})
    return results[0], results[1]


@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize("micro", [1, 4, 10])
def test_cached_it_is_the_same(micro: int, momentum: bool) -> None:
    _same(*_both(micro, momentum))


def test_cached_on_two_processes_it_is_the_same(gloo: GlooPool) -> None:
    ranks = gloo.run(2, _both, 2, False)
    for both in ranks:
        _same(*both)
    _same(_both(4, False)[0], ranks[0][0])


def _same(direct: dict[str, Tensor], cached: dict[str, Tensor]) -> None:
    assert direct.keys() == cached.keys()
    assert len(direct) > 6
    for key, value in direct.items():
        torch.testing.assert_close(cached[key], value, rtol=1e-9, atol=1e-12, msg=key)


@pytest.mark.parametrize(
    ("options", "views"),
    [
        ({}, 2),
        ({"joint_forward": True, "sampler": kt.InBatch()}, 2),
        ({"target": kt.Momentum(0.9), "sampler": kt.Positives("forward"), "objective": CosineRegression()}, 1),
        ({"target": kt.StopGradient(), "sampler": kt.Positives("forward"), "objective": CosineRegression()}, 2),
    ],
)
def test_a_view_counts_once_where_the_trained_tower_encodes_it(options: dict[str, Any], views: int) -> None:
    method = _method(**options)
    linear = method.encoder.get_submodule("linear")
    expected = torch.stack([linear(view.inputs).pow(3).sum() for view in _views()[:views]]).sum()
    loss, encoded = method(_views())
    torch.testing.assert_close(loss.reduced().terms["plain"], expected.detach())
    assert all(view.detach().auxiliary is None for view in encoded)


def test_something_else_than_a_loss_is_refused() -> None:
    method = _method()
    (first, second) = method.encode(_views())
    wrong: Any = torch.zeros(())
    with pytest.raises(kt.InvalidValueError, match=r"`auxiliary` of an encoding must be a kontrast.Loss, got Tensor"):
        method.score([first, replace(second, auxiliary=wrong)])


def test_a_queue_of_ids_looks_them_up_in_a_replicated_stream() -> None:
    method = _method(sampler=kt.IdQueue(AgainstTable(), "classes", size=4))
    queue = method.sampler
    assert isinstance(queue, kt.IdQueue)
    queue.commit([replace(view, ids=LABELS).detach() for view in method.encode(_views())])
    assert queue.keys[:, 0].tolist() == [1, 3, 2, 1]
    later = method.encode(_views())
    (pairs,) = queue.pairs(later)
    table = later[0].streams["classes"].rows
    assert table is not None
    assert torch.equal(pairs.blocks[1].candidates, table[[1, 3, 2, 1]])
    assert pairs.blocks[1].candidates.requires_grad


def test_what_a_queue_of_ids_refuses() -> None:
    queue = kt.IdQueue(kt.Positives("forward"), "classes", size=4)
    encoded = _method().encode(_views())
    queue.commit([replace(view, ids=LABELS).detach() for view in encoded])
    few = replace(encoded[0].streams["classes"], rows=torch.zeros(3, SIZE))
    with pytest.raises(
        kt.IncompatibleError, match="must have a row for every queued id, got 3 rows and ids from 1 to 3"
    ):
        queue.pairs([replace(view, streams={"classes": few}) for view in encoded])
    with pytest.raises(kt.IncompatibleError, match=r"the replicated stream `classes`, and the encodings have \[\]"):
        queue.pairs([replace(view, streams={}) for view in encoded])
