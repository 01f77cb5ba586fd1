"""Samplers beyond the core's, found again by brute force, and in every order of wrapping.

Shapes: V views, N samples, D embedding size.
"""

import io
import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from gloo import GlooPool
from torch import Tensor, nn

import kontrast as kt
from kontrast.plugins.clip import clip
from kontrast.plugins.objectives import InfoNCE
from kontrast.plugins.samplers import (
    FutureSteps,
    GuidedNegatives,
    NearestNeighbors,
    Neighborhood,
    NoDuplicates,
    PerClass,
    SameGroup,
    TimePyramid,
    WithGuide,
)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


TABLE = normal(9, 3, seed=8)


def cosine(a: list[float], c: list[float]) -> float:
    dot = math.fsum(x * y for x, y in zip(a, c, strict=True))
    return dot / math.sqrt(math.fsum(x * x for x in a) * math.fsum(y * y for y in c))


def value(pairs: list[kt.Pairs], temperature: float = 0.1) -> float:
    losses = [InfoNCE(temperature)(part).scaled(part.weight) for part in pairs]
    return float(kt.Loss.sum_of(losses).reduced().value)


# Nearest neighbours


def nnclr(views: list[list[list[float]]], ids: list[int], support: list[tuple[int, list[float]]], t: float) -> float:
    """Equation 2 of the paper for both ordered couples of two views, the neighbour being of another sample."""
    losses = []
    for first, second in ((0, 1), (1, 0)):
        for i, row in enumerate(views[first]):
            others = [(cosine(row, entry), entry) for owner, entry in support if owner != ids[i]]
            neighbor = max(others)[1] if others else row
            weights = [math.exp(cosine(neighbor, candidate) / t) for candidate in views[second]]
            losses.append(-math.log(weights[i] / math.fsum(weights)))
    return math.fsum(losses) / len(losses)


def test_nearest_neighbors_are_those_of_the_paper() -> None:
    sampler = NearestNeighbors(size=7)
    support: list[tuple[int, list[float]]] = []
    for step in range(5):
        rows = normal(2, 3, 4, seed=step)
        ids = torch.tensor([0, 1, 2]) if step % 2 else torch.tensor([2, 5, 6])
        encoded = kt.embedded(*rows, ids=ids)
        expected = nnclr(rows.tolist(), ids.tolist(), support, 0.1)
        assert value(sampler.pairs(encoded)) == pytest.approx(expected, rel=1e-9)
        for module in sampler.modules():  # as a method does
            if isinstance(module, kt.Queue):
                module.commit([view.detach() for view in encoded])
        support = [*support, *zip(ids.tolist() * 2, rows.flatten(0, 1).tolist(), strict=True)][-7:]


def test_neighbors_carry_no_gradient_and_predictions_do() -> None:
    sampler = NearestNeighbors(size=8)
    sampler.support.commit(kt.embedded(*normal(2, 3, 4, seed=1), ids=torch.tensor([7, 8, 9])))
    first, second = normal(3, 4, seed=2).requires_grad_(), normal(3, 4, seed=3).requires_grad_()
    forward, _ = sampler.pairs(kt.embedded(first, second))
    InfoNCE()(forward).reduced().backward.backward()
    assert first.grad is None
    assert second.grad is not None


# A guide


def guided(
    views: list[list[list[float]]], guides: list[list[list[float]]], margin: float, t: float
) -> tuple[float, int]:
    """InfoNCE from the first view to the second without the negatives that the guide finds too similar."""
    losses, dropped = [], 0
    for i, anchor in enumerate(views[0]):
        limit = cosine(guides[0][i], guides[1][i]) - margin
        kept = [j for j in range(len(views[1])) if j == i or cosine(guides[0][i], guides[1][j]) <= limit]
        dropped += len(views[1]) - len(kept)
        weights = {j: math.exp(cosine(anchor, views[1][j]) / t) for j in kept}
        losses.append(-math.log(weights[i] / math.fsum(weights.values())))
    return math.fsum(losses) / len(losses), dropped


