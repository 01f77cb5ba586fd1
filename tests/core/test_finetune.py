"""Fine-tuning, and the share of each class it may be given."""

import math
from collections import Counter
from copy import deepcopy
from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

import kontrast as kt
from kontrast.evaluate import finetune, linear
from kontrast.subset import Subset, stratified


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _signs(count: int, *, seed: int) -> kt.ArrayData:
    """Two classes by the sign of a product: no line parts them."""
    inputs = _random(count, 2, seed=seed)
    return kt.ArrayData(inputs, (inputs.prod(1) > 0).long())


def _encoder(*, seed: int, inputs: int = 2, size: int = 16) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(inputs, size), nn.BatchNorm1d(size), nn.ReLU(), nn.Dropout(0.1))


@pytest.mark.parametrize("frozen", [False, True])
def test_the_whole_encoder_learns_what_a_line_cannot(frozen: bool) -> None:
    train, test = _signs(200, seed=0), _signs(200, seed=1)
    encoder = _encoder(seed=2, size=4).requires_grad_(not frozen)
    assert linear(encoder, train, test) < 82 < 88 < finetune(encoder, train, test, epochs=60, learning_rate=0.1)


def test_with_few_labels_an_encoder_that_knows_beats_one_as_drawn() -> None:
    def clusters(count: int, *, seed: int) -> kt.ArrayData:
        labels = torch.arange(count) % 2
        inputs = _random(count, 30, seed=seed)
        inputs[:, 0] = 2.0 * labels - 1 + 0.2 * _random(count, seed=seed + 1)
        return kt.ArrayData(inputs, labels)

    train, test = clusters(8, seed=0), clusters(200, seed=10)
    drawn, knows = nn.Linear(30, 3, bias=False), nn.Linear(30, 3, bias=False)
    drawn.weight.data = _random(3, 30, seed=20)
    knows.weight.data = drawn.weight.data / 10
    knows.weight.data[:, 0] = 10
    assert finetune(drawn, train, test) < 75 < 95 < finetune(knows, train, test)


def test_the_callers_encoder_and_random_numbers_stay_as_they_are() -> None:
    encoder = _encoder(seed=0)
    encoder[0].requires_grad_(False)
    encoder[1].eval()
    state, modes = deepcopy(encoder.state_dict()), [part.training for part in encoder.modules()]
    numbers = torch.get_rng_state()
    finetune(encoder, _signs(20, seed=0), _signs(10, seed=1), epochs=2)
    assert all(torch.equal(value, state[name]) for name, value in encoder.state_dict().items())
    assert [part.training for part in encoder.modules()] == modes
    assert [entry.requires_grad for entry in encoder.parameters()] == [False, False, True, True]
    assert all(entry.grad is None for entry in encoder.parameters())
    assert torch.equal(torch.get_rng_state(), numbers)


def test_a_seed_fixes_the_outcome() -> None:
    train, test = _signs(60, seed=0), _signs(500, seed=1)
    scores = []
    for seed in (3, 3, 4):
        torch.rand(7)  # whatever the caller draws
        scores.append(finetune(_encoder(seed=0), train, test, epochs=3, seed=seed))
    assert scores[0] == scores[1] != scores[2]


class _Watched(nn.Module):
    """Notes the size of each batch it is trained on, also in its copies."""

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 3)
        self.note = sizes.append

    def __deepcopy__(self, memo: object) -> "_Watched":
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            self.note(len(inputs))
        rows: Tensor = self.layer(inputs)
        return rows


@pytest.mark.parametrize(("samples", "batch_size", "sizes"), [(10, 4, [4, 3, 3]), (10, 64, [10]), (65, 64, [33, 32])])
def test_batches_are_of_equal_size(samples: int, batch_size: int, sizes: list[int]) -> None:
    seen: list[int] = []
    finetune(_Watched(seen), _signs(samples, seed=0), _signs(4, seed=1), epochs=2, batch_size=batch_size)
    assert seen == 2 * sizes


