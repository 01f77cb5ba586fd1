"""How a step gets its gradient: at once, accumulated over micro-batches, or cached (exact for any batch size).

Accumulation adds up the gradients of micro-batches, each with the negatives of its own alone. Caching encodes every
micro-batch without a graph, takes the loss of the whole batch and its gradient with respect to the embeddings, and
encodes each micro-batch again, under the same random numbers, to pass that gradient on (Gao et al. 2021,
arXiv:2101.06983): memory is that of one micro-batch, negatives are the whole batch's, time is one more forward pass.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from itertools import accumulate
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .keys import key
from .loader import MicroBatch
from .loss import Loss, Reduced
from .method import Method
from .values import Encoded, View

__all__ = ["LargeBatch", "StepModule", "averaged", "backward", "random_state", "set_random_state"]

LargeBatch = Literal["accumulate", "cache"]
Parts = Sequence[tuple[MicroBatch, list[View]]]
Precision = Callable[[], AbstractContextManager[Any]]


class StepModule(nn.Module):
    """What DDP wraps: whatever a pass computes, it enters here, so that DDP's hooks are prepared for it."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, work: Callable[[Method], Any]) -> Any:
        """Return `work(method)`."""
        return work(self.method)


def averaged(step: nn.Module) -> DistributedDataParallel:
    """Return the step with gradients that are averaged over processes."""
    # Buffers are not broadcast: batch norms agree by their own means, and a queue is large.
    return DistributedDataParallel(step, **_NO_BUFFER_BROADCAST)


# torch 2.14 renames the option; the old name warns there.
_NO_BUFFER_BROADCAST: dict[str, Any] = (
    {"forward_sync_buffers": False}
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel.__init__).parameters
    else {"broadcast_buffers": False}
)


def backward(
    step: nn.Module, method: Method, parts: Parts, large_batch: LargeBatch, precision: Precision = nullcontext
) -> tuple[Reduced, list[Encoded]]:
    """Put a step's gradient into the parameters; return its loss and its encoded views, detached.

    Args:
        step: a `StepModule`, or DDP around one.
        method: the one inside.
        parts: the step's micro-batches with their views.
        large_batch: what to do where there are several.
        precision: a context to run the encoders in.
    """
    if len(parts) > 1 and large_batch == "cache":
        return _cached(step, method, [views for _, views in parts], precision)
    reductions, chunks = [], []
    for number, (part, views) in enumerate(parts):
        with _no_sync(step, number + 1 < len(parts)):
            with precision():
                loss, encoded = step(lambda m, views=views: m(views))
            reduced: Reduced = loss.reduced()
            (reduced.backward * part.share if len(parts) > 1 else reduced.backward).backward()
        reductions.append((part.share, reduced))
        chunks.append([view.detach() for view in encoded])
    if len(parts) == 1:
        return reductions[0][1], chunks[0]
    names = reductions[0][1].terms
    return (
        Reduced(
            backward=reductions[0][1].backward.detach(),
            value=torch.stack([share * reduced.value for share, reduced in reductions]).sum(),
            terms={n: torch.stack([share * r.terms[n] for share, r in reductions]).sum() for n in names},
            rows=torch.stack([reduced.rows for _, reduced in reductions]).sum(),
        ),
        _joined(chunks),
    )


def _cached(
    step: nn.Module, method: Method, parts: list[list[View]], precision: Precision
) -> tuple[Reduced, list[Encoded]]:
    states, chunks = [], []
    with torch.no_grad(), _still_statistics(method), precision():
        for views in parts:
            states.append(random_state())
            chunks.append(method.encode(views))
    after = random_state()
    # The loss of the whole batch, of embeddings that are leaves; similarity and objective get their gradient here.
    leaves = [_leaves(view, gradient_of_target=method.target is None) for view in _joined(chunks)]
    with _no_sync(step, True):
        reduced = method.score(leaves).reduced()
        reduced.backward.backward()
    # By view, then micro-batch, then tensor.
    cached = [_gradients(view, [chunk[v] for chunk in chunks]) for v, view in enumerate(leaves)]
    for number, (views, state) in enumerate(zip(parts, states, strict=True)):
        last = number + 1 == len(parts)
        set_random_state(state)

        def surrogate(m: Method, views: list[View] = views, number: int = number, last: bool = last) -> Tensor:
            total = torch.zeros((), device=views[0].ids.device)
            for view, gradients in zip(m.encode(views, with_target=False), cached, strict=True):
                outputs = (*_sums(view), *(tensor for tensor, _ in _tensors(view)))  # without the target, which is last
                for rows, gradient in zip(outputs, gradients[number], strict=False):
                    if gradient is not None and rows.requires_grad:
                        total = total + (rows * gradient).sum()
            if last:  # DDP averages what a parameter has gathered so far when this pass meets it: let it meet them all
                others = (*m.similarity.parameters(), *m.objectives.parameters(), *m.sampler.parameters())
                total = total + sum(0.0 * parameter.sum() for parameter in others if parameter.requires_grad)
            return total

        with _no_sync(step, not last), precision():
            value: Tensor = step(surrogate)
            if value.requires_grad:  # a frozen encoder has nothing to pass on
                value.backward()
    set_random_state(after)
    return replace(reduced, backward=reduced.backward.detach()), [view.detach() for view in leaves]


