"""Towers, targets and streams: who encodes which view, and what moves after a step."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

import kontrast as kt
from kontrast.plugins.objectives import CosineRegression, InfoNCE, NTXent


class Counting(kt.Encoder):
    """Counts its forward passes and the rows of each."""

    def __init__(self, size: int = 3) -> None:
        super().__init__()
        self.linear = nn.Linear(4, size)
        self.representation_size = size
        self.passes: list[int] = []

    def forward(self, inputs: Tensor) -> Tensor:
        self.passes.append(len(inputs))
        result: Tensor = self.linear(inputs)
        return result


def _views(count: int = 2, rows: int = 5, tower: str = "") -> list[kt.View]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.arange(rows) + 100
    return [kt.View(torch.randn(rows, 4, generator=generator), ids, tower=tower) for _ in range(count)]


def test_views_of_one_tower_are_encoded_one_by_one_or_jointly_with_the_same_rows() -> None:
    torch.manual_seed(0)
    encoder = Counting()
    apart = kt.Method(encoder, sampler=kt.InBatch(), objective=NTXent()).encode(_views())
    assert encoder.passes == [5, 5]
    joint = kt.Method(encoder, sampler=kt.InBatch(), objective=NTXent(), joint_forward=True).encode(_views())
    assert encoder.passes == [5, 5, 10]
    for one, other in zip(apart, joint, strict=True):
        torch.testing.assert_close(one.rows, other.rows)
        assert torch.equal(one.copies, other.copies)


def test_a_momentum_method_encodes_no_view_that_its_sampler_does_not_read() -> None:
    encoder = Counting()
    method = kt.Method(encoder, target=kt.Momentum(0.9), sampler=kt.Positives("forward"), objective=CosineRegression())
    query, key = method.encode(_views())
    assert query.rows is not None
    assert "target" not in query.streams
    assert key.rows is None
    assert key.stream("target").rows is not None
    assert len(encoder.passes) == 1


class Third(kt.InBatch):
    """Reads a third view."""

    def reads(self, num_views: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return (0,), (2,)


def test_a_view_that_is_read_and_not_there_is_a_sentence() -> None:
    method = kt.Method(Counting(), sampler=Third(), objective=NTXent())
    assert len(method.encode(_views(3))) == 3
    with pytest.raises(
        kt.IncompatibleError, match="Third reads view 2, counted from 0, and the augmenter made 2; take"
    ):
        method.encode(_views(2))


def test_every_augmented_copy_has_one_key_that_online_and_target_share() -> None:
    method = kt.Method(Counting(), target=kt.Momentum(0.9), sampler=kt.InBatch(), objective=InfoNCE())
    encoded = method.encode(_views(3))
    copies = torch.cat([view.copies for view in encoded])
    assert len(copies.unique()) == len(copies)
    for view in encoded:
        assert torch.equal(view.copies, view.stream("target").copies)


@pytest.mark.parametrize("target", [kt.Momentum(0.9), kt.StopGradient()])
def test_no_gradient_passes_a_target(target: kt.Momentum | kt.StopGradient) -> None:
    method = kt.Method(Counting(), target=target, sampler=kt.Positives(), objective=CosineRegression())
    for view in method.encode(_views()):
        rows = view.stream("target").rows
        assert rows is not None
        assert not rows.requires_grad
        assert view.rows is not None
        assert view.rows.requires_grad


def test_the_predictor_is_on_the_anchors_alone() -> None:
    torch.manual_seed(0)
    predictor = nn.Linear(3, 3)
    method = kt.Method(
        Counting(), predictor=predictor, target=kt.StopGradient(), sampler=kt.Positives(), objective=CosineRegression()
    )
    for view in method.encode(_views()):
        target = view.stream("target").rows
        assert target is not None
        torch.testing.assert_close(view.rows, predictor(target))


def test_the_momentum_copy_follows_by_the_schedule_and_starts_equal() -> None:
    torch.manual_seed(0)
    encoder = Counting()
    method = kt.Method(
        encoder, target=kt.Momentum(0.8, final=1.0), sampler=kt.Positives(), objective=CosineRegression()
    )
    assert method.target_towers is not None
    copied = next(method.target_towers.parameters())
    assert torch.equal(copied, encoder.linear.weight)
    assert not copied.requires_grad
    with torch.no_grad():
        encoder.linear.weight.add_(1)
    method.after_step(method.encode(_views()), progress=0.5)  # halfway: 0.9
    torch.testing.assert_close(encoder.linear.weight - copied, torch.full_like(copied, 0.9))
    method.after_step(method.encode(_views()), progress=1.0)
    torch.testing.assert_close(encoder.linear.weight - copied, torch.full_like(copied, 0.9))


class Committing(kt.PairSampler):
    """Counts commits; around another sampler."""

    def __init__(self, inner: kt.PairSampler) -> None:
        super().__init__()
        self.inner = inner
        self.commits = 0

    def pairs(self, encoded: Sequence[kt.Encoded]) -> list[kt.Pairs]:
        return self.inner.pairs(encoded)

    def commit(self, encoded: Sequence[kt.Encoded]) -> None:
        self.commits += 1


def test_every_module_commits_once_after_a_step_wrapped_ones_included() -> None:
    inner = Committing(kt.InBatch())
    queue = kt.Queue(inner, size=20)
    outer = Committing(queue)
    method = kt.Method(Counting(), sampler=outer, objective=InfoNCE())
    _, encoded = method(_views())
    assert (inner.commits, queue.fill, outer.commits) == (0, 0, 0)
    method.after_step([view.detach() for view in encoded], 0.0)
    assert (inner.commits, queue.fill, outer.commits) == (1, 10, 1)


class TwoNames(kt.PairSampler):
    """Two Pairs of different name and weight."""

    def pairs(self, encoded: Sequence[kt.Encoded]) -> list[kt.Pairs]:
        first, second = encoded
        return [
            kt.Pairs.between(first, second, name="there", weight=2.0),
            kt.Pairs.between(second, first, name="back", weight=0.5),
        ]


def test_named_pairs_have_objectives_of_their_own_and_their_weights() -> None:
    torch.manual_seed(0)
    method = kt.Method(
        Counting(), sampler=TwoNames(), objective={"there": InfoNCE(0.1), "back": InfoNCE(1.0)}, similarity=kt.Dot()
    )
    loss, encoded = method(_views())
    values = {}
    for name, temperature in (("there", 0.1), ("back", 1.0)):
        first, second = encoded if name == "there" else reversed(encoded)
        assert first.rows is not None
        assert second.rows is not None
        values[name] = nn.functional.cross_entropy(first.rows @ second.rows.T / temperature, torch.arange(5))
    reduced = loss.reduced()
    assert reduced.terms["there/loss"].item() == pytest.approx(values["there"].item(), rel=1e-5)
    assert reduced.terms["back/loss"].item() == pytest.approx(values["back"].item(), rel=1e-5)
    assert reduced.value.item() == pytest.approx((2 * values["there"] + 0.5 * values["back"]).item(), rel=1e-5)
    unnamed = kt.Method(Counting(), sampler=TwoNames(), objective={"there": InfoNCE()})
    with pytest.raises(kt.UnknownNameError, match="no objective for the pairs named `back`"):
        unnamed(_views())


def test_towers_by_name_read_their_own_views() -> None:
    left, right = Counting(3), Counting(3)
    method = kt.Method({"left": left, "right": right}, sampler=kt.InBatch("forward"), objective=InfoNCE())
    method([_views(1, tower="left")[0], _views(1, tower="right")[0]])
    assert (left.passes, right.passes) == ([5], [5])
    assert method.encoders["right"] is right
    with pytest.raises(kt.IncompatibleError, match=r"has towers .*left.* and the view names none; wrap the augmenter"):
        method(_views())
    with pytest.raises(kt.UnknownNameError, match="no tower `lefd`; did you mean `left`"):
        method(_views(tower="lefd"))


def test_what_does_not_go_together_is_refused_at_construction() -> None:
    with pytest.raises(kt.IncompatibleError, match="InfoNCE needs negatives, and the sampler Positives gives none"):
        kt.Method(Counting(), sampler=kt.Positives(), objective=InfoNCE())
    wrong: list[tuple[dict[str, object], str]] = [
        (
            {"target": 0.99},
            r"`target` must be a kontrast.Momentum or kontrast.StopGradient, got 0.99; write kontrast.Mom",
        ),
        ({"similarity": "cosine"}, r"`similarity` must be a kontrast.Similarity, got 'cosine'"),
        ({"sampler": "in-batch"}, r"`sampler` must be a kontrast.PairSampler, got 'in-batch'"),
        ({"sampler": kt.InBatch}, r"`sampler` must be a kontrast.PairSampler, got <class"),
        ({"projector": 512}, r"a projector or predictor must be a torch.nn.Module, got 512"),
        ({"encoder": {}}, r"`encoder` must be a module, or modules by name"),
        ({"encoder": {"a.b": Counting()}}, r"`encoder` must be a module, or modules by name"),
        ({"encoder": {"keys": Counting()}}, r"`encoder` must be a module, or modules by name"),
    ]
    for options, sentence in wrong:
        with pytest.raises(kt.InvalidValueError, match=sentence):
            kt.Method(**{"encoder": Counting(), "sampler": kt.InBatch(), "objective": InfoNCE(), **options})  # type: ignore[arg-type]
    with pytest.raises(kt.InvalidValueError, match=r"heads must go by the names of the encoders, \['a'\], got \['b'\]"):
        kt.Method({"a": Counting()}, projector={"b": nn.Identity()}, sampler=kt.InBatch(), objective=InfoNCE())
    with pytest.raises(kt.InvalidValueError, match=r"`objective` must be a kontrast.Objective, got Linear"):
        kt.Method(Counting(), sampler=kt.InBatch(), objective=nn.Linear(1, 1))  # type: ignore[arg-type]  # on purpose
    with pytest.raises(kt.InvalidValueError, match=r"an encoder must be a torch.nn.Module, got function"):
        kt.Method(lambda x: x, sampler=kt.InBatch(), objective=InfoNCE())  # type: ignore[arg-type]


def test_views_that_cannot_be_paired_or_encoded_are_refused() -> None:
    method = kt.Method(Counting(), sampler=kt.InBatch(), objective=InfoNCE())
    with pytest.raises(kt.IncompatibleError, match="InBatch pairs views of the same samples, and there is 1"):
        method(_views(1))
    with pytest.raises(kt.InvalidValueError, match="a method needs at least one view, got none"):
        method([])
    flat = kt.Method(nn.Flatten(0), sampler=kt.InBatch(), objective=InfoNCE())
    with pytest.raises(kt.InvalidValueError, match=r"one representation per row, \[5, D\], got \[20\] from _Wrapped"):
        flat(_views())
    joint = kt.Method(Counting(), sampler=kt.InBatch(), objective=InfoNCE(), joint_forward=True)
    with pytest.raises(kt.IncompatibleError, match="joint_forward joins tensors or mappings of tensors, got list"):
        joint([kt.View([1], torch.arange(1)) for _ in range(2)])


class Returns(kt.Objective):
    """Returns what it was given in place of a loss."""

    def __init__(self, value: object) -> None:
        super().__init__()
        self.value = value

    def forward(self, pairs: kt.Pairs) -> kt.Loss:
        return self.value  # type: ignore[return-value]  # on purpose


class Alone(kt.PairSampler):
    """Returns one Pairs, not a list of them."""

    def pairs(self, encoded: Sequence[kt.Encoded]) -> list[kt.Pairs]:
        return kt.InBatch().pairs(encoded)[0]  # type: ignore[return-value]  # on purpose


def test_what_an_authors_part_returns_is_checked() -> None:
    with pytest.raises(
        kt.InvalidValueError, match=r"Returns must return a kontrast.Loss, got Tensor; see Loss.over_rows"
    ):
        kt.Method(Counting(), sampler=kt.InBatch(), objective=Returns(torch.zeros(())))(_views())
    with pytest.raises(kt.InvalidValueError, match=r"`pairs` of Alone must return a list of kontrast.Pairs, got Pairs"):
        kt.Method(Counting(), sampler=Alone(), objective=InfoNCE())(_views())
    with pytest.raises(kt.InvalidValueError, match=r"an augmenter must return a list of kontrast.View, got View"):
        kt.Method(Counting(), sampler=kt.InBatch(), objective=InfoNCE())(_views()[0])


def test_represent_changes_nothing() -> None:
    norm = nn.BatchNorm1d(4)
    method = kt.Method(norm, sampler=kt.InBatch(), objective=InfoNCE()).train()
    before = norm.running_mean.clone() if norm.running_mean is not None else None
    rows = method.represent(torch.randn(5, 4) + 3)
    assert not rows.requires_grad
    assert norm.training
    assert before is not None
    assert norm.running_mean is not None
    assert torch.equal(norm.running_mean, before)
    several = kt.Method({"a": Counting(), "b": Counting()}, sampler=kt.InBatch(), objective=InfoNCE())
    with pytest.raises(kt.IncompatibleError, match=r"has several encoders; take one of `encoders`: \['a', 'b'\]"):
        _ = several.encoder


@pytest.mark.parametrize("name", ["items", "a.b"])
def test_a_name_that_modules_cannot_have_is_refused(name: str) -> None:
    with pytest.raises(kt.InvalidValueError, match=r"`objective` must be a module, or modules by name \(without dots"):
        kt.Method(Counting(), sampler=kt.InBatch(), objective={name: NTXent()})
