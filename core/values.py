"""The values that flow through a step: Batch -> View -> Encoded (Pairs and Loss have files of their own).

Shapes: B samples in a batch, M rows of a view (M >= B), D embedding size, T elements inside a sample.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from .distributed import all_gather, rank, row_counts
from .errors import IncompatibleError, InvalidValueError
from .loss import Loss

if TYPE_CHECKING:
    from .similarity import Similarity

__all__ = ["Batch", "Encoded", "View", "across_ranks", "embedded", "stack", "to_device"]


V = TypeVar("V", "Batch", "View")


@dataclass(frozen=True)
class Batch:
    """What an adapter's collate makes of B samples.

    Args:
        inputs: opaque to the core: a tensor, a mapping of tensors, a graph batch.
        ids: which samples these are, int64 [B]; stable over epochs and ranks.
        labels: classes, int64 [B].
        groups: speaker, document or series of each sample, int64 [B].
    """

    inputs: Any
    ids: Tensor
    labels: Tensor | None = None
    groups: Tensor | None = None

    def __post_init__(self) -> None:
        _check_keys(ids=self.ids, labels=self.labels, groups=self.groups)

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device) -> "Batch":
        """Return the batch with all its tensors on `device`."""
        return _moved(self, lambda part: to_device(part, device))

    def pin_memory(self) -> "Batch":
        """Return the batch in page-locked memory; a loader calls it."""
        return _moved(self, lambda part: _each(part, "pin_memory"))


@dataclass(frozen=True)
class View:
    """One augmented copy of a batch.

    Args:
        inputs: what the tower reads.
        ids: whose copy each row is, int64 [M]; M may exceed B (several crops or hard negatives of one sample).
        labels: classes, int64 [M].
        groups: int64 [M].
        tower: which of the method's encoders reads it, where there are several.
        valid: which elements inside a sample exist, bool [M, T].
        coords: each kept element's index in the unaugmented sample, int64 [M, T], or flat where the inputs lay elements
            flat (the nodes of a batch of graphs); a crop offset is nothing else.
        masked: which elements are prediction targets, bool [M, T].
    """

    inputs: Any
    ids: Tensor
    labels: Tensor | None = None
    groups: Tensor | None = None
    tower: str = ""
    valid: Tensor | None = None
    coords: Tensor | None = None
    masked: Tensor | None = None

    def __post_init__(self) -> None:
        _check_keys(ids=self.ids, labels=self.labels, groups=self.groups)

    def to(self, device: torch.device) -> "View":
        """Return the view with all its tensors on `device`."""
        return _moved(self, lambda part: to_device(part, device))

    def pin_memory(self) -> "View":
        """Return the view in page-locked memory; a loader calls it."""
        return _moved(self, lambda part: _each(part, "pin_memory"))

    @classmethod
    def of(cls, batch: Batch, inputs: Any) -> "View":
        """Return a view with one row per sample of `batch`."""
        return cls(inputs, batch.ids, batch.labels, batch.groups)


@dataclass(frozen=True)
class Encoded:
    """What a tower makes of a view: one embedding per row, and the keys that say what each row is.

    Args:
        rows: embeddings [M, D]; None where only a stream was encoded (a momentum method's key view).
        ids: the sample each row comes from, int64 [M].
        copies: the augmented copy each row embeds, int64 [M], unique over views and ranks; the online and the target
            embedding of one copy share it, so that no row is compared with its own copy.
        labels: classes, int64 [M].
        groups: int64 [M].
        dense: one embedding per element, [M, T, D], or flat [E, D] with `owner` (nodes of a batch of graphs).
        owner: the row that each flat element belongs to, int64 [E], ascending.
        valid: which elements exist, bool [M, T].
        coords: original index of every element, int64 [M, T], or flat as in the view.
        streams: further encodings by name: of the same rows (`"target"`), or of something else that the encoder made.
        replicated: the rows belong to no batch but are the same on every process and in every micro-batch (a table of
            all items, prototypes): they are never gathered, joined or cut. Their gradient is added up as any other.
        auxiliary: what the encoder itself adds to the loss (a codebook's diversity, lengths to hold small), and metrics
            of its own. Terms of one name are added up over the views that the trained towers encode, sums and counts:
            a mean over rows is the mean over the rows of all views. That of a stream is not read.
        similarity: the method's, by which a sampler that looks at scores must take them; None: the cosine.
    """

    rows: Tensor | None
    ids: Tensor
    copies: Tensor
    labels: Tensor | None = None
    groups: Tensor | None = None
    dense: Tensor | None = None
    owner: Tensor | None = None
    valid: Tensor | None = None
    coords: Tensor | None = None
    streams: Mapping[str, "Encoded"] = field(default_factory=dict)
    replicated: bool = False
    auxiliary: Loss | None = None
    similarity: "Similarity | None" = None

    def stream(self, name: str) -> "Encoded":
        """Return the stream called `name`; without one, this encoding itself plays that part."""
        return self.streams.get(name, self)

    def key(self, name: str) -> Tensor:
        """Return the key tensor called `name` (ids, copies, labels, groups), int64 [M].

        Raises:
            IncompatibleError: if the batch carries no such key.
        """
        if name not in ("ids", "copies", "labels", "groups"):
            raise InvalidValueError(f"a key must be one of ids, copies, labels, groups, got {name!r}")
        value: Tensor | None = getattr(self, name)
        if value is None:
            raise IncompatibleError(
                f"pairs by `{name}` need a batch that carries `{name}`, and this one has none; "
                f"give the data set {name} or pair by ids"
            )
        return value

    def detach(self) -> "Encoded":
        """Return the same values cut from the graph, streams included, without what they add to the loss."""
        streams = {name: stream.detach() for name, stream in self.streams.items()}
        return replace(self, rows=_detach(self.rows), dense=_detach(self.dense), streams=streams, auxiliary=None)


def embedded(
    *rows: Tensor, ids: Tensor | None = None, labels: Tensor | None = None, groups: Tensor | None = None
) -> list[Encoded]:
    """Dress plain embeddings as the encoded views of one batch, for use of samplers and objectives by themselves.

    ``InfoNCE(0.1)(kt.InBatch().pairs(kt.embedded(z1, z2))[0])``

    Args:
        rows: one [B, D] per view; row i of each is a copy of sample i.
        ids: the samples, int64 [B]; without it they are numbered, differently on every rank.
        labels: classes, int64 [B].
        groups: int64 [B].

    Raises:
        InvalidValueError: if the shapes differ.
    """
    views: list[Encoded] = []
    offset = rank() << 40
    for view in rows:
        if view.ndim != 2 or view.shape != rows[0].shape:
            shapes = [list(other.shape) for other in rows]
            raise InvalidValueError(f"embeddings must be one [B, D] per view, all of one shape, got {shapes}")
        copies = torch.arange(len(view), device=view.device) + (offset + len(views) * len(view))
        own_ids = torch.arange(len(view), device=view.device) + offset if ids is None else ids
        views.append(Encoded(view, own_ids, copies, labels, groups))
    return views


def stack(encoded: Sequence[Encoded], stream: str | None = None) -> Encoded:
    """Join the rows of several encoded views, in their order.

    Args:
        encoded: the views; those without rows are left out.
        stream: take this stream of each view (a view without it stands for itself).

    Raises:
        IncompatibleError: if no view has rows.
    """
    parts = [view if stream is None else view.stream(stream) for view in encoded]
    parts = [part for part in parts if part.rows is not None]
    if not parts:
        raise IncompatibleError("stack needs a view with pooled rows [M, D], and none of these has any")
    if len(parts) == 1:
        return parts[0]

    def join(field_of: Callable[[Encoded], Tensor | None]) -> Tensor | None:
        values = [value for part in parts if (value := field_of(part)) is not None]
        return torch.cat(values) if len(values) == len(parts) else None

    return Encoded(
        rows=join(lambda part: part.rows),
        ids=torch.cat([part.ids for part in parts]),
        copies=torch.cat([part.copies for part in parts]),
        labels=join(lambda part: part.labels),
        groups=join(lambda part: part.groups),
        similarity=parts[0].similarity,
    )


def across_ranks(encoded: Encoded) -> Encoded:
    """Join the pooled rows of all ranks in rank order, with their keys and with gradient.

    The backward of the gather is the sum over ranks of what each one's loss asks of a row, so a loss over local anchors
    and gathered candidates has the exact gradient of the joined batch. What is replicated is returned as it is.
    """
    if encoded.rows is None:
        raise IncompatibleError("across_ranks gathers pooled rows [M, D], and this encoding has none")
    if encoded.replicated:
        return encoded
    counts = row_counts(encoded.rows)
    if len(counts) == 1:
        return encoded
    rows = all_gather(encoded.rows, counts)
    keys = [encoded.ids, encoded.copies, encoded.labels, encoded.groups]
    gathered = iter(all_gather(torch.stack([key for key in keys if key is not None], dim=1), counts).unbind(1))
    ids, copies, labels, groups = (None if key is None else next(gathered) for key in keys)
    assert ids is not None
    assert copies is not None
    return Encoded(rows, ids, copies, labels, groups, similarity=encoded.similarity)


def to_device(value: Any, device: torch.device) -> Any:
    """Move a tensor, what has `.to`, or a mapping or sequence of them; anything else is returned as it is."""
    return _each(value, "to", device)


def _each(value: Any, method: str, *arguments: Any) -> Any:
    """Call `method` of a tensor or of anything that has it, else of each part of a mapping or sequence."""
    if isinstance(value, Tensor) and method == "to":
        return value.to(arguments[0], non_blocking=True)
    if isinstance(value, Tensor) and (value.device.type != "cpu" or value.layout != torch.strided):
        return value  # only plain memory of the host can be page-locked
    if hasattr(value, method):  # before the containers: a packed sequence or a tokenizer's mapping moves itself
        return getattr(value, method)(*arguments)
    if isinstance(value, Mapping):
        return {name: _each(part, method, *arguments) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        parts = [_each(part, method, *arguments) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def _moved(value: V, move: Callable[[Any], Any]) -> V:
    """Return a Batch or View with `move` applied to each of its parts that is not a plain string."""
    parts: dict[str, Any] = {entry.name: getattr(value, entry.name) for entry in fields(value)}
    return replace(
        value, **{name: move(part) for name, part in parts.items() if not isinstance(part, (str, type(None)))}
    )


def _detach(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach()


def _check_keys(ids: Tensor, **others: Tensor | None) -> None:
    rows = len(ids) if isinstance(ids, Tensor) and ids.ndim else None
    for name, key in {"ids": ids, **others}.items():
        if key is None:
            continue
        if not isinstance(key, Tensor) or key.dtype != torch.int64 or key.ndim != 1 or len(key) != rows:
            found = f"{key.dtype} {list(key.shape)}" if isinstance(key, Tensor) else type(key).__name__
            shape = "[M]" if rows is None else f"[{rows}]"
            raise InvalidValueError(f"`{name}` must be an int64 tensor {shape}, one per row, got {found}")
