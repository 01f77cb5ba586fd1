import pytest
import torch
from torch import Tensor

import kontrast as kt
import kontrast.norm


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
