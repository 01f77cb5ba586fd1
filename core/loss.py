"""The value an objective returns: terms of sum and count, so that a mean over ranks is the mean over all rows."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor

from .distributed import world_size
from .errors import InvalidValueError

__all__ = ["Loss", "Reduced", "Term"]


@dataclass(frozen=True)
class Term:
    """One summand of a loss: weight x (sum over ranks of `sum`) / (sum over ranks of `count`).

    Args:
        name: what it is called in the metrics.
        sum: this rank's part, a scalar with gradient.
        count: what this rank's part is divided by, a scalar; None: a plain sum over ranks.
        weight: its factor in the loss.
    """

    name: str
    sum: Tensor
    count: Tensor | float | None
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.sum.ndim:
            raise InvalidValueError(
                f"the sum of term `{self.name}` must be a scalar, got {list(self.sum.shape)}; sum over the rows"
            )


@dataclass(frozen=True)
class Reduced:
    """A loss after the ranks were asked for their sums and counts.

    Args:
        backward: what this rank calls backward on, so that DDP's average is the exact gradient.
        value: the loss of the joined batch, detached, the same on every rank.
        terms: each term's and metric's value over all ranks, unweighted, detached.
        rows: what the terms' sums are divided by, together, over all ranks: the rows (or pairs) that counted, where
            anchors are weighed their weights.
    """

    backward: Tensor
    value: Tensor
    terms: dict[str, Tensor]
    rows: Tensor


@dataclass(frozen=True)
class Loss:
    """A tuple of terms, and metrics that travel with it but do not count."""

    terms: tuple[Term, ...]
    metrics: tuple[Term, ...] = ()

    def __float__(self) -> float:
        """Return the loss of the joined batch as a number; on several processes all of them ask for it."""
        return float(self.reduced().value)

    @classmethod
    def over_rows(
        cls,
        values: Tensor,
        valid: Tensor | None = None,
        *,
        weights: Tensor | None = None,
        name: str = "loss",
        weight: float = 1.0,
    ) -> "Loss":
        """Return the mean of a value per row as one term; how many rows were left out is a metric.

        Args:
            values: [A], in nats where it is a likelihood.
            valid: which rows count, bool [A]; the others contribute nothing, whatever their value.
            weights: how much each row counts (`Pairs.anchor_weights`), [A], without gradient; None: all the same.
            name: of the term.
            weight: of the term.
        """
        if values.ndim != 1:
            raise InvalidValueError(f"a loss over rows must be one value per row [A], got {list(values.shape)}")
        if valid is not None and (valid.shape != values.shape or valid.dtype != torch.bool):
            raise InvalidValueError(
                f"`valid` must be bool {list(values.shape)}, one per value, got {valid.dtype} {list(valid.shape)}"
            )
        if weights is not None and weights.shape != values.shape:
            raise InvalidValueError(f"`weights` must be {list(values.shape)}, one per value, got {list(weights.shape)}")
        values = values.to(torch.promote_types(values.dtype, torch.float32))  # a half-precision sum overflows
        count: Tensor | float = float(len(values)) if valid is None else valid.sum()
        if valid is not None:
            # `where` keeps an invalid row's inf or nan out of the sum and, its gradient being zero, of the gradient.
            values = torch.where(valid, values, 0.0)
        if weights is not None:
            weights = weights.detach().to(values)
            values = values * weights
            count = weights.sum() if valid is None else torch.where(valid, weights, 0.0).sum()
        return cls((Term(name, values.sum(), count, weight),), () if valid is None else (cls.left_out(~valid),))

    @staticmethod
    def left_out(rows: Tensor) -> Term:
        """Return the metric that counts, over all ranks, the anchors that contribute nothing.

        They lack a positive, or what else the objective asks of an anchor.

        Args:
            rows: which they are, bool [A].
        """
        return Term("anchors_left_out", rows.sum(dtype=torch.float64), None)

    @classmethod
    def sum_of(cls, losses: Iterable["Loss"]) -> "Loss":
        """Return the sum of several losses; terms of one name stay apart, each with its own count."""
        parts = list(losses)
        return cls(
            tuple(term for part in parts for term in part.terms),
            tuple(metric for part in parts for metric in part.metrics),
        )

    def scaled(self, weight: float, *, prefix: str = "") -> "Loss":
        """Return the loss times `weight`, its terms' names behind `prefix`."""
        if weight == 1 and not prefix:
            return self
        return Loss(
            tuple(replace(term, name=prefix + term.name, weight=term.weight * weight) for term in self.terms),
            tuple(replace(metric, name=prefix + metric.name) for metric in self.metrics),
        )

    def merged(self) -> "Loss":
        """Return the loss with terms of one name and weight made one, whose sum and count are theirs together."""

        def one(terms: Iterable[Term]) -> tuple[Term, ...]:
            alike: dict[tuple[str, float, bool], list[Term]] = {}
            for term in terms:
                alike.setdefault((term.name, term.weight, term.count is None), []).append(term)
            return tuple(
                replace(
                    same[0],
                    sum=torch.stack([term.sum for term in same]).sum(),
                    count=None if plain else sum(term.count for term in same if term.count is not None),
                )
                for (_, _, plain), same in alike.items()
            )

        return Loss(one(self.terms), one(self.metrics))

    def reduced(self) -> Reduced:
        """Add up sums and counts over the ranks, in one all-reduce.

        A rank's share of the gradient is W x sum over terms of weight x sum_r / N, with N the count of all ranks, a
        constant; the average that DDP takes is then exact, for uneven ranks too.
        """
        entries = (*self.terms, *self.metrics)
        if not self.terms:
            raise InvalidValueError("a loss must have at least one term, got none; the sampler returned no pairs?")
        device = self.terms[0].sum.device
        parts = [e.sum for e in entries] + [0.0 if e.count is None else e.count for e in entries]
        totals = torch.stack([torch.as_tensor(part, dtype=torch.float64, device=device).detach() for part in parts])
        world = world_size()
        if world > 1:
            dist.all_reduce(totals)
        sums, counts = totals.split(len(entries))
        plain = [e.count is None for e in entries]
        if any(plain):  # a plain sum is divided by one
            counts = torch.where(torch.tensor(plain, device=device), 1.0, counts)
        divisors = torch.where(counts == 0, 1.0, counts)  # a term that no rank has a row for is 0 / 1
        means = sums / divisors
        weights = torch.tensor([term.weight for term in self.terms], dtype=torch.float64, device=device)
        factors = (world * weights / divisors[: len(weights)]).unbind()
        shares = [term.sum * factor.to(term.sum.dtype) for term, factor in zip(self.terms, factors, strict=True)]
        backward = shares[0] if len(shares) == 1 else torch.stack(shares).sum()
        found: dict[str, list[Tensor]] = {}
        for e, mean in zip(entries, means.unbind(), strict=True):
            found.setdefault(e.name, []).append(mean)
        # Several Pairs may share a name: their mean is shown.
        terms = {name: own[0] if len(own) == 1 else torch.stack(own).mean() for name, own in found.items()}
        rows = counts[: len(weights)].sum()
        return Reduced(backward, (means[: len(weights)] * weights).sum(), terms, rows)
