"""Pairs: who is compared with whom, by integer keys and without any anchors x candidates matrix.

Shapes: A anchors, C candidates, P positive pairs, D embedding size.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from .block import Block
from .errors import InvalidValueError
from .keys import Keys
from .precision import full_precision
from .prepared import Prepared
from .similarity import Cosine, Similarity
from .values import Encoded

__all__ = ["Pairs"]


@dataclass(frozen=True)
class Pairs:
    """Rows of comparisons: one or more blocks that share their anchors; a row's statistics are merged over blocks.

    Args:
        blocks: their anchors are the same A rows.
        similarity: the method's; `between` takes it from the anchors.
        name: which of a method's objectives this is for, and the prefix of its terms.
        weight: of its loss.
        rows: what the anchors are, for a sampler that wraps the one that made these.
        match: the name of the key by which they were matched, for the same.
        hardness: how much more the negatives that score high count (`HardNegatives`), >= 0; 0: all the same.
        detach_hardness: whether the weights that this gives are constants; the authors' are not.
        positive_prior: the chance that a negative is none (`Debiased`), in [0, 1).
        least_score: the least there can be, which floors a debiased sum; None: minus the similarity's bound.
        anchor_weights: how much each anchor counts in an objective's means, >= 0, [A], without gradient; None: all the
            same. A mean over anchors, or over pairs, becomes the weighted one.
    """

    blocks: tuple[Block, ...]
    similarity: Similarity = field(default_factory=Cosine)
    name: str = ""
    weight: float = 1.0
    rows: Encoded | None = None
    match: str = "ids"
    hardness: float = 0.0
    detach_hardness: bool = False
    positive_prior: float = 0.0
    least_score: float | None = None
    anchor_weights: Tensor | None = None

    def __post_init__(self) -> None:
        lengths = [len(block.anchors) for block in self.blocks]
        if not lengths or len(set(lengths)) > 1:
            raise InvalidValueError(f"the blocks of one Pairs must share their anchors, got blocks of {lengths} rows")
        if not 0 <= self.hardness < float("inf"):
            raise InvalidValueError(f"`hardness` must be >= 0 and finite, got {self.hardness!r}")
        if not 0 <= self.positive_prior < 1:
            raise InvalidValueError(
                f"`positive_prior` must be in [0, 1), got {self.positive_prior!r}; "
                "it is the chance that a random negative is a positive"
            )
        weights = self.anchor_weights
        if weights is not None and (list(weights.shape) != lengths[:1] or not weights.is_floating_point()):
            raise InvalidValueError(
                f"`anchor_weights` must be floating [{lengths[0]}], one per anchor, "
                f"got {weights.dtype} {list(weights.shape)}"
            )

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
        ours = keys_of(anchors)
        theirs = ours if candidates is anchors else keys_of(candidates)
        block = Block(anchors.rows, candidates.rows, ours, theirs)
        similarity = Cosine() if anchors.similarity is None else anchors.similarity
        return cls((block,), similarity, name=name, weight=weight, rows=anchors, match=match)

    @property
    def anchors(self) -> Tensor:
        """The anchors [A, D] of the first block."""
        return self.blocks[0].anchors

    def weighted(self, values: Tensor) -> Tensor:
        """Return a value or a count per anchor [A] times the anchor's weight, as it is where there are no weights."""
        return values if self.anchor_weights is None else values * self.anchor_weights.detach().to(values.device)

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
        with full_precision(self.anchors):
            prepared = Prepared(self.similarity)
            found = [(block, block.positive_slots()) for block in self.blocks]
            scores = [prepared.paired(block, slots) for block, slots in found]
            return torch.cat([anchor for _, (anchor, _) in found]), torch.cat(scores)

    def positive_logits(self, temperature: float) -> tuple[Tensor, Tensor]:
        """Return (anchor index [P], similarity / temperature + log-weight [P]) of the positives, with gradient."""
        index, scores = self.positive_scores()
        logits = scores / temperature
        if any(block.log_weights is not None for block in self.blocks):
            logits = logits + torch.cat([block.positive_log_weights() for block in self.blocks])
        return index, logits

    def per_positive(self) -> "Pairs":
        """Return one row per positive pair: its anchor against that one positive, and all of the anchor's negatives.

        What losses on triplets want. Memory O(P x D), P positive pairs; an anchor without a positive is left out.
        """
        index, anchors, positives = self.positive_index()
        anchors = anchors.to(self.anchors.dtype)
        own = torch.arange(len(index), device=index.device)
        log_weights: Tensor | None = None
        if any(block.log_weights is not None for block in self.blocks):
            log_weights = torch.cat([block.positive_log_weights() for block in self.blocks])[:, None]
        pair = Block(
            anchors,
            positives.to(anchors.dtype),
            Keys(match=torch.zeros_like(own)),
            Keys(match=torch.zeros_like(own)[:, None]),
            index=own[:, None],
            log_weights=log_weights,
        )
        others = [
            replace(
                block,
                anchors=anchors,
                anchor_keys=block.anchor_keys.map(lambda key: key[index]),
                candidate_keys=block.candidate_keys
                if block.index is None
                else block.candidate_keys.map(lambda key: key[index]),
                index=None if block.index is None else block.index[index],
                log_weights=block.log_weights
                if block.index is None or block.log_weights is None
                else block.log_weights[index],
                positives=False,
                rules=tuple(replace(rule, anchors=tuple(part[index] for part in rule.anchors)) for rule in block.rules),
            )
            for block in self.blocks
        ]
        rows = None
        if self.rows is not None:
            of = self.rows
            labels, groups = (None if key is None else key[index] for key in (of.labels, of.groups))
            rows = replace(of, rows=anchors, ids=of.ids[index], copies=of.copies[index], labels=labels, groups=groups)
        weights = None if self.anchor_weights is None else self.anchor_weights[index]
        return replace(self, blocks=(pair, *others), rows=rows, anchor_weights=weights)
