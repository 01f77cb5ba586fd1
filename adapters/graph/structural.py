"""An encoder that reads no features, only structure (GCC).

Shapes: B graphs, N nodes of all of them together, n nodes of one, K eigenvectors.
"""

import torch
from torch import Tensor, nn
from torch_geometric.utils import to_dense_adj

import kontrast as kt
from kontrast.adapters.graph.batch import Flat, GraphBatch, graph_batch, node_number, split
from kontrast.adapters.graph.edit import check_graphs
from kontrast.adapters.graph.encoders import GIN, Readout
from kontrast.arrays import array, tensor, true_at

__all__ = ["StructuralGIN", "positional"]

ONE_WAY = (
    "edges must stand there in both directions, and graph {} has one that does not; apply "
    "torch_geometric.transforms.ToUndirected"
)


class StructuralGIN(GIN):
    """GIN on what the structure says of a node: its place in the spectrum, its degree, and whether it is the centre.

    What features the graphs have is not read, so one encoder serves any graphs.

    Args:
        hidden_size: width of every layer.
        num_layers: convolutions.
        readout: how the nodes of a graph become one vector.
        all_layers: the representation joins all layers; False: the last alone.
        eigenvectors: of the normalised adjacency matrix, K.
        degree_size: width of the embedding of a node's degree.
        max_degree: higher degrees share one embedding.

    Source:
        Qiu et al. 2020, arXiv:2006.09963, section 3.3 and table 6 there: 32 eigenvectors, a degree embedding of 16, the
        mark of the centre. Graphs without a marked node (`seed`) take the one of highest degree, as its code does.
        Differs from it: degrees share an embedding from 128 on, from 512 in its training code; a graph of n nodes has
        up to n eigenvectors, there n - 2, all that its sparse solver was asked for.
    """

    def __init__(
        self,
        hidden_size: int = 64,
        num_layers: int = 4,
        readout: Readout = "sum",
        all_layers: bool = True,
        eigenvectors: int = 32,
        degree_size: int = 16,
        max_degree: int = 128,
    ) -> None:
        if min(eigenvectors, degree_size, max_degree) < 1:
            raise kt.InvalidValueError(
                "`eigenvectors`, `degree_size` and `max_degree` must be >= 1, "
                f"got {eigenvectors}, {degree_size} and {max_degree}"
            )
        super().__init__(eigenvectors + degree_size + 1, hidden_size, num_layers, readout, all_layers)
        self.eigenvectors, self.max_degree = eigenvectors, max_degree
        self.degrees = nn.Embedding(max_degree + 1, degree_size)

    def encode(self, view: kt.View, copies: Tensor) -> kt.Encoded:
        """Return the representations; a graph that is refused is named by its id, which is its index in the data."""
        try:
            return super().encode(view, copies)
        except _OneWayError as error:
            raise kt.InvalidValueError(ONE_WAY.format(int(view.ids[error.row]))) from error

    def nodes(self, inputs: GraphBatch) -> Tensor:
        """Return the representation of every node, [N, D]."""
        check_graphs(inputs)
        degree = torch.bincount(inputs.edge_index[0], minlength=len(inputs.batch))
        centre: Tensor | None = getattr(inputs, "seed", None)
        if centre is None:
            centre = _highest(degree, inputs)
        embedded = self.degrees(degree.clamp(max=self.max_degree))
        x = torch.cat([positional(inputs, self.eigenvectors).to(embedded), embedded, centre[:, None].to(embedded)], 1)
        return super().nodes(graph_batch(x, inputs.edge_index, inputs.batch, inputs.ptr))


@torch.no_grad()
def positional(graphs: GraphBatch, size: int) -> Tensor:
    """Return each node's entries in its graph's leading eigenvectors, at length 1, [N, size].

    Of D^-1/2 A D^-1/2, the largest eigenvalues first; what a small graph does not have is zero. The sign of an
    eigenvector, and the basis of a repeated eigenvalue, are arbitrary; here they depend on the order of the nodes.

    Args:
        graphs: undirected.
        size: eigenvectors, K. Memory n x n per graph.

    Raises:
        InvalidValueError: if a graph has an edge in one direction alone; says which of the batch it is.
    """
    counts = graphs.ptr.diff()
    rows = torch.zeros(len(graphs.batch), size, device=counts.device)
    # Graphs of one size together: padding would turn the eigenvectors of a repeated eigenvalue, which are arbitrary.
    sizes, which = counts.unique(return_inverse=True)
    parts = split(graphs.x, Flat.of(graphs, which), array(which), len(sizes))
    for nodes, part in zip(sizes.tolist(), parts, strict=True):
        dense = to_dense_adj(part.edge_index, part.batch, batch_size=len(part.ptr) - 1)
        dense = dense.clamp(max=1).reshape(-1, nodes, nodes) if len(part.edges) else rows.new_zeros(1, nodes, nodes)
        if (one_way := (dense != dense.mT).flatten(1).any(1)).any():
            row = int(true_at(counts == nodes)[one_way.expand(len(part.ptr) - 1)][0])
            raise _OneWayError(ONE_WAY.format(f"{row} of this batch"), row)
        root = dense.sum(2).clamp(min=1).sqrt()
        # Eigenvectors of a repeated eigenvalue, and every sign, are arbitrary: irregular numbers of the nodes settle
        # both, or rounding would, and otherwise in every batch.
        irregular = (torch.arange(1, nodes + 1, device=root.device).double() * 0.6180339887498949) % 1 + 0.1
        matrix = dense.double() / (root[:, :, None] * root[:, None]) + 1e-6 * irregular.diag()
        vectors = torch.linalg.eigh(matrix)[1].flip(2)[:, :, :size]
        sign = (irregular[None, :, None] * vectors).sum(1, keepdim=True).sign()
        found = nn.functional.normalize(vectors * sign, dim=2).expand(len(part.ptr) - 1, -1, -1)
        rows[tensor(part.nodes), : found.shape[2]] = found.reshape(len(part.nodes), -1).to(rows)
    return rows


class _OneWayError(kt.InvalidValueError):
    """A graph has an edge in one direction alone; `row` is its place in the batch."""

    def __init__(self, sentence: str, row: int = 0) -> None:
        super().__init__(sentence)
        self.row = row


def _highest(degree: Tensor, graphs: GraphBatch) -> Tensor:
    """Return which node of each graph has the highest degree, the first of them, bool [N]."""
    number = node_number(graphs)
    score = degree * (len(degree) + 1) - number
    best = torch.full_like(graphs.ptr[1:], torch.iinfo(torch.int64).min)
    best = best.scatter_reduce(0, graphs.batch, score, "amax")
    chosen: Tensor = score == best[graphs.batch]
    return chosen
