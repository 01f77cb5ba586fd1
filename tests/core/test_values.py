"""The values of a step: what they accept, what they refuse, and how they are joined and moved."""

from collections import UserDict
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence

import kontrast as kt
from kontrast.values import to_device

META = torch.device("meta")  # a second device on every machine: what arrives there was moved


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def encoded(count: int, first: int = 0, **others: Any) -> kt.Encoded:
    """Rows that carry their number, so that an order can be read off them."""
    numbers = torch.arange(first, first + count)
    return kt.Encoded(numbers[:, None].float(), numbers, numbers + 100, **others)


class Named(NamedTuple):
    tokens: Tensor
    name: str


class TokenBatch(UserDict[str, Tensor]):
    """A mapping with a `.to` and attributes, as tokenizers return it."""

    def to(self, device: torch.device) -> "TokenBatch":
        return TokenBatch({name: tensor.to(device) for name, tensor in self.items()})


BAD_KEYS: list[tuple[Any, str]] = [
    (torch.zeros(3), r"got torch\.float32 \[3\]"),
    (torch.zeros(3, dtype=torch.int32), r"got torch\.int32 \[3\]"),
    (torch.zeros(3, 1, dtype=torch.int64), r"got torch\.int64 \[3, 1\]"),
    ([1, 2, 3], "got list"),
]


@pytest.mark.parametrize("made", [kt.Batch, kt.View])
@pytest.mark.parametrize("name", ["ids", "labels", "groups"])
@pytest.mark.parametrize(("value", "found"), BAD_KEYS)
def test_keys_must_be_int64_one_per_row(made: Any, name: str, value: Any, found: str) -> None:
    with pytest.raises(
        kt.InvalidValueError, match=rf"`{name}` must be an int64 tensor \[(3|M)\], one per row, {found}$"
    ):
        made(normal(3, 2), **{"ids": torch.arange(3), name: value})


@pytest.mark.parametrize("made", [kt.Batch, kt.View])
@pytest.mark.parametrize("name", ["labels", "groups"])
def test_keys_must_be_as_long_as_the_ids(made: Any, name: str) -> None:
    with pytest.raises(kt.InvalidValueError, match=rf"^`{name}` must be an int64 tensor \[3\].*got torch.int64 \[4\]$"):
        made(normal(3, 2), torch.arange(3), **{name: torch.arange(4)})


@pytest.mark.parametrize("made", [kt.Batch, kt.View])
def test_one_number_is_no_ids(made: Any) -> None:
    with pytest.raises(kt.InvalidValueError, match=r"`ids` must be an int64 tensor.*got torch.int64 \[\]"):
        made(normal(1, 2), torch.tensor(3))


def test_batch_has_a_length_and_moves_whole() -> None:
    batch = kt.Batch({"x": normal(3, 2), "note": "kept"}, torch.arange(3), torch.arange(3) + 1, torch.arange(3) + 2)
    moved = batch.to(META)
    assert len(batch) == len(moved) == 3
    assert moved.inputs["note"] == "kept"
    for part in (moved.inputs["x"], moved.ids, moved.labels, moved.groups):
        assert part is not None
        assert part.device == META


def test_a_batch_without_labels_moves_without_them() -> None:
    moved = kt.Batch(normal(2, 2), torch.arange(2), groups=torch.arange(2)).to(META)
    assert moved.labels is None
    assert moved.groups is not None


def test_view_of_a_batch_carries_its_keys() -> None:
    batch = kt.Batch(normal(2, 2), torch.tensor([7, 8]), torch.tensor([0, 1]), torch.tensor([5, 5]))
    inputs = normal(2, 2, seed=1)
    view = kt.View.of(batch, inputs)
    assert view.inputs is inputs
    assert view.ids is batch.ids
    assert view.labels is batch.labels
    assert view.groups is batch.groups


def test_to_device_goes_into_mappings_and_sequences() -> None:
    moved = to_device({"a": [normal(2), (normal(3), None, 4)], "b": "text"}, META)
    assert moved["a"][0].device == META
    assert isinstance(moved["a"][1], tuple)
    assert moved["a"][1][0].device == META
    assert moved["a"][1][1:] == (None, 4)
    assert moved["b"] == "text"


def test_to_device_keeps_a_named_tuple() -> None:
    moved = to_device(Named(normal(2), "kept"), META)
    assert isinstance(moved, Named)
    assert moved.tokens.device == META
    assert moved.name == "kept"


def test_to_device_uses_the_to_of_what_has_one() -> None:
    packed = to_device(pack_sequence([normal(3), normal(2)]), META)
    assert isinstance(packed, PackedSequence)
    assert packed.data.device == META
    tokens = to_device(TokenBatch(ids=normal(2)), META)
    assert isinstance(tokens, TokenBatch)
    assert tokens["ids"].device == META


def test_embedded_numbers_samples_alike_and_copies_apart() -> None:
    rows = [normal(4, 2, seed=seed) for seed in range(3)]
    views = kt.embedded(*rows)
    assert all(view.rows is own for view, own in zip(views, rows, strict=True))
    assert [view.ids.tolist() for view in views] == [views[0].ids.tolist()] * 3
    assert len(set(views[0].ids.tolist())) == 4
    assert len(set(torch.cat([view.copies for view in views]).tolist())) == 12


