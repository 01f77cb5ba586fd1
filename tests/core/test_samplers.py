"""Who a sampler compares with whom, and what its queue remembers.

Rows are (view, sample) themselves, so that a relation can be read off the embeddings.
"""

import io
import random
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import kontrast as kt
from kontrast.plugins.objectives import InfoNCE, NTXent

Row = tuple[float, ...]  # (view, sample); in the queue's tests (sample, step)
TARGET = 10  # added to the view of a target's embedding


def batch(views: int, samples: int, *, labels: Tensor | None = None, target: bool = False) -> list[kt.Encoded]:
    """Return encoded views whose rows are (view, sample), with a stream of (view + TARGET, sample) if so asked."""

    def rows(view: int) -> Tensor:
        return torch.stack([torch.full((samples,), view), torch.arange(samples)], dim=1).double()

    encoded = kt.embedded(*(rows(v) for v in range(views)), labels=labels)
    if not target:
        return encoded
    streams = kt.embedded(*(rows(v + TARGET) for v in range(views)), labels=labels)
    return [
        kt.Encoded(e.rows, e.ids, e.copies, e.labels, streams={"target": s})
        for e, s in zip(encoded, streams, strict=True)
    ]


def row(values: Tensor) -> Row:
    return tuple(values.tolist())


def found_relations(pairs: Sequence[kt.Pairs]) -> Counter[tuple[Row, Row, str]]:
    return Counter(
        (row(block.anchors[i]), row(block.candidates[j]), what)
        for part in pairs
        for block in part.blocks
        for what, mask in zip(("positive", "negative"), block.relation(), strict=True)
        for i, j in mask.nonzero().tolist()
    )


def meets(views: str, v: int, w: int) -> bool:
    return {"all": True, "cross": v != w, "forward": v < w}[views]


