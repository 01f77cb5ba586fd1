"""Samples to check parts of a domain on: the domain's own where it is registered, else what the author gives.

Shapes: B samples, M rows of a view.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from kontrast import (
    Adapter,
    AdapterRecord,
    ArrayData,
    Augmenter,
    AugmenterRecord,
    Batch,
    Data,
    Draws,
    Encoded,
    Encoder,
    EncoderRecord,
    InvalidValueError,
    View,
    get_record,
)

from .checks import NotCheckedError

__all__ = ["Noise", "SmallEncoder", "data_of", "default_augmenter", "example_data", "taken"]

FEATURES = 10


def example_data(samples: int = 24) -> ArrayData:
    """Return vectors of ten numbers, float64, with labels of two samples each and two groups."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(samples, FEATURES, dtype=torch.float64, generator=generator)
    ids = torch.arange(samples)
    return ArrayData(inputs, labels=ids // 2, groups=ids % 2)


class Noise(Augmenter):
    """Views of vectors: each a little moved, by numbers of the sample's own.

    Args:
        num_views: how many.
    """

    def __init__(self, num_views: int = 2) -> None:
        super().__init__()
        self.num_views = num_views

    def forward(self, batch: Batch, draws: Draws) -> list[View]:
        """Return the views."""
        inputs: Tensor = batch.inputs
        moved = [draws.uniform(batch.ids, inputs.shape[1], view=view).to(inputs) for view in range(self.num_views)]
        return [View.of(batch, inputs + part - 0.5) for part in moved]


class SmallEncoder(Encoder):
    """Vectors of `example_data` -> [B, 8], with a batch norm; each has four elements, its row turned in a circle."""

    representation_size = 8

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(FEATURES, 12), nn.BatchNorm1d(12), nn.Tanh(), nn.Linear(12, 8))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the representations."""
        rows: Tensor = self.layers(inputs)
        return rows

    def encode(self, view: View, copies: Tensor) -> Encoded:
        """Return rows and elements."""
        encoded = super().encode(view, copies)
        assert encoded.rows is not None
        return replace(encoded, dense=torch.stack([encoded.rows.roll(turn, 1) for turn in range(4)], 1))


def data_of(
    kind: type[EncoderRecord] | type[AugmenterRecord], subject: Any, data: Data | None
) -> tuple[Data, Mapping[str, Any]]:
    """Return samples to check `subject` on, and what its factory wants to know of them (`Splits.about`).

    Raises:
        InvalidValueError: if none are given and it is not registered under a domain.
    """
    if data is not None:
        return data, {}
    home = get_record(kind, subject).adapter if isinstance(subject, str) else ""
    if not home:
        raise InvalidValueError("`data` must be samples that it reads, got none; write data=kontrast.ArrayData(...)")
    adapter: Adapter = get_record(AdapterRecord, home).load()()
    splits = adapter.load(adapter.default_data)
    return splits.train, splits.about


def default_augmenter(subject: Any, about: Mapping[str, Any]) -> Augmenter | None:
    """Return the augmenter that a registered encoder's domain takes where nothing is said."""
    home = get_record(EncoderRecord, subject).adapter if isinstance(subject, str) else ""
    if not home:
        return None
    adapter: Adapter = get_record(AdapterRecord, home).load()()
    record = get_record(AugmenterRecord, adapter.default_augmenter)
    known = {name: value for name, value in about.items() if name in record.signature().parameters}
    augmenter: Augmenter = record.load()(**known)
    return augmenter


def taken(inputs: Any, rows: Tensor) -> Any:
    """Return some rows of a view's inputs.

    Raises:
        NotCheckedError: if the inputs are neither a tensor nor a mapping of them.
    """
    if isinstance(inputs, Tensor):
        return inputs[rows]
    if isinstance(inputs, Mapping):
        return {name: taken(part, rows) for name, part in inputs.items()}
    raise NotCheckedError(f"inputs of type {type(inputs).__name__} cannot be told apart by row")