def test_embedded_takes_keys() -> None:
    ids, labels, groups = torch.tensor([4, 9]), torch.tensor([1, 1]), torch.tensor([2, 3])
    for view in kt.embedded(normal(2, 2), normal(2, 2), ids=ids, labels=labels, groups=groups):
        assert view.key("ids").tolist() == [4, 9]
        assert view.key("labels").tolist() == [1, 1]
        assert view.key("groups").tolist() == [2, 3]


@pytest.mark.parametrize(
    ("shapes", "found"),
    [
        ([(2, 3), (2, 4)], r"\[\[2, 3\], \[2, 4\]\]"),
        ([(2, 3), (3, 3)], r"\[\[2, 3\], \[3, 3\]\]"),
        ([(4,)], r"\[\[4\]\]"),
    ],
)
def test_embedded_refuses_shapes_that_differ(shapes: list[tuple[int, ...]], found: str) -> None:
    with pytest.raises(kt.InvalidValueError, match=rf"one \[B, D\] per view, all of one shape, got {found}"):
        kt.embedded(*(normal(*shape) for shape in shapes))


def test_stack_keeps_order_and_gradient() -> None:
    views = [
        encoded(2, labels=torch.tensor([5, 6]), groups=torch.tensor([1, 2])),
        encoded(3, 10, labels=torch.tensor([7, 8, 9]), groups=torch.tensor([3, 4, 5])),
    ]
    leaf = views[1].rows
    assert leaf is not None
    leaf.requires_grad_()
    joined = kt.stack(views)
    assert joined.rows is not None
    assert joined.rows[:, 0].tolist() == joined.ids.tolist() == [0, 1, 10, 11, 12]
    assert joined.copies.tolist() == [100, 101, 110, 111, 112]
    assert joined.key("labels").tolist() == [5, 6, 7, 8, 9]
    assert joined.key("groups").tolist() == [1, 2, 3, 4, 5]
    joined.rows.sum().backward()
    assert leaf.grad is not None


def test_stack_of_a_stream_lets_a_view_without_it_stand_for_itself() -> None:
    joined = kt.stack([encoded(2, streams={"target": encoded(2, 50)}), encoded(2, 10)], "target")
    assert joined.ids.tolist() == [50, 51, 10, 11]


def test_stack_leaves_out_views_without_rows() -> None:
    streams_only = kt.Encoded(None, torch.arange(2), torch.arange(2), streams={"target": encoded(2, 50)})
    assert kt.stack([streams_only, encoded(2)]).ids.tolist() == [0, 1]
    assert kt.stack([streams_only, encoded(2)], "target").ids.tolist() == [50, 51, 0, 1]
    with pytest.raises(kt.IncompatibleError, match=r"stack needs a view with pooled rows \[M, D\]"):
        kt.stack([streams_only])


def test_labels_that_one_view_lacks_are_absent_from_the_stack() -> None:
    joined = kt.stack([encoded(2, labels=torch.arange(2)), encoded(2)])
    assert joined.labels is None


def test_a_key_that_is_absent_or_unknown_is_refused() -> None:
    view = encoded(2)
    assert view.key("copies").tolist() == [100, 101]
    with pytest.raises(kt.IncompatibleError, match="pairs by `labels` need a batch that carries `labels`"):
        view.key("labels")
    with pytest.raises(kt.InvalidValueError, match="one of ids, copies, labels, groups, got 'rows'"):
        view.key("rows")


def test_stream_falls_back_to_the_encoding_itself() -> None:
    target = encoded(2, 50)
    view = encoded(2, streams={"target": target})
    assert view.stream("target") is target
    assert view.stream("context") is view


def test_detach_cuts_rows_dense_and_streams() -> None:
    leaf = normal(2, 3, 4).requires_grad_()
    keys = torch.arange(2), torch.arange(2)
    inner = kt.Encoded(leaf.mean(1), *keys)
    cut = kt.Encoded(leaf.mean(1), *keys, dense=leaf * 2, streams={"target": inner}).detach()
    for tensor in (cut.rows, cut.dense, cut.stream("target").rows):
        assert tensor is not None
        assert not tensor.requires_grad
    assert inner.rows is not None
    assert inner.rows.requires_grad


def test_across_ranks_is_the_identity_in_one_process() -> None:
    view = encoded(3)
    assert kt.across_ranks(view).rows is view.rows
    with pytest.raises(kt.IncompatibleError, match=r"across_ranks gathers pooled rows \[M, D\]"):
        kt.across_ranks(kt.Encoded(None, torch.arange(2), torch.arange(2)))


def test_key_joins_two_integers_without_collision() -> None:
    grid = torch.cat([torch.arange(200), (1 << 40) + torch.arange(100), torch.tensor([2**62])])
    joined = kt.key(grid[:, None], grid[None, :])
    assert joined.dtype == torch.int64
    assert int(joined.min()) >= 0
    assert len(joined.unique()) == len(grid) ** 2  # so (a, b) and (b, a) differ, too
    assert torch.equal(kt.key(grid, grid), joined.diagonal())


def test_key_of_nothing_is_nothing() -> None:
    nothing, some = torch.tensor([-1, -1, 3]), torch.tensor([-1, 5, -1])
    assert kt.key(nothing, some).tolist() == [-1, -1, -1]
