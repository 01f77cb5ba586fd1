"""How graphs are augmented: a transform proposes an edit of the whole batch, and the view is built once.

Shapes: B graphs, N nodes, E directed edges, F features of a node, K new edges.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric.data import Batch

import kontrast as kt
from kontrast.adapters.graph.arrays import columns, offsets
from kontrast.adapters.graph.batch import Flat, GraphBatch, Part, graph_batch
from kontrast.arrays import Array, array, library, tensor, true_at

__all__ = ["Edit", "GraphTransform", "GraphViews", "check_graphs"]


@dataclass(frozen=True)
class Edit:
    """What stays and what comes; None: nothing changes.

    Args:
        nodes: which nodes stay, bool [N]; a graph must keep one.
        edges: which edges stay, bool [E]; those of dropped nodes go with them.
        new_edges: nodes they join, int64 [2, K], each edge in both directions.
        x: other features [N, F], or [n, F] of these `rows`.
        rows: the nodes that `x` is of, int64 [n]; None: all.
    """

    nodes: Tensor | None = None
    edges: Tensor | None = None
    new_edges: Tensor | None = None
    x: Tensor | None = None
    rows: Tensor | None = None

    @classmethod
    def joined(cls, graphs: GraphBatch, parts: Sequence[tuple["Edit", "Part"]]) -> "Edit":
        """Return the edits of several parts of a batch, which share no graph, as one edit of it."""

        def kept(values: Sequence[tuple[Tensor | None, Array]], like: Array) -> Tensor | None:
            given = [(array(value), at) for value, at in values if value is not None]
            whole = library(like).ones_like(like, dtype=bool)
            for value, at in given:
                whole[at] = value
            return tensor(whole) if given else None

        new = [part.nodes[array(edit.new_edges)] for edit, part in parts if edit.new_edges is not None]
        other = [(edit.x, edit.rows, part.nodes) for edit, part in parts if edit.x is not None]
        rows = [at if rows is None else at[array(rows)] for _, rows, at in other]
        return cls(
            nodes=kept([(edit.nodes, part.nodes) for edit, part in parts], array(graphs.batch)),
            edges=kept([(edit.edges, part.edges) for edit, part in parts], array(graphs.edge_index)[0]),
            new_edges=tensor(library(new[0]).concatenate(new, 1)) if new else None,
            x=torch.cat([x for x, _, _ in other]) if other else None,
            rows=tensor(library(rows[0]).concatenate(rows)) if rows else None,
        )

    def view(self, batch: kt.Batch) -> kt.View:
        """Return the edited copy of a batch; its `coords` are the kept nodes' numbers in their unedited graphs."""
        graphs: GraphBatch = batch.inputs
        flat = Flat.of(graphs, batch.ids)
        # A node is known by its graph and its number there, whatever else is in the batch.
        x, edges, owner, ptr, coords = graphs.x, flat.edge_index, flat.owner, flat.ptr, flat.number
        other, at = self.x, self.rows
        if other is not None and at is None:
            x = other
        stays = None if self.edges is None else array(self.edges)
        new = None if self.new_edges is None else array(self.new_edges)
        if self.nodes is not None:
            kept = array(self.nodes)
            number = kept.cumsum(0)  # of those that stay, counted anew; -1: of those that go
            number *= kept
            number -= 1
            edges = number[edges]
            inside = (edges[0] | edges[1]) >= 0
            stays = inside if stays is None else inside & stays
            if new is not None:
                new = number[new]
                new = columns(new, true_at((new[0] | new[1]) >= 0))
            rows = true_at(kept)
            x, owner, coords = x.index_select(0, tensor(rows)), owner[rows], coords[rows]
            ptr = offsets(library(owner).bincount(owner, minlength=len(ptr) - 1))
            if at is not None and other is not None:
                new_at = number[array(at)]
                there = true_at(new_at >= 0)
                at, other = tensor(new_at[there]), other.index_select(0, tensor(there))
        elif at is not None:
            x = x.clone()
        if at is not None and other is not None:
            x.index_copy_(0, at, other.to(x.dtype))
        if stays is not None:
            edges = columns(edges, true_at(stays))
        if new is not None:
            edges = library(edges).concatenate((edges, new), 1)
        made = graph_batch(x, tensor(edges), tensor(owner), tensor(ptr))
        return kt.View(made, batch.ids, batch.labels, batch.groups, coords=tensor(coords))


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
