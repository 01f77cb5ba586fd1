from itertools import chain

import pytest
import torch
from torch import Tensor

import kontrast as kt
import kontrast.norm
from kontrast.data import epoch_batches


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_array_data_gives_samples_by_index() -> None:
    data = kt.ArrayData(random(5, 2), labels=torch.arange(5) * 10, groups=torch.arange(5) * 100)
    batch = data.batch(torch.tensor([4, 0]))
    assert torch.equal(batch.inputs, random(5, 2)[[4, 0]])
    assert (batch.ids.tolist(), len(data)) == ([4, 0], 5)
    assert batch.labels is not None
    assert batch.groups is not None
    assert (batch.labels.tolist(), batch.groups.tolist()) == ([40, 0], [400, 0])
    assert kt.ArrayData(random(5, 2)).batch(torch.tensor([1])).labels is None


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"labels": torch.arange(4)},
            r"`labels` must be an int64 tensor \[5\], one per sample, got torch\.int64 \[4\]",
        ),
        (
            {"groups": torch.ones(5)},
            r"`groups` must be an int64 tensor \[5\], one per sample, got torch\.float32 \[5\]",
        ),
        (
            {"labels": torch.zeros(5, 1).long()},
            r"`labels` must be an int64 tensor \[5\], one per sample, got .* \[5, 1\]",
        ),
    ],
)
def test_array_data_refuses_keys_that_do_not_fit(keys: dict[str, Tensor], message: str) -> None:
    with pytest.raises(kt.InvalidValueError, match=message):
        kt.ArrayData(random(5, 2), **keys)


def test_array_data_and_splits_say_what_is_missing() -> None:
    with pytest.raises(kt.InvalidValueError, match="at least one sample, got none"):
        kt.ArrayData(torch.ones(0, 2))
    data = kt.ArrayData(torch.ones(1, 2))
    assert kt.Splits(data, data).test is data
    with pytest.raises(kt.IncompatibleError, match="this data set has no test part; give it one"):
        _ = kt.Splits(data).test


@pytest.mark.parametrize(("length", "batch_size"), [(20, 5), (23, 5), (3, 5), (1, 1), (5, 5)])
@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_an_epoch_holds_every_sample_once_however_it_is_shared(
    length: int, batch_size: int, drop_last: bool, world: int
) -> None:
    def batches(world: int = 1, rank: int = 0, seed: int = 4, epoch: int = 7) -> list[list[int]]:
        return [
            batch.tolist()
            for batch in epoch_batches(
                length, batch_size, seed=seed, epoch=epoch, drop_last=drop_last, world=world, rank=rank
            )
        ]

    alone = batches()
    rest = length % batch_size
    sizes = [batch_size] * (length // batch_size) + ([rest] if rest and not drop_last else [])
    assert [len(batch) for batch in alone] == sizes
    seen = sorted(sample for batch in alone for sample in batch)
    if drop_last:
        assert len(set(seen)) == len(seen)
        assert set(seen) <= set(range(length))
    else:
        assert seen == list(range(length))
    shares = [batches(world, rank) for rank in range(world)]
    assert [list(chain(*parts)) for parts in zip(*shares, strict=True)] == alone
    assert all(max(map(len, parts)) - min(map(len, parts)) <= 1 for parts in zip(*shares, strict=True))
    assert batches() == alone
    if length >= 20:
        in_order = [batch.tolist() for batch in torch.arange(length).split(batch_size)]
        assert all(other[0] != alone[0] for other in (batches(epoch=8), batches(seed=5), in_order))
