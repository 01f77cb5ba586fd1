"""CPC: what a sequence was so far predicts its latents some steps later, among other latents."""

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

import kontrast as kt
from kontrast.plugins.objectives import InfoNCE
from kontrast.plugins.samplers import FutureSteps

__all__ = ["Context", "cpc"]


def cpc(
    encoder: kt.Encoder, *, hidden_size: int = 256, steps: int = 12, negatives: Literal["any", "sequence"] = "any"
) -> kt.Method:
    """Return contrastive predictive coding on an encoder of sequences.

    The encoder gives latents z_t, a GRU their contexts c_t; W_k c_t is told to be z_(t+k) among other latents by
    InfoNCE on the dot product, for each k. The representation of a sequence is the context at its end.

    Take the augmenter `identity` with one view. An encoder that sees far ahead solves the task without learning: its
    reach should be short, e.g. `timeseries.DilatedCNN(in_channels, depth=1)`.

    Args:
        encoder: gives one latent per time step (`dense`).
        hidden_size: of the context.
        steps: how far ahead is predicted.
        negatives: latents of the same sequence, or of any, of all processes.

    Source:
        van den Oord et al. 2018, arXiv:1807.03748, section 2, eq. 3 and 4.
    """
    return kt.Method(
        encoder=Context(encoder, hidden_size),
        sampler=FutureSteps(hidden_size, encoder.representation_size, steps, negatives),
        objective=InfoNCE(temperature=1.0),
        similarity=kt.Dot(),
    )


class Context(kt.Encoder):
    """An encoder of sequences and a GRU over what it says of each step.

    Args:
        latents: gives `dense` [B, T, D].
        hidden_size: of the GRU, the representation's size.
    """

    def __init__(self, latents: kt.Encoder, hidden_size: int) -> None:
        super().__init__()
        self.latents = latents
        self.recurrent = nn.GRU(latents.representation_size, hidden_size, batch_first=True)
        self.representation_size = hidden_size

    def encode(self, view: kt.View, copies: Tensor) -> kt.Encoded:
        """Return the contexts, the last one as the row, and the latents as a stream."""
        latents = self.latents.encode(view, copies)
        if latents.dense is None or latents.dense.ndim != 3:
            raise kt.IncompatibleError(
                f"a context is made of one latent per time step, and {type(self.latents).__name__} gives pooled "
                "representations alone; take an encoder whose `encode` fills `dense` [B, T, D]"
            )
        contexts: Tensor = self.recurrent(latents.dense)[0]
        rows = contexts[:, -1]
        if latents.valid is not None:
            last = (latents.valid * (latents.valid.cumsum(1))).argmax(1)
            rows = contexts.gather(1, last[:, None, None].expand(-1, 1, contexts.shape[2])).squeeze(1)
        return replace(latents, rows=rows, dense=contexts, streams={"latents": replace(latents, rows=None)})

    def forward(self, inputs: Any) -> Tensor:
        """Return the contexts [B, hidden_size] at the end of the sequences."""
        ids = torch.arange(len(inputs), device=inputs.device)
        rows = self.encode(kt.View(inputs, ids), ids).rows
        assert rows is not None
        return rows
