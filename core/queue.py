"""A queue of past embeddings as further negatives (MoCo's dictionary, cross-batch memory).

Shapes: K entries, D embedding size, A anchors.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .block import Block
from .errors import IncompatibleError, InvalidValueError
from .keys import Keys
from .pairs import Pairs
from .sampler import Gives, PairSampler, Wrapper
from .values import Encoded, across_ranks, stack

__all__ = ["IdQueue", "Queue"]


class Queue(Wrapper):
    """Put the last `size` candidates of earlier steps beside those that `inner` finds, as negatives.

    What is kept is the target's embedding where there is a target, else the anchors' own, detached. An entry is never
    a negative of a row of the same sample: an old copy of oneself is left out by its id. Nor is it a positive, unless
    the inner sampler matches by something else than ids (labels): then entries are matched by it too.
    The queue starts empty and takes any batch size; a batch larger than the queue leaves its newest `size` rows. It
    is the same on every rank (rows enter in rank order), and whole in the state dict: embeddings, ids, labels,
    groups, age, pointer and fill.

    Args:
        inner: the sampler whose pairs are added to. `Positives()` gives MoCo (all negatives from the queue),
            `InBatch()` a memory beside the batch.
        size: how many rows are kept, >= 1.

    Raises:
        InvalidValueError: if `size` is not >= 1.
        IncompatibleError: if there is a queue inside already, or `inner` compares something else than the batch's rows.

    Source:
        He et al. 2020, arXiv:1911.05722; Wang et al. 2020 (cross-batch memory), arXiv:1912.06798. Differs from MoCo's
        code: no random entries at the start, and no division of the queue by the batch is needed.
    """

    rows: Tensor
    keys: Tensor

    def __init__(self, inner: PairSampler, size: int = 65536) -> None:
        super().__init__(inner)
        if size < 1:
            raise InvalidValueError(f"`size` of a queue must be >= 1, got {size!r}")
        name, source = type(self).__name__, type(inner).__name__
        if any(isinstance(part, Queue) for part in self.inside()):
            raise IncompatibleError(
                f"{name} goes around another queue, and rows in both would count twice; take one of the larger size"
            )
        if not inner.gives.own_rows:
            raise IncompatibleError(
                f"{name} puts rows of earlier batches beside this batch's, and {source} compares something else; "
                "take it around InBatch or Positives"
            )
        self.size = size
        self._pointer = 0
        self._fill = 0
        self._commits = 0
        self.register_buffer("rows", torch.zeros(0, 0))  # [size, D] once D is known: from the first batch
        self.register_buffer("keys", torch.full((size, 4), -1))  # ids, labels, groups, and the commit they came with

    @property
    def gives(self) -> Gives:
        """What the inner sampler gives, with negatives."""
        return replace(self.inner.gives, negatives=True, min_batch=1)

    @property
    def fill(self) -> int:
        """How many entries there are, in the first rows of `rows` and `keys`."""
        return self._fill

    def pairs(self, encoded: Sequence[Encoded]) -> list[Pairs]:
        """Return the inner sampler's pairs with one more block: the queue."""
        inner = self.inner.pairs(encoded)
        if not self._fill:
            return inner
        rows = self._embeddings(self.keys[: self._fill, 0], encoded)
        return [pairs.with_blocks([self._block(pairs, rows)]) for pairs in inner]

    @torch.no_grad()
    def commit(self, encoded: Sequence[Encoded]) -> None:
        """Take in this step's candidates of all ranks; the oldest entries make room."""
        _, read = self.reads(len(encoded))
        seen = self.compared(encoded)
        # Gathered view by view: the order is then that of one process, and so is what a full queue lets go.
        new = stack([across_ranks(seen[view].stream("target").detach()) for view in read])
        assert new.rows is not None
        absent = torch.full_like(new.ids, -1)
        given = (absent if key is None else key for key in (new.labels, new.groups))
        keys = torch.stack([new.ids, *given, torch.full_like(new.ids, self._commits)], dim=1)
        rows = self._kept(new.rows[-self.size :])
        if self.rows.shape != (self.size, rows.shape[1]):
            if self._fill:
                raise InvalidValueError(
                    f"the queue holds embeddings of size {self.rows.shape[1]}, and this batch has {rows.shape[1]}"
                )
            self.rows = rows.new_zeros(self.size, rows.shape[1])
        at = (self._pointer + torch.arange(len(rows), device=rows.device)) % self.size
        self.rows[at] = rows.to(self.rows.dtype)
        self.keys[at] = keys[-self.size :]
        self._pointer = (self._pointer + len(rows)) % self.size
        self._fill = min(self._fill + len(rows), self.size)
        self._commits += 1

    def metrics(self) -> dict[str, float]:
        """Return the share of the queue that is filled, and the mean age of its entries in steps."""
        entered = self.keys[: self._fill, 3].double().mean().item() if self._fill else self._commits
        return {"queue_fill": self._fill / self.size, "queue_age": self._commits - entered}

    def get_extra_state(self) -> dict[str, int]:
        """Return pointer and fill for the state dict."""
        return {"pointer": self._pointer, "fill": self._fill, "commits": self._commits, "size": self.size}

    def set_extra_state(self, state: Mapping[str, int]) -> None:
        """Take pointer and fill from the state dict."""
        if state["size"] != self.size:
            raise InvalidValueError(
                f"the saved queue holds {state['size']} entries and this one {self.size}; make it the same size"
            )
        self._pointer, self._fill, self._commits = state["pointer"], state["fill"], state["commits"]

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        saved = state_dict.get(f"{prefix}rows")
        if saved is not None and saved.shape != self.rows.shape and saved.shape[:1] in ((0,), (self.size,)):
            self.rows = self.rows.new_zeros(saved.shape, dtype=saved.dtype)  # D is known only from the first batch on
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def _kept(self, rows: Tensor) -> Tensor:
        """Return what is kept of new embeddings [M, D]."""
        return rows

    def _embeddings(self, ids: Tensor, encoded: Sequence[Encoded]) -> Tensor:
        """Return the embeddings [K, D] of the entries."""
        return self.rows[: self._fill]

    def _block(self, pairs: Pairs, rows: Tensor) -> Block:
        if pairs.rows is None:
            raise IncompatibleError(
                "Queue needs to know which samples the anchors are; build the inner sampler's pairs with Pairs.between"
            )
        anchors = pairs.anchors
        # Filled from the front; once full, every slot counts.
        ids, labels, groups, _ = self.keys[: self._fill].unbind(1)
        rows = rows.to(anchors.dtype)
        ours, theirs = Keys(alias=pairs.rows.ids), Keys(alias=ids)
        if pairs.match != "ids":
            stored = {"labels": labels, "groups": groups}[pairs.match]
            ours, theirs = replace(ours, match=pairs.rows.key(pairs.match)), replace(theirs, match=stored)
        return Block(anchors, rows, ours, theirs)