def test_a_class_that_was_not_trained_on_is_wrong() -> None:
    train = kt.ArrayData(torch.eye(2).repeat(10, 1) * 5, torch.arange(20) % 2)
    test = kt.ArrayData(torch.eye(2) * 5, torch.tensor([0, 7]))
    encoder = nn.Linear(2, 2, bias=False)
    encoder.weight.data = torch.eye(2)
    assert finetune(encoder, train, test) == 50


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"epochs": 0}, "`epochs` must be >= 1, got 0"),
        ({"batch_size": 2}, "`batch_size` must be >= 3, got 2"),
        ({"learning_rate": 0.0}, "`learning_rate` must be > 0, got 0.0"),
        ({"weight_decay": -1.0}, r"`weight_decay` must be >= 0, got -1\.0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], sentence: str) -> None:
    with pytest.raises(kt.InvalidValueError, match=sentence):
        finetune(_encoder(seed=0), _signs(8, seed=0), _signs(8, seed=1), **options)  # type: ignore[arg-type]


def test_labels_must_be_there_and_of_two_classes() -> None:
    data = _signs(8, seed=0)
    bare, one = kt.ArrayData(data.inputs), kt.ArrayData(data.inputs, torch.full((8,), 3))
    unknown = kt.ArrayData(data.inputs, torch.tensor([-1, *range(7)]))
    for train, test in ((bare, data), (data, bare)):
        with pytest.raises(kt.IncompatibleError, match="evaluation needs labels"):
            finetune(_encoder(seed=0), train, test)
    with pytest.raises(kt.InvalidValueError, match="labels must be >= 0 for evaluation, got -1"):
        finetune(_encoder(seed=0), unknown, data)
    with pytest.raises(kt.IncompatibleError, match="at least two classes in the training data, got 8 samples of one"):
        finetune(_encoder(seed=0), one, data)
    with pytest.raises(kt.IncompatibleError, match="at least two classes in the training data, got 8 samples of one"):
        linear(None, one, data)


LABELS = torch.tensor([2] * 40 + [5] * 7 + [0] * 153)[torch.randperm(200, generator=torch.Generator().manual_seed(9))]


@pytest.mark.parametrize("percent", ["0.1", "1", "10", "12.5", "50", "99.9", "100"])
def test_each_class_gives_its_share_and_at_least_one(percent: str) -> None:
    share = Fraction(percent) / 100
    indices = stratified(LABELS, float(share), seed=1)
    assert indices.tolist() == sorted(set(indices.tolist()))
    expected = {
        label: max(1, math.floor(share * count + Fraction(1, 2))) for label, count in Counter(LABELS.tolist()).items()
    }
    assert Counter(LABELS[indices].tolist()) == expected


def test_a_smaller_share_is_within_a_larger_one_and_the_seed_chooses() -> None:
    shares = [set(stratified(LABELS, share, seed=2).tolist()) for share in (0.01, 0.1, 0.5, 1.0)]
    assert shares[0] < shares[1] < shares[2] < shares[3] == set(range(200))
    assert torch.equal(stratified(LABELS, 0.1, seed=3), stratified(LABELS, 0.1, seed=3))
    assert not torch.equal(stratified(LABELS, 0.1, seed=3), stratified(LABELS, 0.1, seed=4))


def test_every_sample_of_a_class_is_as_likely() -> None:
    seeds = 400
    drawn = Counter(index for seed in range(seeds) for index in stratified(LABELS, 0.25, seed=seed).tolist())
    counts = Counter(LABELS.tolist())
    for index, label in enumerate(LABELS.tolist()):
        share = math.floor(counts[label] / 4 + 0.5) / counts[label]
        assert abs(drawn[index] / seeds - share) < 5 * math.sqrt(share * (1 - share) / seeds)


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.5, math.nan])
def test_a_share_is_one(fraction: float) -> None:
    with pytest.raises(kt.InvalidValueError, match=r"`fraction` must be in \(0, 1\], got"):
        stratified(LABELS, fraction)


def test_a_subset_keeps_the_ids() -> None:
    data = kt.ArrayData(torch.arange(10.0)[:, None], torch.arange(10))
    subset = Subset(data, torch.tensor([3, 5, 8]))
    batch = subset.batch(torch.tensor([2, 0]))
    assert len(subset) == 3
    assert batch.ids.tolist() == [8, 3] == batch.inputs[:, 0].tolist()
    assert batch.labels is not None
    assert batch.labels.tolist() == [8, 3]
