"""Samples to check parts of a domain on: the domain's own where it is registered, else what the author gives.

Shapes: B samples, M rows of a view.
"""

import copy
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
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
    Loss,
    Splits,
    View,
    as_encoder,
    get_record,
)

from .checks import NotCheckedError

__all__ = [
    "Noise",
    "SmallEncoder",
    "data_of",
    "default_augmenter",
    "default_encoder",
    "default_splits",
    "example_data",
    "in_double",
    "made_for",
    "taken",
]

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
    """Vectors of `example_data` -> [B, 8], with a batch norm; each has four elements, its row turned in a circle.

    Args:
        lengths: the weight of a loss of its own, the mean squared length of the rows; 0: it has none.
    """

    representation_size = 8

    def __init__(self, lengths: float = 0.0) -> None:
        super().__init__()
        self.lengths = lengths
        self.layers = nn.Sequential(nn.Linear(FEATURES, 12), nn.BatchNorm1d(12), nn.Tanh(), nn.Linear(12, 8))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the representations."""
        rows: Tensor = self.layers(inputs)
        return rows

    def encode(self, view: View, copies: Tensor) -> Encoded:
        """Return rows and elements."""
        encoded = super().encode(view, copies)
        rows = encoded.rows
        assert rows is not None
        encoded = replace(encoded, dense=torch.stack([rows.roll(turn, 1) for turn in range(4)], 1))
        if not self.lengths:
            return encoded
        own = Loss.over_rows(rows.square().sum(1), name="encoder-lengths", weight=self.lengths)
        return replace(encoded, auxiliary=own)


def data_of(
    kind: type[EncoderRecord] | type[AugmenterRecord], subject: Any, data: Data | None
) -> tuple[Data, Mapping[str, Any]]:
    """Return samples to check `subject` on, and what its factory wants to know of them (`Splits.about`).

    Raises:
        InvalidValueError: if none are given and it is not registered under a domain.
    """
    if data is not None:
        return data, {}
    home = _home(kind, subject)
    if home is None:
        raise InvalidValueError("`data` must be samples that it reads, got none; write data=kontrast.ArrayData(...)")
    splits = default_splits(home)
    return splits.train, splits.about


def default_augmenter(subject: Any, about: Mapping[str, Any]) -> Augmenter | None:
    """Return the augmenter that a registered encoder's domain takes where nothing is said."""
    home = _home(EncoderRecord, subject)
    if home is None:
        return None
    augmenter: Augmenter = made_for(AugmenterRecord, home.load()().default_augmenter, about)
    return augmenter


def default_encoder(subject: Any) -> Encoder | None:
    """Return the encoder that a registered augmenter's domain takes where nothing is said, in evaluation mode."""
    home = _home(AugmenterRecord, subject)
    if home is None:
        return None
    about = default_splits(home).about
    return as_encoder(made_for(EncoderRecord, home.load()().default_encoder, about)).eval()


def made_for(kind: type[EncoderRecord] | type[AugmenterRecord], name: str, about: Mapping[str, Any]) -> Any:
    """Return what is registered under a name, made with what the data say of themselves."""
    record = get_record(kind, name)
    parameters = record.signature().parameters
    with record.blamed():
        return record.load()(**{name: value for name, value in about.items() if name in parameters})


def _home(kind: type[EncoderRecord] | type[AugmenterRecord], subject: Any) -> AdapterRecord | None:
    home = get_record(kind, subject).adapter if isinstance(subject, str) else ""
    return get_record(AdapterRecord, home) if home else None


@cache  # a domain's data may take seconds, and are asked for by the checks of each of its parts
def default_splits(home: AdapterRecord) -> Splits[Data]:
    """Return a domain's default data, loaded once."""
    with home.blamed():
        adapter: Adapter = home.load()()
        return adapter.load(adapter.default_data)


def in_double(inputs: Any) -> Any:
    """Return inputs with their floating tensors in float64, as far as they can be told."""
    if isinstance(inputs, Tensor):
        return inputs.double() if inputs.is_floating_point() else inputs
    if isinstance(inputs, Mapping):
        return {name: in_double(part) for name, part in inputs.items()}
    if isinstance(inputs, (list, tuple)):
        parts = [in_double(part) for part in inputs]
        return type(inputs)(*parts) if hasattr(inputs, "_fields") else type(inputs)(parts)
    if hasattr(inputs, "apply"):  # a batch of graphs
        return copy.copy(inputs).apply(in_double)
    return inputs


def taken(inputs: Any, rows: Tensor) -> Any:
    """Return some rows of a view's inputs.

    Raises:
        NotCheckedError: if the inputs are no tensor, and no mapping or sequence that has a part for each row.
    """
    if isinstance(inputs, Tensor):
        return inputs[rows]
    if isinstance(inputs, Mapping):
        return {name: taken(part, rows) for name, part in inputs.items()}
    if isinstance(inputs, (list, tuple)):
        if any(isinstance(part, Tensor) for part in inputs):  # parts of all rows, such as values and their lengths
            return [taken(part, rows) for part in inputs]
        return [inputs[row] for row in rows.tolist()]
    raise NotCheckedError(f"inputs of type {type(inputs).__name__} cannot be told apart by row")
