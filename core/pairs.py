"""Pairs: who is compared with whom, by integer keys and without any anchors x candidates matrix.

Shapes: A anchors, C candidates, K candidates of one anchor (with an index), P positive pairs, D embedding size.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor

from .errors import InvalidValueError
from .random import mix
from .similarity import Cosine, Similarity
from .values import Encoded

__all__ = ["Block", "Keys", "Pairs", "key"]


def key(first: Tensor, second: Tensor) -> Tensor:
    """Join two integer keys into one (a sample and a coordinate); -1 in either stays -1, which equals nothing.

    The result is a 63-bit mix: two different pairs meet with a chance of about n^2 / 2^64 among n of them.
    """
    joined = mix(mix(first) + second) & ((1 << 63) - 1)
    return torch.where((first == -1) | (second == -1), -1, joined)


@dataclass(frozen=True)
class Keys:
    """What each row is, in integers; -1 equals nothing. Between an anchor and a candidate they are read in this order.

    Args:
        scope: different: not compared. Absent on either side: everything is compared.
        row: equal: the same embedding, ignored.
        match: equal: a positive.
        alias: equal: ignored. What is left is a negative.
    """

    scope: Tensor | None = None
    row: Tensor | None = None
    match: Tensor | None = None
    alias: Tensor | None = None


@dataclass(frozen=True)
class Block:
    """Anchors against candidates that all of them share, or against K of them each.

    Args:
        anchors: [A, D].
        candidates: [C, D].
        anchor_keys: one integer per anchor, [A].
        candidate_keys: one integer per candidate, [C]; with an index one per slot, [A, K].
        index: which candidates each anchor meets, int64 [A, K]; None: all of them.
        log_weights: added to the logits, [C] or with an index [A, K].

    Raises:
        InvalidValueError: if shapes or dtypes do not fit.
    """

    anchors: Tensor
    candidates: Tensor
    anchor_keys: Keys
    candidate_keys: Keys
    index: Tensor | None = None
    log_weights: Tensor | None = None

    def __post_init__(self) -> None:
        a, c = self.anchors, self.candidates
        if a.ndim != 2 or c.ndim != 2 or a.shape[1] != c.shape[1]:
            raise InvalidValueError(
                f"anchors and candidates must be [A, D] and [C, D] with one D, got {list(a.shape)} and {list(c.shape)}"
            )
        if not a.dtype.is_floating_point or a.dtype != c.dtype:
            raise InvalidValueError(
                f"anchors and candidates must share one floating dtype, got {a.dtype} and {c.dtype}"
            )
        if self.index is not None and (
            self.index.ndim != 2 or len(self.index) != len(a) or self.index.dtype != torch.int64
        ):
            raise InvalidValueError(
                f"the index must be int64 [{len(a)}, K], got {self.index.dtype} {list(self.index.shape)}"
            )
        slots = [len(c)] if self.index is None else list(self.index.shape)
        for keys, shape, whose in (
            (self.anchor_keys, [len(a)], "anchor"),
            (self.candidate_keys, slots, "candidate"),
        ):
            for name in (entry.name for entry in fields(keys)):
                value: Tensor | None = getattr(keys, name)
                if value is not None and (list(value.shape) != shape or value.dtype != torch.int64):
                    raise InvalidValueError(
                        f"the {whose} key `{name}` must be int64 {shape}, got {value.dtype} {list(value.shape)}"
                    )
        if self.log_weights is not None and list(self.log_weights.shape) != slots:
            raise InvalidValueError(f"log_weights must be {slots}, got {list(self.log_weights.shape)}")

    def positive_slots(self) -> tuple[Tensor, Tensor]:
        """Return the positives as (anchor [P], slot [P]), in order of anchors, by a join that walks no tile.

        A slot is a column of the relation: a candidate, or with an index a position in the anchor's row of it.
        """
        if self.anchor_keys.match is None or self.candidate_keys.match is None:
            nothing = torch.zeros(0, dtype=torch.int64, device=self.anchors.device)
            return nothing, nothing
        if self.index is not None:
            anchor, slot = self.relation()[0].nonzero(as_tuple=True)
            return anchor, slot
        match, order = self.candidate_keys.match.sort(stable=True)
        first = torch.searchsorted(match, self.anchor_keys.match)
        last = torch.searchsorted(match, self.anchor_keys.match, right=True)
        count = torch.where(self.anchor_keys.match == -1, 0, last - first)
        anchor = torch.arange(len(count), device=count.device).repeat_interleave(count)
        # Position inside the anchor's run of equal keys, then in the sorted keys, then in the candidates.
        inside = torch.arange(len(anchor), device=count.device) - (count.cumsum(0) - count)[anchor]
        candidate = order[first[anchor] + inside]
        keep = torch.ones_like(anchor, dtype=torch.bool)
        if self.anchor_keys.scope is not None and self.candidate_keys.scope is not None:
            keep &= _same(self.anchor_keys.scope[anchor], self.candidate_keys.scope[candidate])
        if self.anchor_keys.row is not None and self.candidate_keys.row is not None:
            keep &= ~_same(self.anchor_keys.row[anchor], self.candidate_keys.row[candidate])
        return anchor[keep], candidate[keep]

    def positive_index(self) -> tuple[Tensor, Tensor]:
        """Return the positives as (anchor [P], candidate [P]), in order of anchors."""
        anchor, slot = self.positive_slots()
        return anchor, slot if self.index is None else self.index[anchor, slot]

    def positive_log_weights(self) -> Tensor:
        """Return the log-weight of every positive [P], 0 where the block has none."""
        anchor, slot = self.positive_slots()
        if self.log_weights is None:
            return torch.zeros(len(anchor), device=anchor.device)
        return self.log_weights[slot] if self.index is None else self.log_weights[anchor, slot]

    def relation(self) -> tuple[Tensor, Tensor]:
        """Return which slots are positives and which negatives, bool [A, C] or with an index [A, K]."""
        ours, theirs = self.anchor_keys, self.candidate_keys
        slots = (len(self.candidates),) if self.index is None else self.index.shape[1:]
        compared = torch.ones((len(self.anchors), *slots), dtype=torch.bool, device=self.anchors.device)
        if ours.scope is not None and theirs.scope is not None:
            compared &= _same(ours.scope[:, None], theirs.scope)
        if ours.row is not None and theirs.row is not None:
            compared &= ~_same(ours.row[:, None], theirs.row)
        positive = torch.zeros_like(compared)
        if ours.match is not None and theirs.match is not None:
            positive = compared & _same(ours.match[:, None], theirs.match)
        negative = compared & ~positive
        if ours.alias is not None and theirs.alias is not None:
            negative &= ~_same(ours.alias[:, None], theirs.alias)
        return positive, negative


@dataclass(frozen=True)
class Pairs:
    """Rows of comparisons: one or more blocks that share their anchors; a row's statistics are merged over blocks.

    Args:
        blocks: their anchors are the same A rows.
        similarity: the method's; set by it.
        name: which of a method's objectives this is for, and the prefix of its terms.
        weight: of its loss.
        rows: what the anchors are, for a sampler that wraps the one that made these.
        match: the name of the key by which they were matched, for the same.
    """

    blocks: tuple[Block, ...]
    similarity: Similarity = field(default_factory=Cosine)
    name: str = ""
    weight: float = 1.0
    rows: Encoded | None = None
    match: str = "ids"

    def __post_init__(self) -> None:
        lengths = [len(block.anchors) for block in self.blocks]
        if not lengths or len(set(lengths)) > 1:
            raise InvalidValueError(f"the blocks of one Pairs must share their anchors, got blocks of {lengths} rows")

    @classmethod
    def between(
        cls,
        anchors: Encoded,
        candidates: Encoded,
        *,
        match: str = "ids",
        scope: str | None = None,
        alias: str | None = None,
        name: str = "",
        weight: float = 1.0,
    ) -> "Pairs":
        """Compare every anchor with every candidate but its own copy.

        Args:
            anchors: of this rank.
            candidates: of all ranks (`across_ranks`), or of this one.
            match: the key whose equality makes a positive: ids, labels or groups.
            scope: the key whose difference forbids the comparison.
            alias: the key whose equality keeps a pair from being a negative.
            name: see `Pairs`.
            weight: see `Pairs`.
        """

        def keys_of(encoded: Encoded) -> Keys:
            return Keys(
                scope=None if scope is None else encoded.key(scope),
                row=encoded.copies,
                match=encoded.key(match),
                alias=None if alias is None else encoded.key(alias),
            )

        if anchors.rows is None or candidates.rows is None:
            raise InvalidValueError("Pairs.between compares pooled rows [M, D], and an encoding here has none")
        block = Block(anchors.rows, candidates.rows, keys_of(anchors), keys_of(candidates))
        return cls((block,), name=name, weight=weight, rows=anchors, match=match)

    @property
    def anchors(self) -> Tensor:
        """The anchors [A, D] of the first block."""
        return self.blocks[0].anchors

    def with_blocks(self, more: Iterable[Block]) -> "Pairs":
        """Return these rows compared with further candidates."""
        return replace(self, blocks=(*self.blocks, *more))

    def positive_index(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return all positives as (anchor index [P], anchors [P, D], candidates [P, D]), by a key join alone.

        An anchor stands once for each of its positives, in order of blocks, then of anchors. Half-precision embeddings
        come out as float32: what is summed over them should be.
        """
        found = [(block, *block.positive_index()) for block in self.blocks]
        dtype = torch.promote_types(self.anchors.dtype, torch.float32)
        return (
            torch.cat([anchor for _, anchor, _ in found]),
            torch.cat([block.anchors[anchor] for block, anchor, _ in found]).to(dtype),
            torch.cat([block.candidates[candidate] for block, _, candidate in found]).to(dtype),
        )

    def aligned(self) -> tuple[Tensor, Tensor]:
        """Return each anchor beside its positive, [P, D] and [P, D]: all that BYOL, VICReg or SwAV need."""
        _, anchors, positives = self.positive_index()
        return anchors, positives

    def positive_scores(self) -> tuple[Tensor, Tensor]:
        """Return (anchor index [P], similarity [P]) of every positive pair, with gradient."""
        index, anchors, positives = self.positive_index()
        with torch.autocast(anchors.device.type, enabled=False):
            return index, self.similarity.paired(anchors, positives)

    def positive_logits(self, temperature: float) -> tuple[Tensor, Tensor]:
        """Return (anchor index [P], similarity / temperature + log-weight [P]) of the positives, with gradient."""
        index, scores = self.positive_scores()
        logits = scores / temperature
        if any(block.log_weights is not None for block in self.blocks):
            logits = logits + torch.cat([block.positive_log_weights() for block in self.blocks])
        return index, logits


def _same(first: Tensor, second: Tensor) -> Tensor:
    return (first == second) & (first != -1)
