"""The fast way through a block: log-sum-exps of the negatives where scores are plain products.

Every anchor meets every candidate, or every one of its scope, but a few: those its keys except are found by sorting and
struck from the tiles that hold them. Where anchors and candidates are one tensor, a tile serves its rows and, turned
over, its columns. With M rows of size D that is 4 M^2 D operations forward and backward, and extra memory for one tile
and O(A + C) numbers.

Shapes: A anchors, C candidates, D embedding size, P powers, E excepted pairs; of a stack G groups of n rows.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .cache import tile_entries
from .exponential_slopes import slopes
from .exponential_sums import summed
from .precision import full_precision
from .stacks import Part, Plan, Stack, plan

__all__ = ["Exponentials"]

# Scores in a tile. A tile of float32 and its copy stay in a core's second-level cache.
ENTRIES = {"cpu": 1 << 18}
# Scores in a stack of groups.
STACKED = {"cpu": 1 << 20}
# Bytes of tiles kept for the backward pass in place of multiplying them again: these, or a multiple of the embeddings'.
KEPT_BYTES = {"cpu": 1 << 24, "cuda": 1 << 28}
KEPT_TIMES = 3
# Bits per nat. Inside, logits are in bits and exponentials powers of two: on a CPU `exp` takes twenty times as long
# where the result is next to nothing, and `exp2` does not.
BITS = 1 / math.log(2)
# |logit| up to which exp needs no shift: e^40 summed over any row is far from float32's 3e38, and e^-40 from its least.
UNSHIFTED = 40.0


@dataclass(frozen=True)
class Exponentials:
    """For every anchor the log of sum over negatives of exp(power x product x inverse temperature), for each power.

    Rows are given to it and not held, so that the backward pass lets go of them when it has read them.

    Args:
        mirrored: whether the candidates are the anchors themselves.
        inverse_temperature: what products are multiplied by, > 0.
        powers: e.g. (1,), or (1 + h, h) for hard negatives.
        excepted: (anchor [E], candidate [E]) that are no negatives.
        plan: how the block is cut.
        kept: whether tiles are kept for the backward pass.
        unshifted: whether exponentials can be taken as they are.
        labels: int32 [A] and [C]; pairs whose labels are equal are no negatives either. None: there are no labels.
    """

    mirrored: bool
    inverse_temperature: float
    powers: tuple[float, ...]
    excepted: tuple[Tensor, Tensor]
    plan: Plan
    kept: bool
    unshifted: bool
    labels: tuple[Tensor, Tensor] | None = None

    @classmethod
    def between(
        cls,
        anchors: Tensor,
        candidates: Tensor | None,
        inverse_temperature: float,
        powers: tuple[float, ...],
        excepted: tuple[Tensor, Tensor],
        bounded: float | None,
        scopes: tuple[Tensor, Tensor] | None = None,
        labels: tuple[Tensor, Tensor] | None = None,
    ) -> "Exponentials":
        """Return the way through a block.

        Args:
            anchors: [A, D], prepared.
            candidates: [C, D], prepared; None: the anchors themselves.
            inverse_temperature: see the class.
            powers: see the class.
            excepted: see the class.
            bounded: no |product| passes this; None: unknown.
            scopes: int64 [A] and [C], outside of which nothing is excepted; None: every anchor meets every candidate.
            labels: see the class.
        """
        columns = anchors if candidates is None else candidates
        cut = plan(
            (len(anchors), len(columns)),
            candidates is None,
            excepted,
            scopes,
            entries=tile_entries(anchors, ENTRIES),
            stacked=tile_entries(anchors, STACKED),
        )
        most = KEPT_TIMES * (anchors.numel() + (0 if candidates is None else candidates.numel()))
        size = cut.entries * len(powers)
        kept = size * anchors.element_size() <= max(KEPT_BYTES[anchors.device.type], most * anchors.element_size())
        alone = candidates is not None or all(len(stack.parts) == 1 for stack in cut.stacks)
        if bounded is None and not (kept and alone):
            bounded = _longest(anchors, columns)
        unshifted = bounded is not None and max(powers) * bounded * inverse_temperature <= UNSHIFTED
        return cls(candidates is None, inverse_temperature, powers, excepted, cut, kept, unshifted, labels)

    def log_sums(self, anchors: Tensor, candidates: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the log-sums [P, A], -inf where an anchor has no negative, and the excepted pairs' logits [E]."""
        result: tuple[Tensor, Tensor] = _LogSums.apply(self, anchors, candidates)
        return result

    def raised(self, logits: Tensor, shift: Tensor | float) -> list[Tensor]:
        """Return 2^(power x (logits - shift)) for each power; the logits are overwritten."""
        if not isinstance(shift, float) or shift:
            logits.sub_(shift)
        if self.powers == (2.0, 1.0):
            once = logits.exp2_()
            return [once.square(), once]
        *others, last = self.powers
        return [(logits * power).exp2_() for power in others] + [(logits.mul_(last) if last != 1 else logits).exp2_()]

    def read(self, stack: Stack, anchors: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """Return a stack's rows [G, n, D] and columns [G, m, D]."""
        rows = stack.rows.read(anchors)
        return rows, rows if stack.columns is stack.rows and others is anchors else stack.columns.read(others)

    def tiles(
        self, stack: Stack, rows: Tensor, columns: Tensor, buffer: Tensor | None, excepted: Tensor | None
    ) -> Iterator[tuple[Part, Tensor]]:
        """Yield each tile's logits in bits, -inf where a pair is excepted, whose logit goes into `excepted`.

        With a buffer the next tile overwrites them.
        """
        for part in stack.parts:
            shape = part.shape(stack)
            logits = rows.new_empty(shape) if buffer is None else buffer[: shape[0] * shape[1] * shape[2]].view(shape)
            turned = columns[:, part.columns].transpose(1, 2)
            logits.baddbmm_(rows[:, part.rows], turned, beta=0, alpha=self.inverse_temperature * BITS)
            if len(part.number):
                flat = logits.view(-1)
                if excepted is not None:
                    excepted[part.number] = flat[part.place]
                flat.index_fill_(0, part.place, -torch.inf)
            if self.labels is not None:
                ours, theirs = stack.rows.read(self.labels[0]), stack.columns.read(self.labels[1])
                logits.masked_fill_(ours[:, part.rows, None] == theirs[:, None, part.columns], -torch.inf)
            for live, where, dim in ((stack.rows.live, part.rows, 2), (stack.columns.live, part.columns, 1)):
                if live is not None:
                    logits.masked_fill_(~live[:, where].unsqueeze(dim), -torch.inf)
            yield part, logits

    def alone(self, stack: Stack) -> bool:
        """Return whether each tile's exponentials serve its rows alone: not, turned over, its columns or these too."""
        return not self.mirrored or len(stack.parts) == 1


def _longest(anchors: Tensor, candidates: Tensor) -> float | None:
    """Return what no |product| passes, by the rows' lengths; None on a GPU, which would wait."""
    sides = [anchors] if candidates is anchors else [anchors, candidates]
    if anchors.device.type != "cpu" or not all(len(rows) for rows in sides):
        return None
    lengths = [float(torch.linalg.vector_norm(rows.detach(), dim=1).max()) for rows in sides]
    longest = lengths[0] * lengths[-1] * (1 + 1e-5)
    return longest if math.isfinite(longest) else None


class _LogSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, spec: Exponentials, anchors: Tensor, candidates: Tensor | None) -> tuple[Tensor, Tensor]:
        others = anchors if candidates is None else candidates
        # With candidates that get no gradient, the anchors' can be summed up at once.
        frozen = candidates is not None and ctx.needs_input_grad[1] and not ctx.needs_input_grad[2]
        keep = any(ctx.needs_input_grad) and not frozen and spec.kept
        result = anchors.new_full((len(spec.powers), len(anchors)), -torch.inf)
        excepted = anchors.new_empty(len(spec.excepted[0]))
        frozen_slopes = [torch.zeros_like(anchors) for _ in spec.powers] if frozen else []
        kept: list[Tensor] = []
        shifts: list[Tensor | float | None] = []
        buffer = None if keep else anchors.new_empty(spec.plan.largest)
        for stack in spec.plan.stacks:
            rows, columns = spec.read(stack, anchors, others)
            weighted = [stack.rows.opened(slope) for slope in frozen_slopes]
            found, held, shift = summed(spec, stack, rows, columns, excepted, weighted, buffer)
            for log_sums, own in zip(result, found, strict=True):
                stack.rows.put(log_sums, own)
            for slope, own in zip(frozen_slopes, weighted, strict=True):
                stack.rows.close(slope, own)
            kept += held
            shifts.append(shift)
        ctx.spec, ctx.frozen, ctx.kept, ctx.shifts = spec, frozen, keep, shifts
        ctx.save_for_backward(anchors, *(() if candidates is None else (candidates,)), result, *(frozen_slopes or kept))
        excepted /= BITS
        ctx.mark_non_differentiable(*(() if len(excepted) else (excepted,)))
        return result / BITS, excepted

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        spec: Exponentials = ctx.spec
        anchors, *saved = ctx.saved_tensors
        candidates = None if spec.mirrored else saved.pop(0)
        result, *held = saved
        gradient, excepted = gradients[0], gradients[1] * spec.inverse_temperature
        with full_precision(anchors):
            # Each row's weight in front of exp(power x logit); a row of nothing has none.
            weights = gradient * spec.inverse_temperature
            if len(spec.powers) > 1:
                weights *= anchors.new_tensor(spec.powers)[:, None]
            nothing = result == -torch.inf
            weights.masked_fill_(nothing, 0.0)
            if ctx.frozen:
                assert candidates is not None
                anchor, candidate = spec.excepted
                live = excepted.nonzero()[:, 0]
                total = torch.zeros_like(anchors)
                for slope, weight in zip(held, weights, strict=True):
                    total.addcmul_(slope, weight[:, None])
                total.index_add_(0, anchor[live], candidates[candidate[live]] * excepted[live, None])
                return None, total, None
            kept = iter(held) if ctx.kept else None
            finite = result.masked_fill(nothing, 0.0)
            found = spec, anchors, candidates, finite, weights, excepted, ctx.shifts, kept
            return None, *slopes(*found, ctx.needs_input_grad[2])