@pytest.mark.parametrize("target", [False, True])
@pytest.mark.parametrize("views", ["all", "cross", "forward"])
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("by_label", [False, True])
def test_in_batch(views: Any, count: int, samples: int, target: bool, by_label: bool) -> None:
    label = [3, 5, 3, -1][:samples]
    expected = Counter[tuple[Row, Row, str]]()
    for v in range(count):
        for i in range(samples):
            for w in range(count):
                for j in range(samples):
                    if not meets(views, v, w) or (v, i) == (w, j):
                        continue
                    same = label[i] == label[j] != -1 if by_label else i == j
                    if by_label and i == j and not same:
                        continue  # copies of a sample without a label: neither positive nor negative
                    expected[(v, i), (w + TARGET * target, j), "positive" if same else "negative"] += 1
    encoded = batch(count, samples, labels=torch.tensor(label), target=target)
    pairs = kt.InBatch(views, match="labels" if by_label else "ids").pairs(encoded)
    assert found_relations(pairs) == expected
    assert len(pairs) == {"all": 1, "cross": count * (count - 1), "forward": count * (count - 1) // 2}[views]
    assert [part.weight for part in pairs] == pytest.approx([1 / len(pairs)] * len(pairs))


@pytest.mark.parametrize("target", [False, True])
@pytest.mark.parametrize("views", ["all", "cross", "forward"])
@pytest.mark.parametrize("count", [2, 3])
def test_positives(views: Any, count: int, target: bool) -> None:
    expected = Counter(
        ((v, i), (w + TARGET * target, i), "positive")
        for v in range(count)
        for w in range(count)
        for i in range(4)
        if v != w and meets(views, v, w)
    )
    pairs = kt.Positives(views).pairs(batch(count, 4, target=target))
    assert found_relations(pairs) == expected
    assert [part.weight for part in pairs] == pytest.approx([1 / len(pairs)] * len(pairs))


@pytest.mark.parametrize("sampler", [kt.InBatch, kt.Positives])
def test_what_a_view_sampler_refuses(sampler: type[kt.InBatch] | type[kt.Positives]) -> None:
    with pytest.raises(kt.InvalidValueError, match="`views` must be all, cross or forward, got 'both'"):
        sampler("both")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(kt.IncompatibleError, match=f"{sampler.__name__} pairs views .* and there is 1; take an augm"):
        sampler().pairs(batch(1, 2))


def test_labels_that_are_not_there_are_asked_for() -> None:
    with pytest.raises(kt.IncompatibleError, match="pairs by `labels` need a batch that carries `labels`"):
        kt.InBatch(match="labels").pairs(batch(2, 2))


@pytest.mark.parametrize(("views", "reads"), [("all", ((0, 1, 2), (0, 1, 2))), ("forward", ((0, 1), (1, 2)))])
def test_reads_are_the_views_that_meet(views: Any, reads: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    for sampler in (kt.InBatch(views), kt.Positives(views), kt.Queue(kt.Positives(views), size=2)):
        assert sampler.reads(3) == reads


def steps(sizes: Sequence[int], *, seed: int = 0, samples: int = 9) -> Iterator[list[kt.Encoded]]:
    """Two views of random samples per step; the second's rows are (sample, step) and a third; ids come again."""
    draw = random.Random(seed)
    for step, size in enumerate(sizes):
        ids = torch.tensor([draw.randrange(samples) for _ in range(size)], dtype=torch.int64)
        keys = torch.stack([ids, torch.full_like(ids, step)], dim=1).double()
        yield kt.embedded(keys + 0.5, keys + 1 / 3, ids=ids, labels=ids % 2, groups=ids % 3)


def stored(pairs: kt.Pairs) -> Counter[Row]:
    return Counter(row(values) for values in pairs.blocks[1].candidates) if len(pairs.blocks) > 1 else Counter[Row]()


@pytest.mark.parametrize("size", [1, 3, 5, 8, 20])
@pytest.mark.parametrize("sizes", [[3] * 8, [1, 4, 2, 7, 5, 1, 6], [30, 2, 9, 4]], ids=["even", "uneven", "large"])
def test_a_queue_holds_the_newest_rows(size: int, sizes: list[int]) -> None:
    queue, memory = kt.Queue(kt.Positives("forward"), size=size), deque[Row](maxlen=size)
    for encoded in steps(sizes):
        (pairs,) = queue.pairs(encoded)
        assert stored(pairs) == Counter(memory)
        if memory:
            positive, negative = pairs.blocks[1].relation()
            assert not positive.any()
            for i, own in enumerate(encoded[0].ids.tolist()):  # an old copy of oneself is no negative
                met = Counter(row(pairs.blocks[1].candidates[j]) for j in negative[i].nonzero().flatten().tolist())
                assert met == Counter(entry for entry in memory if int(entry[0]) != own)
        queue.commit(encoded)
        assert encoded[1].rows is not None
        memory.extend(row(values) for values in encoded[1].rows)
        kept = Counter(row(keys[:3]) for keys in queue.keys[: queue.fill])
        assert kept == Counter((s, s % 2, s % 3) for s in (int(sample) for sample, _ in memory))  # ids, labels, groups


def test_a_queue_stands_beside_what_its_inner_sampler_finds() -> None:
    queue = kt.Queue(kt.InBatch("cross"), size=4)
    first, second = steps([3, 3])
    queue.commit(first)
    inner = kt.InBatch("cross").pairs(second)
    pairs = queue.pairs(second)
    assert len(pairs) == len(inner) == 2
    for outer, own in zip(pairs, inner, strict=True):
        assert found_relations([kt.Pairs(outer.blocks[:1])]) == found_relations([own])
        assert outer.weight == own.weight
        assert sum(stored(outer).values()) == 4


def test_a_queue_keeps_the_target_detached() -> None:
    queue = kt.Queue(kt.InBatch(), size=8)
    encoded = batch(2, 3, target=True)
    for view in encoded:
        view.stream("target").rows.requires_grad_()  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
    queue.commit(encoded)
    (pairs,) = queue.pairs(batch(2, 2))
    assert stored(pairs) == Counter((v + TARGET, i) for v in range(2) for i in range(3))
    assert not pairs.blocks[1].candidates.requires_grad


def test_a_queue_in_a_queue_would_count_rows_twice() -> None:
    with pytest.raises(kt.IncompatibleError, match="Queue goes around another queue, and rows in both would count"):
        kt.Queue(kt.HardNegatives(kt.Queue(kt.Positives("forward"), size=2)), size=4)


def test_pairs_change_nothing() -> None:
    queue = kt.Queue(kt.InBatch(), size=4)
    first, second = steps([3, 5])
    queue.commit(first)
    before = {
        name: value.clone() if isinstance(value, Tensor) else dict(value) for name, value in queue.state_dict().items()
    }
    contents = [queue.pairs(second)[0].blocks[1].candidates.clone() for _ in range(2)]
    assert torch.equal(*contents)
    after = queue.state_dict()
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(value, after[name]) if isinstance(value, Tensor) else value == after[name]


@pytest.mark.parametrize("sizes", [[3], [3, 3], [2, 5, 4], [9, 1]])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_queue_continues_from_its_state(sizes: list[int], dtype: torch.dtype) -> None:
    def cast(encoded: list[kt.Encoded]) -> list[kt.Encoded]:
        assert all(view.rows is not None for view in encoded)
        rows = [view.rows.to(dtype) for view in encoded if view.rows is not None]
        return [
            kt.Encoded(r, view.ids, view.copies, view.labels, view.groups)
            for r, view in zip(rows, encoded, strict=True)
        ]

    queue, later = kt.Queue(kt.InBatch(), size=7), [cast(encoded) for encoded in steps([2, 3, 5, 1], seed=9)]
    for encoded in steps(sizes):
        queue.commit(cast(encoded))
    file = io.BytesIO()
    torch.save(queue.state_dict(), file)
    file.seek(0)
    fresh = kt.Queue(kt.InBatch(), size=7)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert fresh.get_extra_state() == queue.get_extra_state()
    for encoded in later:
        blocks = [part.pairs(encoded)[0].blocks[1] for part in (queue, fresh)]
        assert torch.equal(blocks[0].candidates, blocks[1].candidates)
        assert blocks[0].candidates.dtype == blocks[1].candidates.dtype == dtype
        for ours, theirs in zip(*(block.relation() for block in blocks), strict=True):
            assert torch.equal(ours, theirs)
        for part in (queue, fresh):
            part.commit(encoded)
    for name, value in queue.state_dict().items():  # labels and groups, too, which no relation reads
        other = fresh.state_dict()[name]
        assert torch.equal(value, other) if isinstance(value, Tensor) else value == other


def test_the_state_of_an_empty_queue_empties_a_full_one() -> None:
    queue = kt.Queue(kt.InBatch(), size=3)
    first, second = steps([4, 2])
    queue.commit(first)
    queue.load_state_dict(kt.Queue(kt.InBatch(), size=3).state_dict())
    assert len(queue.pairs(second)[0].blocks) == 1


@pytest.mark.parametrize("committed", [False, True])
def test_another_size_is_refused(committed: bool) -> None:
    queue = kt.Queue(kt.InBatch(), size=4)
    if committed:
        queue.commit(next(steps([3])))
    with pytest.raises(kt.InvalidValueError, match="saved queue holds 4 entries and this one 8; make it the same size"):
        kt.Queue(kt.InBatch(), size=8).load_state_dict(queue.state_dict())


@pytest.mark.parametrize("objective", [InfoNCE(0.1), NTXent(0.1)])
def test_before_the_queue_has_entries_the_loss_is_zero(objective: kt.Objective) -> None:
    queue = kt.Queue(kt.Positives("forward"), size=4)
    views = [torch.randn(3, 4, generator=torch.Generator().manual_seed(seed)).requires_grad_() for seed in range(2)]
    loss = objective(queue.pairs(kt.embedded(*views))[0]).reduced()
    assert float(loss.value) == pytest.approx(0.0, abs=1e-6)
    loss.backward.backward()
    for view in views:
        assert view.grad is not None
        assert view.grad.abs().max() < 1e-6


@pytest.mark.parametrize("size", [0, -1])
def test_what_a_queue_refuses(size: int) -> None:
    with pytest.raises(kt.InvalidValueError, match=f"`size` of a queue must be >= 1, got {size}"):
        kt.Queue(kt.InBatch(), size=size)
    with pytest.raises(kt.InvalidValueError, match=r"Queue goes around a sampler, got Identity\(\); write Queue"):
        kt.Queue(torch.nn.Identity(), size=2)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_a_queue_refuses_another_embedding_size_and_unnamed_anchors() -> None:
    queue = kt.Queue(kt.InBatch(), size=4)
    queue.commit(next(steps([2])))
    with pytest.raises(kt.InvalidValueError, match="holds embeddings of size 2, and this batch has 3"):
        queue.commit(kt.embedded(torch.zeros(2, 3), torch.zeros(2, 3)))

    class Anonymous(kt.InBatch):
        def pairs(self, encoded: Sequence[kt.Encoded]) -> list[kt.Pairs]:
            return [kt.Pairs(part.blocks) for part in super().pairs(encoded)]

    unnamed = kt.Queue(Anonymous(), size=4)
    unnamed.commit(next(steps([2])))
    with pytest.raises(
        kt.IncompatibleError, match=r"Queue needs to know which samples the anchors are.*Pairs\.between"
    ):
        unnamed.pairs(batch(2, 2))
