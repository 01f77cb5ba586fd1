"""The fast way through a block whose rows are compared with each other inside groups: log-sum-exps of the negatives.

Rows of one scope make a group. Small groups of one size are one batched product, which serves both directions, and
whose backward pass is one product more; large ones go by themselves the way of `exponentials`. Extra memory is
O(M) numbers and the tiles that are kept under its budget.

Shapes: M rows, G groups of n rows each, D embedding size, P powers.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .exponentials import Exponentials
from .precision import full_precision
from .tiles import groups_of

__all__ = ["GroupSums", "grouped_log_sums"]

# Scores of a group up to which groups are stacked.
STACKED = {"cpu": 1 << 18, "cuda": 1 << 20}
# Scores of a stack: a large one would leave the cache.
ENTRIES = {"cpu": 1 << 20, "cuda": 1 << 24}


@dataclass(frozen=True)
class GroupSums:
    """What `grouped_log_sums` returns.

    Args:
        log_sums: log of the sum over each row's negatives of exp(power x logit), [P, M]; -inf where it has none.
        sizes: rows in each row's group, itself included, int64 [M]; 0 where it meets nothing.
        positives: the logits of the positives [P], read from the products; None where some were not made at once.
    """

    log_sums: Tensor
    sizes: Tensor
    positives: Tensor | None


def grouped_log_sums(spec: Exponentials, scope: Tensor, positives: tuple[Tensor, Tensor]) -> GroupSums:
    """Return the log-sum-exps of rows that meet the rows of their own scope alone.

    Args:
        spec: the rows, as anchors without other candidates; what is excepted lies inside the scopes.
        scope: int64 [M]; -1 meets nothing.
        positives: (row [P], row [P]) of pairs inside the scopes.
    """
    rows = spec.anchors
    order, _, starts, counts = groups_of(scope)
    lengths = counts.unique().tolist()
    sizes = torch.zeros_like(scope)
    powers = len(spec.powers)
    if not lengths:
        return GroupSums(rows.new_full((powers, len(rows)), -torch.inf), sizes, None)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    struck, read = _Entries.of(place, spec.excepted), _Entries.of(place, positives)
    device = rows.device.type
    parts, index, found = [], [], []
    for n in lengths:
        first = starts[counts == n]
        width = 1 if n * n > STACKED[device] else max(1, ENTRIES[device] // (n * n))
        for begin in first.split(width):
            members = (begin[:, None] + torch.arange(n, device=order.device)).flatten()
            own = order[members]
            group = _rows(rows, own)
            if n * n > STACKED[device]:
                entry, _ = struck.inside(begin, n)
                parts.append(replace(spec, anchors=group, excepted=(entry // n, entry % n)).log_sums())
            else:
                stack = group.view(len(begin), n, -1)
                wanted, which = read.inside(begin, n)
                sums, logits = _Stacked.apply(stack, struck.inside(begin, n)[0], wanted, spec)
                parts.append(sums.flatten(1))
                found.append((which, logits))
            index.append(own)
            sizes[own] = n
    joined, owners = torch.cat(parts, 1), torch.cat(index)
    log_sums = rows.new_full((powers, len(rows)), -torch.inf).index_copy(1, owners, joined)
    if len(found) < len(parts):
        return GroupSums(log_sums, sizes, None)
    which, values = (torch.cat(pieces) for pieces in zip(*found, strict=True))
    return GroupSums(log_sums, sizes, torch.empty_like(values).index_copy(0, which, values))


@dataclass(frozen=True)
class _Entries:
    """Pairs of rows, by their places in the order of groups, sorted by the first.

    Args:
        first: place of one row, int64 [P].
        second: of the other.
        number: which pair each is.
    """

    first: Tensor
    second: Tensor
    number: Tensor

    @classmethod
    def of(cls, place: Tensor, pairs: tuple[Tensor, Tensor]) -> "_Entries":
        first, second = (place[side] for side in pairs)
        order = first.argsort()
        return cls(first[order], second[order], order)

    def inside(self, begin: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """Return the entries of stacked groups of n rows that begin there, and which pairs they are."""
        low, high = torch.searchsorted(self.first, torch.stack([begin, begin + n])).unbind()
        group = torch.repeat_interleave(high - low)
        at = torch.arange(len(group), device=group.device) + (high - (high - low).cumsum(0))[group]
        row, column = self.first[at] - begin[group], self.second[at] - begin[group]
        return (group * n + row) * n + column, self.number[at]


def _rows(rows: Tensor, index: Tensor) -> Tensor:
    """Return rows by index, without a copy where they lie in order."""
    begin = int(index[0])
    run = torch.arange(begin, begin + len(index), device=index.device)
    return rows[begin : begin + len(index)] if torch.equal(index, run) else rows.index_select(0, index)


class _Stacked(torch.autograd.Function):
    """(rows [G, n, D], entries that are struck, entries that are read, spec) -> (log-sums [P, G, n], logits read)."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, struck: Tensor, read: Tensor, spec: Exponentials) -> tuple[Tensor, Tensor]:
        inverse, powers = spec.inverse_temperature, spec.powers
        logits = torch.bmm(rows * inverse if inverse != 1 else rows, rows.transpose(1, 2))
        picked = logits.view(-1)[read]
        logits.view(-1).index_fill_(0, struck, -torch.inf)
        top = logits.amax(2, keepdim=True)
        logits.sub_(torch.where(top == -torch.inf, 0.0, top))
        shares, sums = [], []
        for power in powers:
            share = logits.exp_() if powers == (1.0,) else (logits * power).exp_()
            total = share.sum(2)
            some = total != 0  # not-a-number stays visible
            shares.append(share.div_(torch.where(some, total, 1.0)[:, :, None]))
            sums.append(torch.where(some, total.log() + power * top.squeeze(2), -torch.inf))
        ctx.save_for_backward(rows, read, *(shares if ctx.needs_input_grad[0] else ()))
        ctx.spec = spec
        return torch.stack(sums), picked

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, None]:
        rows, read, *shares = ctx.saved_tensors
        spec: Exponentials = ctx.spec
        with full_precision(rows):
            weights = gradients[0] * (rows.new_tensor(spec.powers) * spec.inverse_temperature)[:, None, None]
            slope = shares[0] * weights[0, :, :, None]
            for share, weight in zip(shares[1:], weights[1:], strict=True):
                slope.addcmul_(share, weight[:, :, None])
            slope.view(-1).index_add_(0, read, gradients[1] * spec.inverse_temperature)
            # A product is one of its row and one of its column: both slopes in one product.
            return torch.bmm(slope + slope.transpose(1, 2), rows), None, None, None
