"""Collectives with their true adjoints, over torch.distributed; without a process group each is the identity.

W is the number of processes. The rule that makes gradients exact is in `Loss.reduced`: every rank calls backward on W
times its share, and DDP averages.
"""

import atexit
import os
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from .errors import InvalidValueError

__all__ = ["all_gather", "all_sum", "broadcast_object", "join_processes", "rank", "row_counts", "world_size"]


T = TypeVar("T")


def join_processes(device: str = "auto") -> torch.device:
    """Join the process group that torchrun describes, if it started this process, and return this process's device.

    Args:
        device: `"auto"`: a GPU where there is one, else the CPU; or a torch device.

    Raises:
        InvalidValueError: if the device is not there.
    """
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise InvalidValueError(f"`device` must be auto, cpu or cuda, got {device!r}") from error
    if chosen.type == "cuda":
        if not torch.cuda.is_available():
            raise InvalidValueError("`device` is cuda, and torch finds no GPU here; use device='cpu'")
        chosen = torch.device("cuda", local if chosen.index is None else chosen.index)
        torch.cuda.set_device(chosen)
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ and not dist.is_initialized():
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
        atexit.register(_leave)
    return chosen


def broadcast_object(value: T) -> T:
    """Return what the first process calls this with, on every process."""
    if world_size() == 1:
        return value
    answer = [value]
    dist.broadcast_object_list(answer)
    return answer[0]


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def world_size() -> int:
    """Return the number of processes, 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return this process's number, 0 without a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def all_sum(tensor: Tensor) -> Tensor:
    """Sum a tensor over all ranks, with gradient: the backward sums the gradients of all ranks.

    For statistics of the whole batch (VICReg, Barlow Twins, Sinkhorn, batch normalisation). Every rank must call it, in
    the same order.
    """
    if world_size() == 1:
        return tensor
    return _function(_AllSum, tensor)


def all_gather(tensor: Tensor, counts: tuple[int, ...] | None = None) -> Tensor:
    """Join the rows of all ranks in rank order, with gradient: the backward is a reduce-scatter sum.

    Args:
        tensor: [M, ...]; M may differ between ranks.
        counts: every rank's M where it is known already (`row_counts`), which saves asking again.

    Returns:
        [sum of M, ...], the same on every rank.
    """
    if world_size() == 1:
        return tensor
    return _function(_AllGather, tensor, counts or row_counts(tensor))


def row_counts(tensor: Tensor) -> tuple[int, ...]:
    """Return the number of rows that each rank holds, in rank order."""
    if world_size() == 1:
        return (len(tensor),)
    counts = torch.zeros(world_size(), dtype=torch.int64, device=tensor.device)
    counts[rank()] = len(tensor)
    dist.all_reduce(counts)
    return tuple(counts.tolist())


def _function(function: type[torch.autograd.Function], *arguments: object) -> Tensor:
    result: Tensor = function.apply(*arguments)
    return result


class _AllSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


class _AllGather(torch.autograd.Function):
    """Every rank's rows are padded to the longest rank's, since the collectives want equal parts."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, counts: tuple[int, ...]) -> Tensor:
        ctx.counts = counts
        longest = max(counts)
        padded = tensor.contiguous()
        if len(tensor) < longest:
            padded = tensor.new_zeros((longest, *tensor.shape[1:]))
            padded[: len(tensor)] = tensor
        joined = tensor.new_empty((len(counts) * longest, *tensor.shape[1:]))
        _gather(joined, padded)
        if min(counts) == longest:
            return joined
        return torch.cat([joined[r * longest : r * longest + count] for r, count in enumerate(counts)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        counts: tuple[int, ...] = ctx.counts
        longest = max(counts)
        padded = gradients[0].contiguous()
        if min(counts) < longest:
            padded = padded.new_zeros((len(counts) * longest, *padded.shape[1:]))
            for r, part in enumerate(gradients[0].split(counts)):
                padded[r * longest : r * longest + len(part)] = part
        own = padded.new_empty((longest, *padded.shape[1:]))
        _reduce_scatter(own, padded)
        return own[: counts[rank()]], None


# torch 2.14 renames the two; the old names warn there.
_gather = dist.all_gather_single if hasattr(dist, "all_gather_single") else dist.all_gather_into_tensor
_reduce_scatter = dist.reduce_scatter_single if hasattr(dist, "reduce_scatter_single") else dist.reduce_scatter_tensor
