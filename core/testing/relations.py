"""Who a sampler compares with whom, read off the embeddings: every row of every batch is known by its numbers.

Shapes: V views, N samples, D embedding size, A anchors, C candidates, K slots of an anchor.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from kontrast import Block, Encoded, Pairs, Similarity, elements

from .scene import SIZE, dressed

__all__ = ["KEYS", "Compared", "Dress", "Row", "Step", "compared", "element", "relations", "steps"]


Dress = Callable[[list[Encoded]], list[Encoded]]


class Row(NamedTuple):
    """Which embedding a row is; a target's of a copy goes by the copy, one of another stream by its id there, one of
    the element inside a sample by the stream `dense`.
    """

    step: int
    sample: int
    view: int
    stream: str = ""


class Compared(NamedTuple):
    """One comparison; None stands for a row that no batch had."""

    anchor: Row | None
    candidate: Row | None
    positive: bool
    match: str


# The keys that `dressed` gives a sample, in words.
KEYS: dict[str, Callable[[int], int]] = {"ids": lambda s: s, "labels": lambda s: s // 2, "groups": lambda s: s % 2}


@dataclass(frozen=True)
class Step:
    """One batch, and the rows of all batches so far by their bytes."""

    encoded: list[Encoded]
    rows: dict[bytes, Row]


def steps(
    sizes: Sequence[int],
    *,
    seed: int = 0,
    views: int = 2,
    target: bool = False,
    mine: Sequence[slice] = (),
    dress: Dress | None = None,
) -> Iterator[Step]:
    """Yield batches of these sizes; the ids come again in later ones.

    Args:
        sizes: samples of each batch.
        seed: of the embeddings.
        views: V.
        target: whether every view has a stream `target`, of other embeddings.
        mine: which samples of each batch are there, where not all are; the rows of all are known.
        dress: adds streams, whose rows are known too.
    """
    generator = torch.Generator().manual_seed(seed)
    known: dict[bytes, Row] = {}
    for number, size in enumerate(sizes):
        ids = torch.randperm(max(*sizes, 12), generator=generator)[:size]
        online, other = (torch.randn(views, size, SIZE, dtype=torch.float64, generator=generator) for _ in range(2))
        for part in (online, other):
            for view, rows in enumerate(part):
                for sample, row in zip(ids.tolist(), rows, strict=True):
                    known[_bytes(row)] = Row(number, sample, view)
        own = mine[number] if mine else slice(None)

        def samples(of: slice, online: Tensor = online, other: Tensor = other, ids: Tensor = ids) -> list[Encoded]:
            encoded = [element(view) for view in dressed(online[:, of], ids[of])]
            if target:
                streams = [element(view) for view in dressed(other[:, of], ids[of])]
                encoded = [
                    replace(e, streams={"target": replace(s, copies=e.copies)})
                    for e, s in zip(encoded, streams, strict=True)
                ]
            return encoded if dress is None else dress(encoded)

        for view, encoded in enumerate(samples(slice(None))):
            for holder in (encoded, *encoded.streams.values()):
                inside = elements(replace(holder, streams={})) if holder.dense is not None else None
                if inside is not None and inside.rows is not None and inside.groups is not None:
                    for sample, row in zip(inside.groups.tolist(), inside.rows, strict=True):
                        known.setdefault(_bytes(row), Row(number, sample, view, "dense"))
            for name, stream in encoded.streams.items():
                for sample, row in zip(stream.ids.tolist(), () if stream.rows is None else stream.rows, strict=False):
                    known.setdefault(_bytes(row), Row(number, sample, view, name))
        yield Step(samples(own), known)


def element(encoded: Encoded) -> Encoded:
    """Return a view whose samples have one element inside each, its row read backwards."""
    assert encoded.rows is not None
    return replace(encoded, dense=encoded.rows.flip(1)[:, None])


def compared(pairs: Sequence[Pairs], step: Step) -> Iterator[Compared]:
    """Yield every comparison that counts, once for each block that has it."""
    for part in pairs:
        for block in part.blocks:
            anchors, candidates = (
                [step.rows.get(_bytes(row)) for row in rows] for rows in (block.anchors, block.candidates)
            )
            positive, negative = block.relation()
            negative = negative & _counted(block, part.similarity)
            for mask, is_positive in ((positive, True), (negative, False)):
                for i, slot in mask.nonzero().tolist():
                    j = slot if block.index is None else int(block.index[i, slot])
                    yield Compared(anchors[i], candidates[j], is_positive, part.match)


def relations(pairs: Sequence[Pairs], step: Step) -> Counter[Compared]:
    """Return how often each comparison is made."""
    return Counter(compared(pairs, step))


@torch.no_grad()
def _counted(block: Block, similarity: Similarity) -> Tensor:
    """Return which negatives are not weighed down to nothing by log-weights and rules, bool [A, C] or [A, K]."""
    index = block.index
    anchors = block.anchors if index is None else block.anchors[:, None]
    scores = similarity.scores(anchors, block.candidates if index is None else block.candidates[index])
    weights = torch.zeros_like(scores)
    for rule in block.rules:
        ours = tuple(part if index is None else part[:, None] for part in rule.anchors)
        theirs = tuple(part if index is None else part[index] for part in rule.candidates)
        weights = weights + rule.function(scores, ours, theirs)
    if index is not None:
        weights = weights[:, 0]
    if block.log_weights is not None:
        weights = weights + block.log_weights
    return weights > -torch.inf


def _bytes(row: Tensor) -> bytes:
    return row.detach().double().contiguous().numpy().tobytes()
