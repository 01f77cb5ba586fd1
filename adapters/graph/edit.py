"""How graphs are augmented: a transform proposes an edit of the whole batch, and the view is built once.

Shapes: B graphs, N nodes, E directed edges, F features of a node, K new edges.
"""

from abc import abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch_geometric.data import Batch

import kontrast as kt
from kontrast.adapters.graph.batch import GraphBatch, graph_batch

__all__ = ["Edit", "GraphTransform", "GraphViews"]


@dataclass(frozen=True)
class Edit:
    """What stays and what comes; None: nothing changes.

    Args:
        nodes: which nodes stay, bool [N]; a graph must keep one.
        edges: which edges stay, bool [E]; those of dropped nodes go with them.
        new_edges: nodes they join, int64 [2, K], each edge in both directions.
        x: other features [N, F].
    """

    nodes: Tensor | None = None
    edges: Tensor | None = None
    new_edges: Tensor | None = None
    x: Tensor | None = None

    def only(self, chosen: Tensor, graphs: GraphBatch) -> "Edit":
        """Return the edit of the graphs that are chosen, bool [B], alone."""
        at_nodes = chosen[graphs.batch]
        at_edges = at_nodes[graphs.edge_index[0]]
        return Edit(
            nodes=None if self.nodes is None else self.nodes | ~at_nodes,
            edges=None if self.edges is None else self.edges | ~at_edges,
            new_edges=None if self.new_edges is None else self.new_edges[:, at_nodes[self.new_edges[0]]],
            x=None if self.x is None else torch.where(at_nodes[:, None], self.x, graphs.x),
        )

    def merged(self, other: "Edit", graphs: GraphBatch) -> "Edit":
        """Return both edits together, where each changes other graphs."""

        def both(a: Tensor | None, b: Tensor | None) -> Tensor | None:
            return a if b is None else b if a is None else a & b

        new = [part for part in (self.new_edges, other.new_edges) if part is not None]
        x = self.x if other.x is None else other.x
        if self.x is not None and other.x is not None:
            x = torch.where(other.x != graphs.x, other.x, self.x)
        return Edit(both(self.nodes, other.nodes), both(self.edges, other.edges), torch.cat(new, 1) if new else None, x)

    def view(self, batch: kt.Batch) -> kt.View:
        """Return the edited copy of a batch; its `coords` [kept nodes] are the nodes' rows in the unedited batch."""
        graphs: GraphBatch = batch.inputs
        x = graphs.x if self.x is None else self.x
        edges = graphs.edge_index
        if self.edges is not None:
            edges = edges[:, self.edges]
        if self.new_edges is not None:
            edges = torch.cat([edges, self.new_edges], 1)
        counts = graphs.ptr.diff()
        number = torch.arange(len(x), device=x.device)
        kept = number
        if self.nodes is not None:
            kept = self.nodes.nonzero().squeeze(1)
            edges = edges[:, self.nodes[edges].all(0)]
            edges = (self.nodes.cumsum(0) - 1)[edges]
            counts = torch.bincount(graphs.batch[kept], minlength=len(counts))
            x = x[kept]
        # A node is known by its graph and its number there, whatever else is in the batch.
        coords = (number - graphs.ptr[graphs.batch])[kept]
        return replace(kt.View.of(batch, graph_batch(x, edges, counts)), coords=coords)


class GraphTransform(kt.Augmenter):
    """One way to change graphs; by itself an augmenter that makes `num_views` views.

    Args:
        num_views: copies per graph.
    """

    def __init__(self, num_views: int = 2) -> None:
        super().__init__()
        if num_views < 1:
            raise kt.InvalidValueError(f"`num_views` must be >= 1, got {num_views!r}")
        self.num_views = num_views

    @abstractmethod
    def edit(self, graphs: GraphBatch, ids: Tensor, draws: kt.Draws, view: int) -> Edit:
        """Return what changes in view number `view` of a batch of graphs with these ids, int64 [B]."""

    def forward(self, batch: kt.Batch, draws: kt.Draws) -> list[kt.View]:
        """Return the views of a torch_geometric Batch."""
        check_graphs(batch.inputs)
        return [self.edit(batch.inputs, batch.ids, draws, view).view(batch) for view in range(self.num_views)]


class GraphViews(kt.Augmenter):
    """One view by each of several transforms.

    Args:
        transforms: of the first view, of the second and so on.
    """

    def __init__(self, *transforms: GraphTransform) -> None:
        super().__init__()
        if not transforms:
            raise kt.InvalidValueError("GraphViews must be given one transform per view, got none")
        self.transforms = torch.nn.ModuleList(transforms)

    def forward(self, batch: kt.Batch, draws: kt.Draws) -> list[kt.View]:
        """Return the views of a torch_geometric Batch."""
        check_graphs(batch.inputs)
        views = []
        for number, transform in enumerate(self.transforms):
            assert isinstance(transform, GraphTransform)
            views.append(transform.edit(batch.inputs, batch.ids, draws, number).view(batch))
        return views


def check_graphs(graphs: object) -> None:
    """Raise where inputs are no torch_geometric Batch with features."""
    if not isinstance(graphs, Batch) or any(getattr(graphs, name, None) is None for name in ("x", "ptr")):
        raise kt.InvalidValueError(
            f"graphs must be a torch_geometric Batch with `x`, got {type(graphs).__name__}; make them with graph.graphs"
        )
