"""Encoders of time series: one representation per time step, and one per series.

Shapes: B series, T time steps, C channels, D representation size.
"""

from abc import abstractmethod
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import kontrast as kt
from kontrast.adapters.timeseries.convolution import convolved

__all__ = ["DilatedCNN", "InceptionTime", "SeriesEncoder", "SeriesTransformer"]

Readout = Literal["max", "mean"]


class SeriesEncoder(kt.Encoder):
    """Series [B, T, C] -> representations of time steps [B, T, D], and their maximum or mean [B, D].

    A time step is missing where a channel is NaN: it enters as zero after the input layer, as a hidden one does
    (`View.masked`), and the read-out passes it over.

    Args:
        in_channels: C.
        width: of the input layer.
        representation_size: D.
        readout: how time steps become one vector.

    Raises:
        InvalidValueError: if a parameter is out of range.
    """

    def __init__(self, in_channels: int, width: int, representation_size: int, readout: Readout) -> None:
        super().__init__()
        for name, value in (("in_channels", in_channels), ("representation_size", representation_size)):
            if value < 1:
                raise kt.InvalidValueError(f"`{name}` must be >= 1, got {value!r}")
        if readout not in ("max", "mean"):
            raise kt.InvalidValueError(f"`readout` must be max or mean, got {readout!r}")
        self.in_channels, self.representation_size, self.readout = in_channels, representation_size, readout
        self.input = nn.Linear(in_channels, width)

    @abstractmethod
    def mix(self, steps: Tensor, missing: Tensor) -> Tensor:
        """Return the representations [B, T, D] of steps after the input layer, [B, T, width].

        Args:
            steps: zero where missing or hidden.
            missing: which steps are not there, bool [B, T].
        """

    def steps(self, series: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Return the representation of every time step, [B, T, D].

        Args:
            series: [B, T, C]; NaN is what is missing.
            hidden: steps to leave out, bool [B, T].
        """
        if series.ndim != 3 or series.shape[2] != self.in_channels:
            raise kt.InvalidValueError(
                f"series must be [B, T, {self.in_channels}], as `in_channels` says, got {list(series.shape)}; make the "
                "encoder for the channels of these"
            )
        missing = series.isnan().any(2)
        steps = self.input(torch.where(missing[:, :, None], 0.0, series))
        gone = missing if hidden is None else missing | hidden
        return self.mix(steps.masked_fill(gone[:, :, None], 0.0), missing)

    def pooled(self, steps: Tensor, missing: Tensor) -> Tensor:
        """Return the read-out [B, D]; of a series that is missing throughout, zero."""
        if self.readout == "mean":
            there = (~missing)[:, :, None].to(steps.dtype)
            return (steps * there).sum(1) / there.sum(1).clamp(min=1)
        best = steps.masked_fill(missing[:, :, None], -torch.inf).amax(1)
        return best.masked_fill(missing.all(1, keepdim=True), 0.0)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the representations [B, D] of series [B, T, C]."""
        return self.pooled(self.steps(inputs), inputs.isnan().any(2))

    def encode(self, view: kt.View, copies: Tensor) -> kt.Encoded:
        """Return the representations of the series, and as `dense` those of their time steps."""
        missing = view.inputs.isnan().any(2)
        steps = self.steps(view.inputs, view.masked)
        return kt.Encoded(
            rows=self.pooled(steps, missing),
            ids=view.ids,
            copies=copies,
            labels=view.labels,
            groups=view.groups,
            dense=steps,
            valid=~missing,
            coords=view.coords,
        )


class DilatedCNN(SeriesEncoder):
    """Residual blocks of two convolutions of width 3, whose reach doubles from block to block.

    Args:
        in_channels: C.
        representation_size: D.
        hidden_size: channels of all blocks but the last.
        depth: blocks before the last; the dilation of block i is 2^i.
        dropout: of the output.
        readout: how time steps become one vector.

    Source:
        Yue et al. 2022, arXiv:2106.10466, section 3.1 and appendix C; read-out by maximum, as for classification there.
    """

    def __init__(
        self,
        in_channels: int,
        representation_size: int = 320,
        hidden_size: int = 64,
        depth: int = 10,
        dropout: float = 0.1,
        readout: Readout = "max",
    ) -> None:
        super().__init__(in_channels, hidden_size, representation_size, readout)
        widths = [hidden_size] * (depth + 1) + [representation_size]
        self.blocks = nn.Sequential(
            *(_Residual(a, b, dilation=2**i, project=i == depth) for i, (a, b) in enumerate(pairwise(widths)))
        )
        self.dropout = nn.Dropout(dropout)

    def mix(self, steps: Tensor, missing: Tensor) -> Tensor:
        """Return the representations of the steps."""
        mixed: Tensor = self.dropout(self.blocks(steps.transpose(1, 2))).transpose(1, 2)
        return mixed


class _Residual(nn.Module):
    def __init__(self, width_in: int, width_out: int, *, dilation: int, project: bool) -> None:
        super().__init__()
        self.first, self.second = (
            nn.Conv1d(a, width_out, 3, padding=dilation, dilation=dilation) for a in (width_in, width_out)
        )
        self.shortcut = nn.Conv1d(width_in, width_out, 1) if project or width_in != width_out else None

    def forward(self, x: Tensor) -> Tensor:
        out = convolved(self.second, F.gelu(convolved(self.first, F.gelu(x))))
        return out + (x if self.shortcut is None else convolved(self.shortcut, x))


class SeriesTransformer(SeriesEncoder):
    """A small transformer encoder; missing steps are not attended to.

    Args:
        in_channels: C.
        representation_size: D, a multiple of `heads`.
        num_layers: of the transformer.
        heads: of its attention.
        dropout: inside the layers.
        readout: how time steps become one vector.

    Source:
        Vaswani et al. 2017, arXiv:1706.03762; sine and cosine positions, layer norms first.
    """

    def __init__(
        self,
        in_channels: int,
        representation_size: int = 64,
        num_layers: int = 3,
        heads: int = 4,
        dropout: float = 0.1,
        readout: Readout = "mean",
    ) -> None:
        if heads < 1 or representation_size % (2 * heads):
            raise kt.InvalidValueError(
                f"`representation_size` must be a multiple of 2 x `heads`, got {representation_size} and {heads}"
            )
        super().__init__(in_channels, representation_size, representation_size, readout)
        self.heads = heads
        layer = nn.TransformerEncoderLayer(
            representation_size, heads, 4 * representation_size, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, num_layers, enable_nested_tensor=False)

    def mix(self, steps: Tensor, missing: Tensor) -> Tensor:
        """Return the representations of the steps."""
        at = torch.arange(steps.shape[1], device=steps.device)[:, None]
        half = torch.arange(0, steps.shape[2], 2, device=steps.device)
        angle = at * torch.exp(half * (-torch.log(torch.tensor(10000.0)) / steps.shape[2]))
        position = torch.cat([angle.sin(), angle.cos()], 1).to(steps.dtype)
        # A series that is missing throughout attends to everything: nothing at all would be NaN.
        blocked = missing & ~missing.all(1, keepdim=True)
        mixed: Tensor = self.layers(steps + position, src_key_padding_mask=blocked)
        return mixed


class InceptionTime(SeriesEncoder):
    """Blocks of convolutions of several widths side by side, with a shortcut around every three.

    Args:
        in_channels: C.
        filters: of each of a block's four branches; D = 4 x filters.
        depth: blocks.
        kernel_size: of the widest convolution; the others have half and a quarter of it; all rounded up to odd.
        readout: how time steps become one vector.

    Source:
        Ismail Fawaz et al. 2020, arXiv:1909.04939; widths 40, 20 and 10 there, odd ones here, which have a middle.
    """

    def __init__(
        self, in_channels: int, filters: int = 32, depth: int = 6, kernel_size: int = 39, readout: Readout = "mean"
    ) -> None:
        if min(filters, depth, kernel_size // 4) < 1:
            raise kt.InvalidValueError(
                f"`filters` and `depth` must be >= 1 and `kernel_size` >= 4, got {filters}, {depth} and {kernel_size}"
            )
        super().__init__(in_channels, filters, 4 * filters, readout)
        widths = [filters] + [4 * filters] * depth
        self.blocks = nn.ModuleList(_Inception(width, filters, kernel_size) for width in widths[:-1])
        self.shortcuts = nn.ModuleList(
            nn.Sequential(nn.Conv1d(widths[3 * i], 4 * filters, 1, bias=False), nn.BatchNorm1d(4 * filters))
            for i in range(depth // 3)
        )

    def mix(self, steps: Tensor, missing: Tensor) -> Tensor:
        """Return the representations of the steps."""
        x = start = steps.transpose(1, 2)
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number % 3 == 2:
                x = start = (x + self.shortcuts[number // 3](start)).relu()
        return x.transpose(1, 2)


class _Inception(nn.Module):
    def __init__(self, width: int, filters: int, kernel_size: int) -> None:
        super().__init__()
        self.narrow = nn.Conv1d(width, filters, 1, bias=False)
        sizes = [kernel_size // part | 1 for part in (1, 2, 4)]
        self.wide = nn.ModuleList(nn.Conv1d(filters, filters, s, padding="same", bias=False) for s in sizes)
        self.pool = nn.Sequential(nn.MaxPool1d(3, stride=1, padding=1), nn.Conv1d(width, filters, 1, bias=False))
        self.norm = nn.BatchNorm1d(4 * filters)

    def forward(self, x: Tensor) -> Tensor:
        narrow = self.narrow(x)
        out: Tensor = self.norm(torch.cat([*(wide(narrow) for wide in self.wide), self.pool(x)], 1)).relu()
        return out
