"""What a checkpoint does to a module: its state to a file and into another one."""

import io
from typing import TypeVar

import torch
from torch import nn

__all__ = ["reloaded"]

M = TypeVar("M", bound=nn.Module)


def reloaded(module: M, fresh: M) -> M:
    """Return `fresh` with the state of `module`, through a file and without running code, as a run's checkpoint."""
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    return fresh
