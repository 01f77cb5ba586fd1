"""How graphs are augmented: a transform proposes an edit of the whole batch, and the view is built once.

Shapes: B graphs, N nodes, E directed edges, F features of a node, K new edges.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch_geometric.data import Batch

import kontrast as kt
from kontrast.adapters.graph.batch import GraphBatch, graph_batch

__all__ = ["Edit", "GraphTransform", "GraphViews", "Part"]


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

    @classmethod
    def joined(cls, graphs: GraphBatch, parts: Sequence[tuple["Edit", "Part"]]) -> "Edit":
        """Return the edits of several parts of a batch, which share no graph, as one edit of it."""

        def spread(values: Sequence[tuple[Tensor | None, Tensor]], whole: Tensor) -> Tensor | None:
            given = [(value, at) for value, at in values if value is not None]
            if not given:
                return None
            whole = whole.clone()
            for value, at in given:
                whole[at] = value.to(whole.dtype)
            return whole

        kept_nodes = torch.ones_like(graphs.batch, dtype=torch.bool)
        kept_edges = torch.ones_like(graphs.edge_index[0], dtype=torch.bool)
        new = [part.nodes[edit.new_edges] for edit, part in parts if edit.new_edges is not None]
        return cls(
            nodes=spread([(edit.nodes, part.nodes) for edit, part in parts], kept_nodes),
            edges=spread([(edit.edges, part.edges) for edit, part in parts], kept_edges),
            new_edges=torch.cat(new, 1) if new else None,
            x=spread([(edit.x, part.nodes) for edit, part in parts], graphs.x),
        )

    def view(self, batch: kt.Batch) -> kt.View:
        """Return the edited copy of a batch; its `coords` are the kept nodes' numbers in their unedited graphs."""
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


@dataclass(frozen=True)
class Part:
    """Some graphs of a batch by themselves.

    Args:
        graphs: the batch of them.
        nodes: rows of their nodes in the whole batch, int64 [n].
        edges: places of their edges there, int64 [e].
    """

    graphs: GraphBatch
    nodes: Tensor
    edges: Tensor

    @classmethod
    def of(cls, graphs: GraphBatch, chosen: Tensor) -> "Part":
        """Return the graphs that are chosen, bool [B]."""
        inside = chosen[graphs.batch]
        nodes, edges = inside.nonzero().squeeze(1), inside[graphs.edge_index[0]].nonzero().squeeze(1)
        number = inside.cumsum(0) - 1
        own = graph_batch(graphs.x[nodes], number[graphs.edge_index[:, edges]], graphs.ptr.diff()[chosen])
        return cls(own, nodes, edges)


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