def _no_sync(step: nn.Module, wanted: bool) -> AbstractContextManager[Any]:
    return step.no_sync() if wanted and isinstance(step, DistributedDataParallel) else nullcontext()


def _joined(chunks: list[list[Encoded]]) -> list[Encoded]:
    """Join each view's micro-batches."""
    return [_join(parts) for parts in zip(*chunks, strict=True)]


def _join(parts: Sequence[Encoded]) -> Encoded:
    first = parts[0]
    if first.replicated:
        return parts[-1]

    def of(name: str) -> Tensor | None:
        values = [getattr(part, name) for part in parts]
        return None if values[0] is None else torch.cat(values)

    streams = {name: _join([part.streams[name] for part in parts]) for name in first.streams}
    # Each micro-batch numbered its copies from the start: the number of the micro-batch keeps them apart.
    copies = torch.cat([key(part.copies, torch.full_like(part.copies, n)) for n, part in enumerate(parts, start=1)])
    tensors: dict[str, Any] = {name: of(name) for name in ("rows", "labels", "groups", "dense", "valid", "coords")}
    if first.owner is not None:
        begin = [0, *accumulate(len(part.ids) for part in parts)]
        owners = [part.owner + start for part, start in zip(parts, begin, strict=False) if part.owner is not None]
        tensors["owner"] = torch.cat(owners)
    auxiliary = [part.auxiliary for part in parts if part.auxiliary is not None]  # terms side by side; `score` adds up
    tensors["auxiliary"] = Loss.sum_of(auxiliary) if auxiliary else None
    return replace(first, ids=torch.cat([part.ids for part in parts]), copies=copies, streams=streams, **tensors)


def _leaves(view: Encoded, *, gradient_of_target: bool) -> Encoded:
    """Return the view with its embeddings as leaves that want a gradient, a target's only where it passes one on."""

    def leaf(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.detach().requires_grad_()

    def kept(name: str, stream: Encoded) -> Encoded:
        if name == "target" and not gradient_of_target:
            return stream
        return replace(stream, rows=leaf(stream.rows), dense=leaf(stream.dense))

    streams = {name: kept(name, stream) for name, stream in view.streams.items()}
    auxiliary = view.auxiliary
    if auxiliary is not None:
        terms = (replace(term, sum=term.sum.detach().requires_grad_()) for term in auxiliary.terms)
        auxiliary = Loss(tuple(terms), auxiliary.metrics)
    return replace(view, rows=leaf(view.rows), dense=leaf(view.dense), streams=streams, auxiliary=auxiliary)


def _tensors(view: Encoded) -> Iterator[tuple[Tensor, bool]]:
    """Yield the embeddings of a view and of its streams, in a fixed order, and whether they are replicated."""
    for encoded in (view, *view.streams.values()):
        yield from ((tensor, encoded.replicated) for tensor in (encoded.rows, encoded.dense) if tensor is not None)


def _sums(view: Encoded) -> Iterator[Tensor]:
    """Yield the sums of a view's auxiliary terms."""
    yield from () if view.auxiliary is None else (term.sum for term in view.auxiliary.terms)


def _gradients(view: Encoded, chunks: list[Encoded]) -> list[list[Tensor | None]]:
    """Return the gradients of a view's auxiliary sums and embeddings, cut into the micro-batches they come from."""
    sums = _sums(view)
    cut: list[list[Tensor | None]] = [[next(sums).grad for _ in _sums(chunk)] for chunk in chunks]
    for (tensor, replicated), *joined in zip(_tensors(view), *map(_tensors, chunks), strict=True):
        parts: Sequence[Tensor | None]
        if tensor.grad is None:
            parts = [None] * len(chunks)
        elif replicated:  # the last micro-batch's was taken: the last pass is the one that DDP takes part in
            parts = [*[None] * (len(chunks) - 1), tensor.grad]
        else:
            parts = tensor.grad.split([len(part) for part, _ in joined])
        for own, part in zip(cut, parts, strict=True):
            own.append(part)
    return cut


@contextmanager
def _still_statistics(method: Method) -> Iterator[None]:
    """Keep the running statistics of the online batch norms as they are: the second pass will update them."""
    online = (part for module in (method.towers, method.predictors) for part in module.modules())
    norms = [part for part in online if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    tracked = [(norm, [buffer.clone() for buffer in norm.buffers()]) for norm in norms]
    try:
        yield
    finally:
        for norm, before in tracked:
            for buffer, value in zip(norm.buffers(), before, strict=True):
                buffer.copy_(value)


def random_state() -> dict[str, Tensor]:
    """Return the state of torch's generators, of the CPU and of the current GPU."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Tensor]) -> None:
    """Set what `random_state` returned."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])