@pytest.mark.parametrize("margin", [0.0, 0.3])
@pytest.mark.parametrize("tables", [1, 2])
def test_a_guide_drops_what_it_finds_closer_than_the_positive(margin: float, tables: int) -> None:
    rows, guides = normal(2, 8, 3, seed=4), normal(tables, 10, 2, seed=5)
    ids = torch.tensor([9, 1, 2, 3, 4, 5, 6, 0])
    sampler = GuidedNegatives(kt.InBatch("forward"), list(guides) if tables > 1 else guides[0], margin)
    by_view = [guides[view % tables][ids].tolist() for view in range(2)]
    expected, dropped = guided(rows.tolist(), by_view, margin, 0.1)
    assert (dropped > 0) == (tables > 1 or margin > 0)
    pairs = sampler.pairs(kt.embedded(*rows, ids=ids))
    assert value(pairs) == pytest.approx(expected, rel=1e-9)
    assert int(kt.pair_counts(pairs[0])[1].sum()) == 8 * 7 - dropped


def test_a_guide_must_know_every_sample() -> None:
    sampler = GuidedNegatives(kt.InBatch(), normal(3, 2, seed=1))
    with pytest.raises(kt.InvalidValueError, match="has embeddings of 3 samples, got the id 3"):
        sampler.pairs(kt.embedded(*normal(2, 4, 2, seed=2)))
    sampler = GuidedNegatives(kt.InBatch(), list(normal(2, 4, 2, seed=1)))
    with pytest.raises(kt.IncompatibleError, match="the guide has tables for 2 views, and there are 3"):
        sampler.pairs(kt.embedded(*normal(3, 4, 2, seed=2)))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: GuidedNegatives(kt.InBatch(), normal(3, seed=1)), r"`guide` must be the name of a stream, embeddings"),
        (
            lambda: GuidedNegatives(kt.InBatch(), []),
            r"the name of a stream, embeddings \[N, G\], .* got \[\]",
        ),
        (lambda: GuidedNegatives(kt.InBatch(), normal(3, 2, seed=1) / 0.0), "embeddings of a `guide` must be finite"),
        (lambda: GuidedNegatives(kt.InBatch(), "guide", -0.1), "`margin` must be >= 0, got -0.1"),
        (lambda: WithGuide(nn.Linear(2, 2), "guide"), "`guide` must be a torch.nn.Module, got 'guide'"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ],
)
def test_what_a_guide_refuses(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(kt.InvalidValueError, match=sentence):
        make()


class _Guide(nn.Module):
    """Embeds the first two numbers of a sample, with dropout where it is left in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.dropout = nn.Dropout(0.5)

    def forward(self, inputs: Tensor) -> Tensor:
        embeddings: Tensor = self.dropout(self.layer(inputs[:, :2]))
        return embeddings


def _guided_method(target: kt.Momentum | None, views: kt.sampler.ViewPairing = "forward") -> kt.Method:
    torch.manual_seed(2)
    return kt.Method(
        WithGuide(nn.Linear(5, 4), _Guide()),
        projector=nn.Linear(4, 3),
        target=target,
        sampler=GuidedNegatives(kt.Queue(kt.InBatch(views), size=6), "guide", 0.1),
        objective=InfoNCE(0.1),
    ).double()


def _parts(towers: nn.ModuleDict) -> tuple[WithGuide, _Guide, nn.Module]:
    """Return the encoder, its guide and the projector of the one tower."""
    (tower,) = towers.values()
    assert isinstance(tower, kt.method.Tower)
    encoder, projector = tower.encoder, tower.projector
    assert isinstance(encoder, WithGuide)
    assert isinstance(encoder.guide, _Guide)
    assert projector is not None
    return encoder, encoder.guide, projector


@pytest.mark.parametrize("target", [None, kt.Momentum(0.9)])
def test_a_guide_runs_along_on_the_same_inputs(target: kt.Momentum | None) -> None:
    method = _guided_method(target)
    inputs, ids = normal(2, 8, 5, seed=3), torch.arange(8)
    loss, encoded = method([kt.View(rows, ids) for rows in inputs])
    _, guide, projector = _parts(method.towers)
    with torch.no_grad():
        guides = [guide.layer(rows[:, :2]).tolist() for rows in inputs]
        rows = [projector(method.represent(view)).tolist() for view in inputs]
    expected, dropped = guided(rows, guides, 0.1, 0.1)
    assert dropped > 0
    assert float(loss.reduced().value) == pytest.approx(expected, rel=1e-9)
    method.after_step([view.detach() for view in encoded], 0.5)
    assert len(method.sampler.pairs(encoded)[0].blocks) == 2  # a queue's entries are left as they are


def test_a_guide_is_neither_trained_nor_saved_nor_copied() -> None:
    method = _guided_method(kt.Momentum(0.9))
    assert not any("guide" in name for name, _ in method.named_parameters())
    assert not any("guide" in name for name in method.encoder.state_dict())
    assert method.target_towers is not None
    (encoder, guide, _), (copied, same, _) = _parts(method.towers), _parts(method.target_towers)
    assert same is guide
    assert copied.encoder is not encoder.encoder
    assert guide.layer.weight.dtype == torch.float64  # it goes where the encoder goes
    assert guide.training  # it is in evaluation mode while it runs alone
    assert isinstance(encoder.unwrapped, nn.Linear)


def _guided_gradients(views: kt.sampler.ViewPairing) -> list[Tensor]:
    method = _guided_method(None, views)
    results = []
    for step in range(2):
        own = torch.arange(7).tensor_split(kt.world_size())[kt.rank()]
        inputs = normal(2, 7, 5, seed=step)[:, own]
        loss, encoded = method([kt.View(rows, own + 2 * step) for rows in inputs])
        reduced = loss.reduced()
        reduced.backward.backward()
        results.append(reduced.value)
        method.after_step([view.detach() for view in encoded], 0.5)
    gradients = [parameter.grad for parameter in method.parameters()]
    return results + [kt.all_sum(g) / kt.world_size() for g in gradients if g is not None]


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("views", ["all", "forward"])
def test_a_guide_that_runs_along_on_processes_equals_one(
    gloo: GlooPool, views: kt.sampler.ViewPairing, world: int
) -> None:
    whole = _guided_gradients(views)
    assert len(whole) == 6
    for part in gloo.run(world, _guided_gradients, views):
        for ours, theirs in zip(whole, part, strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("target", [None, kt.Momentum(0.9)])
def test_a_guide_runs_along_when_gradients_are_cached(target: kt.Momentum | None) -> None:
    weights = []
    for micro in (0, 3):
        torch.manual_seed(2)
        method = _guided_method(target).float()
        data = kt.ArrayData(normal(8, 5, seed=3).float())
        kt.Run(
            method, data, augmenter=_Turned(), epochs=2, batch_size=8, micro_batch_size=micro, large_batch="cache",
            observers=(),
        ).fit()  # fmt: skip
        weights.append([parameter.detach() for parameter in method.parameters()])
    for whole, cached in zip(*weights, strict=True):
        assert torch.allclose(whole, cached, atol=1e-5)


def test_a_stream_that_is_not_there_is_asked_for() -> None:
    sampler = GuidedNegatives(kt.InBatch(), "guide")
    with pytest.raises(kt.IncompatibleError, match=r"the stream `guide`.* the encodings have \[\]; wrap the encoder"):
        sampler.pairs(kt.embedded(*normal(2, 4, 2, seed=2)))

    class Pools(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs.mean(0, keepdim=True)

    method = kt.Method(WithGuide(nn.Linear(5, 4), Pools()), sampler=sampler, objective=InfoNCE())
    with pytest.raises(kt.InvalidValueError, match=r"must return one embedding per row, \[4, G\], got \[1, 5\]"):
        method([kt.View(rows.float(), torch.arange(4)) for rows in normal(2, 4, 5, seed=1)])


# What a batch is made of


def labels_of(count: int, classes: int, seed: int) -> Tensor:
    return torch.randint(-1, classes, (count,), generator=torch.Generator().manual_seed(seed))


def permutation(count: int, seed: int = 0) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(4))
def test_per_class_puts_several_of_each_class_into_a_batch(seed: int) -> None:
    labels = labels_of(203, 9, seed)
    order = PerClass(kt.InBatch(match="labels"), 4).arrange(permutation(203, seed), 24, labels, None)
    assert sorted(order.tolist()) == list(range(203))
    batches = [Counter(labels[batch].tolist()) for batch in order.split(24)]
    good = [batch for batch in batches if set(batch.values()) == {4} and len(batch) == 6 and -1 not in batch]
    assert batches[: len(good)] == good
    assert len(good) >= 6


@pytest.mark.parametrize("seed", range(4))
def test_same_group_batches_are_of_one_group(seed: int) -> None:
    groups = labels_of(100, 3, seed)
    order = SameGroup(kt.InBatch()).arrange(permutation(100, seed), 8, None, groups)
    assert sorted(order.tolist()) == list(range(100))
    whole = sum(int((groups == group).sum()) // 8 for group in range(3))
    for batch in order.split(8)[:whole]:
        assert len(set(groups[batch].tolist())) == 1


@pytest.mark.parametrize("seed", range(4))
def test_no_duplicates_in_a_batch_before_the_left_overs(seed: int) -> None:
    labels = labels_of(120, 40, seed)
    order = NoDuplicates(kt.InBatch()).arrange(permutation(120, seed), 16, labels, None)
    assert sorted(order.tolist()) == list(range(120))
    clean = [len(set(found := [x for x in labels[b].tolist() if x != -1])) == len(found) for b in order.split(16)]
    assert all(clean[:6])
    again = NoDuplicates(kt.InBatch()).arrange(permutation(120, seed), 16, labels, None)
    assert torch.equal(order, again)


ONE_CLASS = torch.zeros(9, dtype=torch.int64)


@pytest.mark.parametrize(
    ("make", "batch", "labels", "sentence"),
    [
        (lambda: PerClass(kt.InBatch(), 1), 4, ONE_CLASS, "`per_class` must be >= 2, got 1"),
        (lambda: PerClass(kt.InBatch(), 3), 4, ONE_CLASS, "must divide the batch size, got 3 and a batch of 4"),
        (lambda: PerClass(kt.InBatch(), 2), 4, ONE_CLASS, "need 2 classes, and the data have 1"),
        (lambda: PerClass(kt.InBatch(), 2), 4, None, "composes batches by `labels`, and the data set has none"),
        (lambda: SameGroup(kt.InBatch()), 4, None, "composes batches by `groups`, and the data set has none"),
    ],
)
def test_what_batches_refuse(
    make: Callable[[], kt.PairSampler], batch: int, labels: Tensor | None, sentence: str
) -> None:
    with pytest.raises(kt.KontrastError, match=sentence):
        make().arrange(permutation(9), batch, labels, None)


class _Seen(nn.Module):
    """An encoder that notes which samples it sees."""

    representation_size = 2

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 2)
        self.batches: list[list[int]] = []

    def forward(self, inputs: Tensor) -> Tensor:
        self.batches.append(sorted(inputs[:, 0].long().tolist()))
        out: Tensor = self.layer(inputs)
        return out


def test_a_run_trains_on_the_batches_that_the_sampler_composes() -> None:
    labels = torch.arange(24) % 6
    seen = _Seen()
    method = kt.Method(seen, sampler=PerClass(kt.InBatch("forward", match="labels"), 2), objective=InfoNCE())
    data = kt.ArrayData(torch.arange(24)[:, None].float(), labels)
    kt.Run(method, data, augmenter=kt.Identity(), epochs=2, batch_size=8, warmup_epochs=0, observers=()).fit()
    batches = [batch for batch in seen.batches if len(batch) == 8]
    assert len(batches) == 2 * 2 * 3
    assert all(set(Counter(int(labels[n]) for n in batch).values()) == {2} for batch in batches)
    assert len({tuple(batch) for batch in batches}) == 6  # another order in another epoch


class _Loses(kt.Wrapper):
    def arrange(self, order: Tensor, batch_size: int, labels: Tensor | None, groups: Tensor | None) -> Tensor:
        return order[1:]


def test_a_run_refuses_an_order_that_loses_a_sample() -> None:
    method = kt.Method(nn.Linear(1, 2), sampler=_Loses(kt.InBatch()), objective=InfoNCE())
    run = kt.Run(
        method, kt.ArrayData(torch.rand(8, 1)), augmenter=kt.Identity(), epochs=1, batch_size=4, warmup_epochs=0,
        observers=(),
    )  # fmt: skip
    with pytest.raises(kt.InvalidValueError, match=r"`arrange` of _Loses must return the samples.* got 7 of 8"):
        run.fit()


# In every order

WRAPPERS: dict[str, Callable[[kt.PairSampler], kt.PairSampler]] = {
    "queue": lambda inner: kt.Queue(inner, size=5),
    "hard": lambda inner: kt.HardNegatives(inner, 0.5),
    "hardest": lambda inner: kt.HardestNegatives(inner, 2),
    "semi-hard": lambda inner: kt.SemiHardNegatives(inner),
    "debiased": lambda inner: kt.Debiased(inner, 0.1),
    "guided": lambda inner: GuidedNegatives(inner, TABLE, 0.2),
    "per class": lambda inner: PerClass(inner, 2),
}
CORES: dict[str, Callable[[], kt.PairSampler]] = {
    "in-batch": kt.InBatch,
    "cross": lambda: kt.InBatch("cross"),
    "labels": lambda: kt.InBatch(match="labels"),
    "positives": kt.Positives,
    "nearest": lambda: NearestNeighbors(6),
}


def _steps(sampler: kt.PairSampler, first: int, last: int, reload_at: int | None = None) -> list[float]:
    """Return the losses of some steps; at one of them the sampler's state goes through a file."""
    losses = []
    objective = InfoNCE(0.2)
    for step in range(first, last):
        if step == reload_at:
            buffer = io.BytesIO()
            torch.save(sampler.state_dict(), buffer)
            buffer.seek(0)
            for module in sampler.modules():
                if isinstance(module, kt.Queue):
                    module.set_extra_state({"pointer": 0, "fill": 0, "commits": 0, "size": module.size})
                    module.rows = torch.zeros(0, 0)
                    module.keys.fill_(-1)
            sampler.load_state_dict(torch.load(buffer, weights_only=True))
        rows = normal(2, 4, 3, seed=step).requires_grad_()
        ids = torch.arange(step, step + 4)
        encoded = kt.embedded(*rows, ids=ids, labels=ids % 3)
        loss = kt.Loss.sum_of([objective(p).scaled(p.weight) for p in sampler.pairs(encoded)]).reduced()
        (gradient,) = torch.autograd.grad(loss.backward, rows, allow_unused=True)
        assert gradient is None or gradient.isfinite().all()
        losses.append(float(loss.value))
        for module in sampler.modules():
            commit = getattr(module, "commit", None)
            if callable(commit):
                commit([view.detach() for view in encoded])
    return losses


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: kt.Queue(kt.Queue(kt.InBatch(), 3), 5), "rows in both would count twice; take one of the larger size"),
        (lambda: kt.IdQueue(kt.Queue(kt.InBatch(), 3), "items"), "IdQueue goes around another queue"),
        (lambda: kt.Queue(NearestNeighbors(4), 5), "beside this batch's, and NearestNeighbors compares something else"),
        (lambda: kt.Queue(kt.HardNegatives(NearestNeighbors(4)), 5), "and HardNegatives compares something else"),
        (lambda: kt.Queue(TimePyramid(), 5), "and TimePyramid compares something else"),
        (lambda: kt.Queue(FutureSteps(3, 3), 5), "and FutureSteps compares something else"),
        (lambda: kt.Queue(Neighborhood(), 5), "and Neighborhood compares something else"),
        (lambda: GuidedNegatives(NearestNeighbors(4), TABLE), "and NearestNeighbors compares something else"),
        (lambda: GuidedNegatives(kt.Elements(kt.InBatch()), TABLE), "and Elements compares something else"),
        (
            lambda: GuidedNegatives(kt.Queue(kt.HardestNegatives(kt.InBatch()), 5), TABLE),
            r"before they are chosen; write HardestNegatives\(GuidedNegatives\(...\)\)",
        ),
        (lambda: GuidedNegatives(kt.SemiHardNegatives(kt.InBatch()), TABLE), r"write SemiHardNegatives\(Guided"),
        (
            lambda: kt.Debiased(kt.HardestNegatives(kt.InBatch())),
            "Debiased does not go with HardestNegatives: a pos",
        ),
        (
            lambda: kt.HardestNegatives(kt.Debiased(kt.InBatch())),
            "HardestNegatives does not go with Debiased: a pos",
        ),
        (lambda: kt.Debiased(kt.SemiHardNegatives(kt.InBatch())), "and the semi-hard are not; leave one out"),
        (lambda: kt.HardNegatives(kt.SemiHardNegatives(kt.InBatch())), "one negative is left for each pair"),
        (lambda: kt.SemiHardNegatives(kt.HardNegatives(kt.InBatch())), "one negative is left for each pair"),
        (lambda: kt.HardestNegatives(kt.SemiHardNegatives(kt.InBatch())), "each of them chooses the negatives"),
        (lambda: kt.SemiHardNegatives(kt.HardestNegatives(kt.InBatch())), "each of them chooses the negatives"),
        (lambda: kt.HardNegatives(kt.Queue(kt.HardNegatives(kt.InBatch()), 5)), "around another HardNegatives"),
        (lambda: PerClass(kt.Queue(NoDuplicates(kt.InBatch()), 5)), "PerClass composes batches, and so does NoDuplic"),
        (lambda: SameGroup(PerClass(kt.InBatch())), "whose order would be lost; leave one out"),
    ],
)
def test_senseless_compositions_are_refused_when_they_are_made(
    make: Callable[[], kt.PairSampler], sentence: str
) -> None:
    with pytest.raises(kt.IncompatibleError, match=sentence):
        make()


