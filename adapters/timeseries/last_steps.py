"""What an encoder says of each time step of a long recording, from that step and those before it alone.

Shapes: T time steps, C channels, D representation size, L steps of the context, B windows at once.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

import kontrast as kt
from kontrast.encoder import evaluating

__all__ = ["as_recording", "last_steps"]


def last_steps(
    encoder: kt.Encoder, recording: Tensor, context: int, *, hide: bool = False, batch_size: int = 32
) -> Iterator[Tensor]:
    """Yield the representations of a recording's steps in order, [B, D] at a time, on the CPU.

    A step is encoded as the last one of a window of `context` steps; where the recording has only just begun, what is
    before it is missing. Memory is that of `batch_size` windows, whatever T.

    Args:
        encoder: gives `dense`, one representation per time step; left in the mode it was in.
        recording: [T, C].
        context: L, >= 1.
        hide: hide the last step of every window from the encoder (`View.masked`).
        batch_size: windows encoded at once; few, whose layers' outputs a CPU's caches hold.

    Raises:
        IncompatibleError: if the encoder gives pooled representations alone.
        InvalidValueError: if `context` or `batch_size` is not >= 1.
    """
    if context < 1 or batch_size < 1:
        raise kt.InvalidValueError(f"`context` and `batch_size` must be >= 1, got {context} and {batch_size}")
    first: nn.Parameter | None = next(encoder.parameters(), None)
    device = torch.device("cpu") if first is None else first.device
    masked = torch.zeros(context, dtype=torch.bool, device=device)
    masked[-1] = hide
    for start in range(0, len(recording), batch_size):
        end = min(start + batch_size, len(recording))
        known = recording[max(0, start - context + 1) : end].to(device)
        before = end - start + context - 1 - len(known)
        windows = torch.nn.functional.pad(known, (0, 0, before, 0), value=torch.nan).unfold(0, context, 1)
        ids = torch.arange(start, end, device=device)
        view = kt.View(windows.transpose(1, 2), ids, masked=masked.expand(len(ids), context))
        with torch.no_grad(), evaluating(encoder):  # not around the loop: a generator waits inside what it is inside of
            dense = encoder.encode(view, ids).dense
        if dense is None or dense.ndim != 3:
            raise kt.IncompatibleError(
                f"a representation of every time step is wanted, and {type(encoder).__name__} gives pooled ones "
                "alone; take an encoder whose `encode` fills `dense` [B, T, D]"
            )
        yield dense[:, -1].float().cpu()


def as_recording(values: Tensor) -> Tensor:
    """Return a recording [T] or [T, C] as [T, C].

    Raises:
        InvalidValueError: if it is of another shape, or infinite somewhere.
    """
    values = torch.as_tensor(values).float()
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or not len(values):
        raise kt.InvalidValueError(f"a recording must be [T] or [T, C], got {list(values.shape)}")
    if values.isinf().any():
        step = int(values.isinf().any(1).nonzero()[0])
        raise kt.InvalidValueError(f"a recording must be finite or NaN, got infinity at step {step}")
    return values
