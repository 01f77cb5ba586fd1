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
from kontrast.adapters.graph.batch import GraphBatch, columns, graph_batch, node_number, offsets, true_at

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
                whole.index_copy_(0, at, value.to(whole.dtype))
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
        # A node is known by its graph and its number there, whatever else is in the batch.
        coords = node_number(graphs)
        x, edges, owner, ptr = graphs.x if self.x is None else self.x, graphs.edge_index, graphs.batch, graphs.ptr
        if self.edges is not None:
            edges = columns(edges, true_at(self.edges))
        if self.new_edges is not None:
            edges = torch.cat([edges, self.new_edges], 1)
        if self.nodes is not None:
            kept, _, edges = _inside(self.nodes, edges)
            x, owner, coords = x.index_select(0, kept), owner.index_select(0, kept), coords.index_select(0, kept)
            ptr = offsets(torch.bincount(owner, minlength=len(ptr) - 1))
        return replace(kt.View.of(batch, graph_batch(x, edges, ptr.diff(), owner, ptr)), coords=coords)


class Part:
    """Some graphs of a batch by themselves; a GraphBatch.

    Args:
        graphs: the whole batch.
        chosen: which of its graphs, bool [B].

    Attributes:
        nodes: rows of the chosen graphs' nodes in the whole batch, int64 [n].
        edges: places of their edges there, int64 [e].
        edge_index: those edges by the numbers of the part, int64 [2, e].
        batch: the graph of each node, int64 [n].
        ptr: where each graph begins, and where the last ends.
    """

    def __init__(self, graphs: GraphBatch, chosen: Tensor) -> None:
        self._x = graphs.x
        self.nodes, self.edges, self.edge_index = _inside(chosen.index_select(0, graphs.batch), graphs.edge_index)
        counts = graphs.ptr.diff()[chosen]
        self.ptr = offsets(counts)
        self.batch = torch.repeat_interleave(counts, output_size=len(self.nodes))

    @property
    def x(self) -> Tensor:
        """Features [n, F]; taken when they are asked for, since most transforms do not look at them."""
        return self._x.index_select(0, self.nodes)


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


def _inside(nodes: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return where nodes, bool [N], are true, where edges have both ends among them, and those edges by new numbers."""
    number = nodes.cumsum(0).mul_(nodes).sub_(1)
    ends = number.index_select(0, edge_index.reshape(-1)).reshape(2, -1)
    edges = true_at((ends[0] | ends[1]) >= 0)
    return true_at(nodes), edges, columns(ends, edges)
