"""What tells one data set from another of the same length, small enough for a checkpoint.

Numbers are not compared bit for bit: those that were resampled or standardised when the data were loaded are rounded
otherwise by another processor or library, and such a run must go on.

Shapes: N samples of the data set.
"""

import hashlib
import os
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .data import Data
from .leaves import Leaves, difference, leaves

__all__ = ["compare_fingerprints", "fingerprint"]

_SAMPLES = 16
_NUMBERS = 1 << 16  # of each tensor, spread over it


def fingerprint(data: Data, *, workers: int = 0) -> Leaves:
    """Return what a look at 16 samples, spread over the data set, finds; and at all labels and groups it tells of.

    What differs between two looks (an augmentation inside the data) is left out, and so are absolute paths, which move
    from job to job.

    Args:
        data: to be looked at.
        workers: of the run; where it has some, a process of that kind looks: a file that data open when they are first
            read must not be open in this process when others are forked from it.
    """
    looks: DataLoader[Leaves] = DataLoader(
        _Look(data),
        batch_size=None,
        sampler=[0, 1],
        num_workers=min(1, workers),
        generator=torch.Generator().manual_seed(0),  # without one of its own it draws from the global generator
    )
    first, second = looks
    return {
        path: part
        for path, part in first.items()
        if path in second and not compare_fingerprints({path: part}, {path: second[path]})
    }


def compare_fingerprints(saved: Leaves, now: Leaves) -> str:
    """Return where two fingerprints differ first, in words; empty: nowhere."""
    return difference(saved, now, rtol=1e-4)


class _Look(Dataset[Leaves]):
    def __init__(self, data: Data) -> None:
        self.data = data

    def __getitem__(self, look: int) -> Leaves:
        length = len(self.data)
        batch = self.data.batch(torch.arange(min(_SAMPLES, length)) * length // min(_SAMPLES, length))
        found: Leaves = {}
        for path, part in leaves(batch):
            found |= _described(path.lstrip("."), part)
        for name in ("labels", "groups"):
            whole = getattr(self.data, name, None)
            found |= _described(f"data.{name}", whole) if isinstance(whole, Tensor) else {}
        return found


def _described(path: str, part: Any) -> Leaves:
    if isinstance(part, (str, bytes)):
        return {} if os.path.isabs(part) else {path: _digest(part.encode() if isinstance(part, str) else part)}
    if not isinstance(part, Tensor):
        return {path: part}
    about: Leaves = {f"{path}.shape": f"{part.dtype} {list(part.shape)}"}
    if part.layout is not torch.strided:
        return about
    flat = part.detach().flatten()
    flat = flat[:: 1 + len(flat) // _NUMBERS].cpu()
    if not flat.is_floating_point():
        return {**about, path: _digest((torch.view_as_real(flat) if flat.is_complex() else flat).numpy().tobytes())}
    finite = flat.isfinite()
    values = flat.double().where(finite, 0.0)
    place = torch.arange(len(values), dtype=torch.float64).sin()  # as good as random: no mirroring keeps the sum
    # The first is the scale that the others are held to.
    sketch = torch.stack([values.abs().mean(), values.mean(), (values * place).mean()]) if len(values) else values
    return {**about, f"{path}.missing": len(values) - int(finite.sum()), path: sketch}


def _digest(content: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(hashlib.sha256(content).digest(), dtype=np.uint8).copy())
