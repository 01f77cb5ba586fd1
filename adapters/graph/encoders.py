"""Graph encoders of torch_geometric's convolutions.

Shapes: B graphs, N nodes of all of them together, F features of a node, D representation size.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch_geometric.nn import GATConv, GCNConv, GINConv, global_add_pool, global_max_pool, global_mean_pool

import kontrast as kt
from kontrast.adapters.graph.batch import GraphBatch, node_number
from kontrast.adapters.graph.edit import check_graphs

__all__ = ["GAT", "GCN", "GIN", "GraphEncoder"]

Readout = Literal["sum", "mean", "max"]
POOLS = {"sum": global_add_pool, "mean": global_mean_pool, "max": global_max_pool}


class GraphEncoder(kt.Encoder):
    """Convolutions, each followed by ReLU and batch norm, and a read-out of the nodes.

    Args:
        convolution: (in, out) -> a module of torch_geometric that is called with (x, edge_index).
        in_channels: F.
        hidden_size: width of every layer, >= 1.
        num_layers: convolutions, >= 1.
        readout: how the nodes of a graph become one vector.
        all_layers: the representation is the concatenation of what every layer says; False: the last one's.
        batch_norm: whether a layer ends with batch norm, over all nodes of a batch; False for a batch of one graph,
            since runs take a graph for a sample and refuse batch norm over a single one.

    Raises:
        InvalidValueError: if a parameter is out of range.
    """

    def __init__(
        self,
        convolution: Callable[[int, int], nn.Module],
        in_channels: int,
        hidden_size: int,
        num_layers: int,
        readout: Readout,
        all_layers: bool,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        for name, value in (("in_channels", in_channels), ("hidden_size", hidden_size), ("num_layers", num_layers)):
            if value < 1:
                raise kt.InvalidValueError(f"`{name}` must be >= 1, got {value!r}")
        if readout not in POOLS:
            raise kt.InvalidValueError(f"`readout` must be max, mean or sum, got {readout!r}")
        widths = [in_channels] + [hidden_size] * num_layers
        self.convolutions = nn.ModuleList(map(convolution, widths[:-1], widths[1:]))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) if batch_norm else nn.Identity() for width in widths[1:])
        self.in_channels, self.readout, self.all_layers = in_channels, readout, all_layers
        self.representation_size = hidden_size * (num_layers if all_layers else 1)

    def encode(self, view: kt.View, copies: Tensor) -> kt.Encoded:
        """Return the representations of the graphs, and as `dense` those of their nodes, laid flat."""
        nodes = self.nodes(view.inputs)
        return kt.Encoded(
            rows=self.pooled(nodes, view.inputs),
            ids=view.ids,
            copies=copies,
            labels=view.labels,
            groups=view.groups,
            dense=nodes,
            owner=view.inputs.batch,
            coords=node_number(view.inputs) if view.coords is None else view.coords,
        )

    def pooled(self, nodes: Tensor, inputs: GraphBatch) -> Tensor:
        """Return the read-out [B, D] of representations of all nodes, [N, D]."""
        rows: Tensor = POOLS[self.readout](nodes, inputs.batch, len(inputs.ptr) - 1)
        return rows

    def nodes(self, inputs: GraphBatch) -> Tensor:
        """Return the representation of every node, [N, D]."""
        check_graphs(inputs)
        if inputs.x.shape[1] != self.in_channels:
            raise kt.InvalidValueError(
                f"nodes must have {self.in_channels} features, as `in_channels` says, got {inputs.x.shape[1]}"
            )
        x, layers = inputs.x, []
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = norm(convolution(x, inputs.edge_index).relu())
            layers.append(x)
        return torch.cat(layers, 1) if self.all_layers else x

    def forward(self, inputs: GraphBatch) -> Tensor:
        """Return the representations [B, D] of a torch_geometric Batch."""
        return self.pooled(self.nodes(inputs), inputs)


class GIN(GraphEncoder):
    """Graph isomorphism network: sums over neighbours, each layer with an MLP of two Linears.

    Args:
        in_channels: features of a node.
        hidden_size: width of every layer.
        num_layers: convolutions.
        readout: how the nodes of a graph become one vector.
        all_layers: the representation joins all layers (96 = 3 x 32 by default); False: the last alone.

    Source:
        Xu et al. 2019, arXiv:1810.00826. Order (convolution, ReLU, batch norm) and sizes as in GraphCL's unsupervised
        setting, You et al. 2020, arXiv:2010.13902.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_size: int = 32,
        num_layers: int = 3,
        readout: Readout = "sum",
        all_layers: bool = True,
    ) -> None:
        def convolution(width: int, out: int) -> nn.Module:
            layer: nn.Module = GINConv(nn.Sequential(nn.Linear(width, out), nn.ReLU(), nn.Linear(out, out)))
            return layer

        super().__init__(convolution, in_channels, hidden_size, num_layers, readout, all_layers)


class GCN(GraphEncoder):
    """Graph convolutional network.

    Args:
        in_channels: features of a node.
        hidden_size: width of every layer.
        num_layers: convolutions.
        readout: how the nodes of a graph become one vector.
        all_layers: the representation joins all layers; False: the last alone.
        batch_norm: whether a layer ends with batch norm; False for a single graph.

    Source:
        Kipf and Welling 2017, arXiv:1609.02907.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_size: int = 32,
        num_layers: int = 3,
        readout: Readout = "mean",
        all_layers: bool = True,
        batch_norm: bool = True,
    ) -> None:
        super().__init__(GCNConv, in_channels, hidden_size, num_layers, readout, all_layers, batch_norm)


class GAT(GraphEncoder):
    """Graph attention network, the heads side by side.

    Args:
        in_channels: features of a node.
        hidden_size: width of every layer, a multiple of `heads`.
        num_layers: convolutions.
        readout: how the nodes of a graph become one vector.
        all_layers: the representation joins all layers; False: the last alone.
        heads: of the attention.

    Source:
        Velickovic et al. 2018, arXiv:1710.10903.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_size: int = 32,
        num_layers: int = 3,
        readout: Readout = "mean",
        all_layers: bool = True,
        heads: int = 4,
    ) -> None:
        if heads < 1 or hidden_size % heads:
            raise kt.InvalidValueError(f"`hidden_size` must be a multiple of `heads`, got {hidden_size} and {heads}")

        def convolution(width: int, out: int) -> nn.Module:
            layer: nn.Module = GATConv(width, out // heads, heads=heads)
            return layer

        super().__init__(convolution, in_channels, hidden_size, num_layers, readout, all_layers)