class IdQueue(Queue):
    """A `Queue` of ids, embedded anew in every step, with gradient: its entries are never stale (CLRec).

    Every process holds the same entries and computes its own anchors' rows against them; nothing is gathered.

    Args:
        inner: the sampler whose pairs are added to.
        encode: ids [K] -> embeddings [K, D]: a module (an item tower, an `nn.Embedding`), which may be part of the
            method's encoder, or a function. Or the name of a stream in which the encoder gives all of them in every
            step, row i that of id i (`Encoded.replicated`).
        size: how many ids are kept, >= 1.

    Raises:
        InvalidValueError: if `size` is not >= 1, or `encode` returns another shape.
        IncompatibleError: as for `Queue`; if no view has such a stream, or it lacks an id.

    Source:
        Zhou et al. 2021, arXiv:2005.12964. The queue starts empty, not with random ids.
    """

    def __init__(self, inner: PairSampler, encode: Callable[[Tensor], Tensor] | str, size: int = 2560) -> None:
        super().__init__(inner, size)
        self.encode = encode

    def _kept(self, rows: Tensor) -> Tensor:
        return rows[:, :0]

    def _embeddings(self, ids: Tensor, encoded: Sequence[Encoded]) -> Tensor:
        embeddings = self._looked_up(self.encode, ids, encoded) if isinstance(self.encode, str) else self.encode(ids)
        if embeddings.ndim != 2 or len(embeddings) != len(ids):
            raise InvalidValueError(
                f"`encode` of an IdQueue must return one embedding per id, [{len(ids)}, D], "
                f"got {list(embeddings.shape)}"
            )
        return embeddings

    @staticmethod
    def _looked_up(stream: str, ids: Tensor, encoded: Sequence[Encoded]) -> Tensor:
        tables = [view.streams[stream] for view in encoded if stream in view.streams]
        if not tables or tables[0].rows is None or not tables[0].replicated:
            found = sorted({name for view in encoded for name in view.streams})
            raise IncompatibleError(
                f"this IdQueue looks its ids up in the replicated stream `{stream}`, and the encodings have {found}; "
                "take an encoder that gives it, or a function as `encode`"
            )
        rows = tables[0].rows
        if not 0 <= int(ids.min()) <= int(ids.max()) < len(rows):
            raise IncompatibleError(
                f"the stream `{stream}` must have a row for every queued id, got {len(rows)} rows and ids from "
                f"{int(ids.min())} to {int(ids.max())}"
            )
        return rows[ids]
