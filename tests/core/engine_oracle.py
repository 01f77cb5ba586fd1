"""What the contrast engine should find, in plain loops over Python floats: torch is only read from.

Definitions: the docstrings of `Keys`, `Block`, `RowStatistics`, `row_sums`, `top_negatives` and of each similarity; the
hard and debiased sums as in arXiv:2010.04592 and 2007.00224.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import kontrast as kt

__all__ = ["Cell", "NumberRule", "cells", "log_sum_exp", "score", "statistics", "sums", "top"]

Numbers = Sequence[float]


def dot(first: Numbers, second: Numbers) -> float:
    return math.fsum(x * y for x, y in zip(first, second, strict=True))


def log_sum_exp(values: Numbers) -> float:
    largest = max(values, default=-math.inf)
    if largest == -math.inf:
        return -math.inf
    return largest + math.log(math.fsum(math.exp(value - largest) for value in values))


def scale(similarity: kt.LearnedTemperature) -> float:
    return min(math.exp(similarity.log_inverse_temperature.item()), similarity.largest)


def score(similarity: kt.Similarity, a: Numbers, c: Numbers) -> float:
    """Return the score of one anchor and one candidate."""
    match similarity:
        case kt.LearnedTemperature():
            bias = 0.0 if similarity.bias is None else similarity.bias.item()
            return score(similarity.similarity, a, c) * scale(similarity) + bias
        case kt.MLP():
            first, second, out = similarity.anchor, similarity.candidate, similarity.out
            hidden = [
                dot(weights, a) + dot(other, c) + bias
                for weights, other, bias in zip(
                    first.weight.tolist(), second.weight.tolist(), first.bias.tolist(), strict=True
                )
            ]
            return dot(out.weight.tolist()[0], [max(h, 0.0) for h in hidden]) + out.bias.item()
        case kt.Bilinear():
            return dot(a, [dot(row, c) for row in similarity.weight.tolist()])
        case kt.NegativeDistance():
            return -math.sqrt(math.fsum((x - y) ** 2 for x, y in zip(a, c, strict=True)))
        case kt.NegativeSquaredDistance():
            return -math.fsum((x - y) ** 2 for x, y in zip(a, c, strict=True))
        case kt.Cosine():
            lengths = math.sqrt(dot(a, a)) * math.sqrt(dot(c, c))
            return dot(a, c) / lengths if lengths else 0.0
        case kt.Dot():
            return dot(a, c)
        case _:
            raise NotImplementedError(type(similarity))


def bound(similarity: kt.Similarity) -> float:
    if isinstance(similarity, kt.LearnedTemperature):
        return scale(similarity) * bound(similarity.similarity)
    assert isinstance(similarity, kt.Cosine)
    return 1.0


class NumberRule:
    """A rule's function, for tensors and for numbers: what scores above `limit` + the sides' values counts less.

    Args:
        limit: see above.
        added: what is added to the logit of such a negative; -inf: it is ignored.
    """

    def __init__(self, limit: float, added: float) -> None:
        self.limit, self.added = limit, added

    def __call__(self, scores: Tensor, anchors: tuple[Tensor, ...], candidates: tuple[Tensor, ...]) -> Tensor:
        assert not torch.is_grad_enabled()
        limit = torch.full_like(scores, self.limit)
        for part in anchors:
            limit = limit + part[..., :, None]
        for part in candidates:
            limit = limit + part[..., None, :]
        return torch.zeros_like(scores).masked_fill(scores > limit, self.added)

    def number(self, score: float, anchor: Numbers, candidate: Numbers) -> float:
        return self.added if score > self.limit + sum(anchor) + sum(candidate) else 0.0


@dataclass(frozen=True)
class Cell:
    """A positive, or a negative that counts."""

    block: int
    slot: int
    positive: bool
    score: float
    log_weight: float


def cells(pairs: kt.Pairs) -> list[list[Cell]]:
    """Return what each anchor is compared with, over all blocks."""
    rows: list[list[Cell]] = [[] for _ in range(len(pairs.anchors))]
    for n, block in enumerate(pairs.blocks):
        anchors, candidates = block.anchors.tolist(), block.candidates.tolist()
        index = None if block.index is None else block.index.tolist()
        weights = None if block.log_weights is None else block.log_weights.tolist()
        keys = _keys(block)
        for i, row in enumerate(rows):
            for slot in range(len(candidates) if index is None else len(index[i])):
                c = slot if index is None else index[i][slot]
                kind = _kind(block, keys, i, slot)
                if kind == "ignored":
                    continue
                value = score(pairs.similarity, anchors[i], candidates[c])
                added = 0.0 if weights is None else weights[slot] if index is None else weights[i][slot]
                if kind == "negative":  # rules say which negatives count
                    for rule in block.rules:
                        assert isinstance(rule.function, NumberRule)
                        sides = [float(part[i]) for part in rule.anchors], [float(part[c]) for part in rule.candidates]
                        added += rule.function.number(value, *sides)
                if added > -math.inf:
                    row.append(Cell(n, slot, kind == "positive", value, added))
    return rows


def _keys(block: kt.Block) -> dict[str, tuple[list[int], list[int] | list[list[int]]]]:
    found = {}
    for name in ("scope", "row", "match", "alias"):
        ours, theirs = getattr(block.anchor_keys, name), getattr(block.candidate_keys, name)
        if ours is not None and theirs is not None:
            found[name] = (ours.tolist(), theirs.tolist())
    return found


def _kind(block: kt.Block, keys: dict[str, tuple[list[int], list[int] | list[list[int]]]], i: int, slot: int) -> str:
    def equal(name: str) -> bool | None:
        if name not in keys:
            return None
        ours, theirs = keys[name]
        entry = theirs[slot] if block.index is None else theirs[i]
        other = entry[slot] if isinstance(entry, list) else entry
        return ours[i] == other and other != -1

    if equal("scope") is False or equal("row"):
        return "ignored"
    if equal("match"):
        return "positive" if block.positives else "ignored"
    return "ignored" if equal("alias") or not block.negatives else "negative"


def statistics(pairs: kt.Pairs, temperature: float, *, held: kt.Pairs | None = None) -> dict[str, list[float]]:
    """Return every row statistic.

    Args:
        pairs: who is compared with whom.
        temperature: what scores are divided by.
        held: take the hardness weights (if they are detached) and the floor of the debiased sum from these pairs, as
            constants: the slope of the result is then what the gradient should be.
    """
    found: dict[str, list[float]] = {
        name: []
        for name in (
            "positive_count",
            "negative_count",
            "positive_mean",
            "positive_logsumexp",
            "negative_logsumexp",
            "logsumexp",
        )
    }
    rows = cells(pairs)
    fixed = rows if held is None else cells(held)
    for row, constant in zip(rows, fixed, strict=True):
        positives = [cell.score / temperature + cell.log_weight for cell in row if cell.positive]
        negatives = [cell for cell in row if not cell.positive]
        weighing = [cell for cell in constant if not cell.positive] if pairs.detach_hardness else negatives
        negative = _estimate(pairs, temperature, positives, negatives, weighing, held or pairs)
        found["positive_count"].append(len(positives))
        found["negative_count"].append(len(negatives))
        found["positive_mean"].append(math.fsum(positives) / len(positives) if positives else 0.0)
        found["positive_logsumexp"].append(log_sum_exp(positives))
        found["negative_logsumexp"].append(negative)
        found["logsumexp"].append(log_sum_exp([found["positive_logsumexp"][-1], negative]))
    return found


def _estimate(
    pairs: kt.Pairs,
    temperature: float,
    positives: Numbers,
    negatives: Sequence[Cell],
    weighing: Sequence[Cell],
    held: kt.Pairs,
) -> float:
    if not negatives:
        return -math.inf
    n = math.fsum(math.exp(cell.log_weight) for cell in negatives)
    # Every negative's exponential times its hardness weight, whose mean is 1; exponents are taken off a common top.
    h = pairs.hardness
    top = max(cell.score for cell in weighing) / temperature
    raw = [math.exp(h * (cell.score / temperature - top)) for cell in weighing]
    mean = math.fsum(w * math.exp(cell.log_weight) for w, cell in zip(raw, weighing, strict=True)) / n
    logits = [
        cell.score / temperature + cell.log_weight + math.log(w / mean)
        for w, cell in zip(raw, negatives, strict=True)
        if w > 0
    ]
    hard = log_sum_exp(logits)
    p = pairs.positive_prior
    if not p:
        return hard
    expected = math.fsum(math.exp(logit) for logit in positives) / len(positives) if positives else 0.0
    least = -bound(held.similarity) if pairs.least_score is None else pairs.least_score
    return math.log(max((math.exp(hard) - n * p * expected) / (1 - p), n * math.exp(least / temperature)))


def sums(
    rows: Sequence[Sequence[Cell]],
    function: Callable[[float], float],
    *,
    of: str,
    temperature: float,
    offset: Numbers | None = None,
) -> list[float]:
    """Return for every anchor the sum of function(logit - offset) over its cells."""
    return [
        math.fsum(
            function(cell.score / temperature + cell.log_weight - (0.0 if offset is None else offset[i]))
            for cell in row
            if cell.positive == (of == "positive")
        )
        for i, row in enumerate(rows)
    ]


def top(pairs: kt.Pairs, k: int, *, lowest: bool = False) -> list[list[Cell]]:
    """Return the k negatives of every anchor that come first."""
    return [
        sorted((cell for cell in row if not cell.positive), key=lambda c: c.score if lowest else -c.score)[:k]
        for row in cells(pairs)
    ]
