"""Elements inside samples (nodes, time steps, tokens, patches) as rows of their own, for any sampler.

Shapes: M rows of a view, T elements of a padded row, E elements of all rows, D embedding size.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .errors import IncompatibleError
from .keys import key
from .pairs import Pairs
from .sampler import Gives, PairSampler, Wrapper
from .values import Encoded

__all__ = ["Elements", "elements"]


def elements(encoded: Encoded) -> Encoded:
    """Return each existing element as a row.

    A row's id joins its sample's id and the element's `coords` (its place, where the view has none), so that two copies
    of one element are copies of each other wherever they stand in their views. Its group is the sample's id:
    `scope="groups"` compares elements of one sample alone. Labels are the sample's.

    Args:
        encoded: with `dense` [M, T, D] and `valid` [M, T], or `dense` [E, D] and `owner` [E].

    Raises:
        IncompatibleError: if the encoder gave no dense embeddings.
    """
    streams = {name: elements(stream) for name, stream in encoded.streams.items()}
    if encoded.dense is None:
        if encoded.rows is None and streams:  # only the stream was encoded
            return Encoded(None, encoded.ids, encoded.copies, streams=streams, similarity=encoded.similarity)
        raise IncompatibleError(
            "a sampler asks for embeddings of the elements inside samples, and the encoder gives pooled ones alone; "
            "take an encoder whose `encode` fills `dense`"
        )
    owner, place, at = _places(encoded)
    coords = place if encoded.coords is None else encoded.coords.flatten()[at]
    sample = encoded.ids[owner]
    return Encoded(
        rows=encoded.dense.flatten(0, -2)[at],
        ids=key(sample, coords),
        copies=key(encoded.copies[owner] + 1, place),  # key(0, 0) is 0, the copy of a whole sample
        labels=None if encoded.labels is None else encoded.labels[owner],
        groups=sample,
        coords=coords,
        streams=streams,
        similarity=encoded.similarity,
    )


def _places(encoded: Encoded) -> tuple[Tensor, Tensor, Tensor]:
    """Return of every element that exists its row, its place there, and its index in the flattened `dense`, [E] each.

    Of elements laid flat the place is counted over all rows: it tells copies apart as well.
    """
    assert encoded.dense is not None
    device = encoded.dense.device
    if encoded.owner is not None:
        number = torch.arange(len(encoded.owner), device=device)
        return encoded.owner, number, number
    m, t = encoded.dense.shape[:2]
    number = torch.arange(m * t, device=device)
    at = number if encoded.valid is None else number[encoded.valid.flatten()]
    return at // t, at % t, at


class Elements(Wrapper):
    """Have a sampler compare elements instead of samples.

    ``Elements(InBatch())`` is GRACE on nodes: a node's other copy is its positive, every other node a negative.

    Args:
        inner: what compares them. A queue goes around: ``Queue(Elements(Positives("forward")))``.

    Raises:
        IncompatibleError: if the inner sampler keeps embeddings of earlier batches.
    """

    def __init__(self, inner: PairSampler) -> None:
        super().__init__(inner)
        for part in self.inner.modules():
            if isinstance(part, PairSampler) and type(part).commit is not PairSampler.commit:
                name = type(part).__name__
                raise IncompatibleError(
                    f"{name} keeps what it sees and Elements shows it only this batch; write {name}(Elements(...))"
                )

    @property
    def gives(self) -> Gives:
        """What the inner sampler gives; one sample may hold many elements."""
        return replace(self.inner.gives, min_batch=1)

    def compared(self, encoded: Sequence[Encoded]) -> list[Encoded]:
        """Return the elements of the views."""
        return self.inner.compared([elements(view) for view in encoded])

    def pairs(self, encoded: Sequence[Encoded]) -> list[Pairs]:
        """Return the inner sampler's pairs of elements."""
        return self.inner.pairs([elements(view) for view in encoded])