def test_a_guide_must_have_something_to_judge() -> None:
    class Unnamed(kt.InBatch):
        def pairs(self, encoded: Sequence[kt.Encoded]) -> list[kt.Pairs]:
            (pairs,) = super().pairs(encoded)
            block = pairs.blocks[0]
            block = kt.Block(block.anchors, block.candidates, kt.Keys(match=block.anchor_keys.match), kt.Keys())
            return [kt.Pairs((block,))]

    with pytest.raises(kt.IncompatibleError, match=r"pairs of Unnamed have none; make them with Pairs\.between"):
        GuidedNegatives(Unnamed(), TABLE).pairs(kt.embedded(*normal(2, 4, 2, seed=2)))

    class Renamed(kt.InBatch):
        def pairs(self, encoded: Sequence[kt.Encoded]) -> list[kt.Pairs]:
            return super().pairs([replace(view, copies=view.copies + 100) for view in encoded])

    with pytest.raises(kt.IncompatibleError, match="a guide judges the rows of the batch, and Renamed compares others"):
        GuidedNegatives(Renamed(), TABLE).pairs(kt.embedded(*normal(2, 4, 2, seed=2)))


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("depth", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
def test_every_order_of_wrapping_works_or_is_refused(core: str, depth: int) -> None:
    worked = refused = 0
    for names in itertools.product(WRAPPERS, repeat=depth):

        def build(names: tuple[str, ...] = names) -> kt.PairSampler:
            sampler = CORES[core]()
            for name in names:
                sampler = WRAPPERS[name](sampler)
            return sampler

        try:
            sampler = build()
        except kt.KontrastError:
            refused += 1
            continue
        straight = _steps(sampler, 0, 4)
        assert all(math.isfinite(loss) for loss in straight), names
        assert _steps(build(), 0, 4, reload_at=2) == straight, names
        worked += 1
    assert worked
    assert refused or depth == 1


# Ids embedded anew


def test_ids_are_embedded_anew_and_never_meet_themselves() -> None:
    table = nn.Embedding(10, 3, dtype=torch.float64)
    queue = kt.IdQueue(kt.Positives("forward"), table, size=4)
    first = kt.embedded(*table(torch.tensor([[1, 2, 3]] * 2)), ids=torch.tensor([1, 2, 3]))
    queue.commit([view.detach() for view in first])
    assert queue.rows.numel() == 0
    with torch.no_grad():
        table.weight.mul_(2)
    ids = torch.tensor([3, 4])
    (pairs,) = queue.pairs(kt.embedded(*table(torch.stack([ids, ids])), ids=ids))
    block = pairs.blocks[1]
    assert torch.equal(block.candidates, table.weight[[1, 2, 3]])
    assert block.relation()[1].tolist() == [[True, True, False], [True, True, True]]
    InfoNCE()(pairs).reduced().backward.backward()
    assert table.weight.grad is not None
    assert [n for n in range(10) if table.weight.grad[n].any()] == [1, 2, 3, 4]
    state = queue.state_dict()
    other = kt.IdQueue(kt.Positives("forward"), nn.Embedding(10, 3, dtype=torch.float64), size=4)
    other.load_state_dict(state)
    assert torch.equal(other.keys, queue.keys)
    assert other.fill == 3


def test_what_an_id_queue_refuses() -> None:
    queue = kt.IdQueue(kt.Positives("forward"), lambda ids: torch.zeros(1, 3), size=4)
    encoded = kt.embedded(*normal(2, 3, 3, seed=1))
    queue.commit(encoded)
    with pytest.raises(kt.InvalidValueError, match=r"must return one embedding per id, \[3, D\], got \[1, 3\]"):
        queue.pairs(encoded)


# On processes


def _sampler(name: str) -> tuple[kt.PairSampler, list[nn.Parameter]]:
    torch.manual_seed(3)
    if name == "ids":
        table = nn.Embedding(12, 3, dtype=torch.float64)
        return kt.IdQueue(kt.InBatch("forward"), table, size=5), list(table.parameters())
    if name == "nearest":
        return NearestNeighbors(9), []
    return GuidedNegatives(kt.Queue(kt.InBatch(), size=6), list(normal(2, 12, 2, seed=5)), 0.1), []


def _on_ranks(name: str) -> list[Tensor]:
    sampler, parameters = _sampler(name)
    results = []
    for step in range(3):
        rows, own = normal(2, 7, 3, seed=step), torch.arange(7).tensor_split(kt.world_size())[kt.rank()]
        leaf = rows[:, own].clone().requires_grad_()
        encoded = kt.embedded(*leaf, ids=own + step)
        losses = [InfoNCE()(part).scaled(part.weight) for part in sampler.pairs(encoded)]
        reduced = kt.Loss.sum_of(losses).reduced()
        found = torch.autograd.grad(reduced.backward, [leaf, *parameters], allow_unused=True)
        assert found[0] is not None
        results += [reduced.value, kt.all_gather(found[0].transpose(0, 1).contiguous()) / kt.world_size()]
        results += [kt.all_sum(part) / kt.world_size() for part in found[1:] if part is not None]
        for module in sampler.modules():
            if isinstance(module, kt.Queue):
                module.commit([view.detach() for view in encoded])
    return [result.detach() for result in results]


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("name", ["ids", "nearest", "guided"])
def test_processes_equal_one(gloo: GlooPool, name: str, world: int) -> None:
    whole = _on_ranks(name)
    for part in gloo.run(world, _on_ranks, name):
        assert len(part) == len(whole)
        for ours, theirs in zip(whole, part, strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-8, atol=1e-10)


# Two towers


class _Turned(kt.Augmenter):
    """The sample and a rotation of it."""

    def forward(self, batch: kt.Batch, draws: kt.Draws) -> list[kt.View]:
        return [kt.View.of(batch, batch.inputs), kt.View.of(batch, batch.inputs.roll(1, 1))]


class _TwoTowers(kt.Augmenter):
    """The sample itself for one tower, and a rotation of it for the other."""

    def forward(self, batch: kt.Batch, draws: kt.Draws) -> list[kt.View]:
        views = [kt.View.of(batch, batch.inputs), kt.View.of(batch, batch.inputs.roll(1, 1))]
        return [kt.View(v.inputs, v.ids, tower=t) for v, t in zip(views, ("image", "text"), strict=True)]


def _clip() -> kt.Method:
    torch.manual_seed(1)
    towers = [kt.as_encoder(nn.Linear(5, 4)), kt.as_encoder(nn.Linear(5, 6))]
    for tower, size in zip(towers, (4, 6), strict=True):
        tower.representation_size = size
    return clip(towers[0], towers[1], projection_size=3).double()


def _clip_gradients() -> list[Tensor]:
    method = _clip()
    own = torch.arange(7).tensor_split(kt.world_size())[kt.rank()]
    views = _TwoTowers()(kt.Batch(normal(7, 5, seed=2)[own], own), kt.Draws(0))
    loss, _ = method(views)
    reduced = loss.reduced()
    reduced.backward.backward()
    gradients = [parameter.grad for parameter in method.parameters()]
    return [reduced.value] + [kt.all_sum(g) / kt.world_size() for g in gradients if g is not None]


def test_clip_is_the_papers_symmetric_cross_entropy() -> None:
    method = _clip()
    views = _TwoTowers()(kt.Batch(normal(7, 5, seed=2), torch.arange(7)), kt.Draws(0))
    loss, encoded = method(views)
    images, texts = (view.rows.tolist() for view in encoded if view.rows is not None)
    scale = math.exp(math.log(1 / 0.07))
    total = 0.0
    for anchors, candidates in ((images, texts), (texts, images)):
        for i, anchor in enumerate(anchors):
            logits = [scale * cosine(anchor, candidate) for candidate in candidates]
            total += math.log(math.fsum(math.exp(logit - logits[i]) for logit in logits)) / 7
    assert float(loss.reduced().value) == pytest.approx(total / 2, rel=1e-6)
    assert len(_clip_gradients()) == 1 + len(list(method.parameters()))


@pytest.mark.parametrize("world", [2, 3])
def test_clip_on_processes_equals_one(gloo: GlooPool, world: int) -> None:
    whole = _clip_gradients()
    for part in gloo.run(world, _clip_gradients):
        for ours, theirs in zip(whole, part, strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-7, atol=1e-9)


def test_clip_learns_in_a_run() -> None:
    method = _clip().float()
    data = kt.ArrayData(normal(64, 5, seed=3).float())
    run = kt.Run(
        method, data, augmenter=_TwoTowers(), epochs=30, batch_size=32, optimizer=kt.AdamW(1e-2), observers=()
    )  # fmt: skip
    first = float(method(_TwoTowers()(data.batch(torch.arange(32)), kt.Draws(0)))[0].reduced().value)
    assert run.fit()["loss"] < 0.7 * first
