"""Representations of a whole data set, which probes read.

Shapes: N samples, B samples of a batch, D representation size.
"""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .data import Data
from .encoder import evaluating

__all__ = ["Representations", "embed"]


@dataclass(frozen=True)
class Representations:
    """Representations of a data set, on the CPU: rows [N, D], ids [N] and, where the data has them, labels [N]."""

    rows: Tensor
    ids: Tensor
    labels: Tensor | None


def embed(encoder: nn.Module | None, data: Data, *, batch_size: int = 512) -> Representations:
    """Return the representations of every sample, in order; the encoder is left in the mode it was in.

    Args:
        encoder: inputs -> [B, D]; None: the inputs themselves, flattened.
        data: any data set of tensors the encoder reads.
        batch_size: samples per forward pass.
    """
    first = None if encoder is None else next(encoder.parameters(), None)
    device = torch.device("cpu") if first is None else first.device
    rows, ids, labels = [], [], []
    with torch.no_grad(), nullcontext() if encoder is None else evaluating(encoder):
        for indices in torch.arange(len(data)).split(batch_size):
            batch = data.batch(indices)
            if encoder is None:
                rows.append(batch.inputs.flatten(1).float())
            else:
                rows.append(encoder(batch.to(device).inputs).float().cpu())
            ids.append(batch.ids)
            labels.append(batch.labels)
    known = [label for label in labels if label is not None]
    return Representations(torch.cat(rows), torch.cat(ids), torch.cat(known) if len(known) == len(labels) else None)
