"""GRACE's two augmentations, which keep every node: edges go, and features are hidden.

Shapes: B graphs, N nodes, E directed edges, F features of a node.
"""

import torch
from torch import Tensor

import kontrast as kt
from kontrast.adapters.graph.batch import Flat, GraphBatch
from kontrast.adapters.graph.chance import per_edge, unit
from kontrast.adapters.graph.edit import Edit, GraphTransform, GraphViews
from kontrast.arrays import tensor

__all__ = ["EdgeDropping", "FeatureMasking", "Together", "grace_views"]

DROPPED, HIDDEN = 20, 21  # streams of random numbers


class EdgeDropping(GraphTransform):
    """Each undirected edge goes with a probability of its own draw.

    Args:
        ratio: the probability, in [0, 1).
        num_views: copies per graph.

    Source:
        Zhu et al. 2020, arXiv:2006.04131, section 3.2.1. Both directions of an edge go together; in its code each does
        by itself.
    """

    def __init__(self, ratio: float = 0.3, *, num_views: int = 2) -> None:
        super().__init__(num_views)
        self.ratio = _probability(ratio)

    def edit(self, graphs: GraphBatch, ids: Tensor, draws: kt.Draws, view: int) -> Edit:
        """Keep the edges that draw `ratio` or more."""
        return Edit(edges=tensor(unit(per_edge(Flat.of(graphs, ids), draws, view, DROPPED)) >= self.ratio))


class FeatureMasking(GraphTransform):
    """Each feature is zero on all nodes of a graph, with a probability of its own draw.

    Args:
        ratio: the probability, in [0, 1).
        num_views: copies per graph.

    Source:
        Zhu et al. 2020, arXiv:2006.04131, section 3.2.2.
    """

    def __init__(self, ratio: float = 0.3, *, num_views: int = 2) -> None:
        super().__init__(num_views)
        self.ratio = _probability(ratio)

    def edit(self, graphs: GraphBatch, ids: Tensor, draws: kt.Draws, view: int) -> Edit:
        """Hide features."""
        kept = draws.uniform(ids, graphs.x.shape[1], view=view, stream=HIDDEN) >= self.ratio
        return Edit(x=kept.to(graphs.x.dtype).index_select(0, graphs.batch).mul_(graphs.x))


class Together(GraphTransform):
    """Several transforms at once, each seeing the graphs as they came; not two that change the same of a graph.

    Args:
        transforms: e.g. one that drops edges and one that hides features.
        num_views: copies per graph.
    """

    def __init__(self, *transforms: GraphTransform, num_views: int = 2) -> None:
        super().__init__(num_views)
        if not transforms:
            raise kt.InvalidValueError("Together must be given transforms, got none")
        self.transforms = torch.nn.ModuleList(transforms)

    def edit(self, graphs: GraphBatch, ids: Tensor, draws: kt.Draws, view: int) -> Edit:
        """Return all that changes."""
        changes: dict[str, Tensor] = {}
        for transform in self.transforms:
            assert isinstance(transform, GraphTransform)
            edit = transform.edit(graphs, ids, draws, view)
            for name, value in vars(edit).items():
                if value is None:
                    continue
                if name in changes:
                    raise kt.IncompatibleError(
                        f"the transforms of Together must change different things, and two change `{name}`; leave "
                        f"{type(transform).__name__} out"
                    )
                changes[name] = value
        return Edit(**changes)


def grace_views(
    edge_ratio_1: float = 0.3, edge_ratio_2: float = 0.3, feature_ratio_1: float = 0.3, feature_ratio_2: float = 0.3
) -> kt.Augmenter:
    """Return GRACE's two views.

    Args:
        edge_ratio_1: probability that an edge is dropped in the first view.
        edge_ratio_2: the same in the second.
        feature_ratio_1: probability that a feature is hidden in the first view.
        feature_ratio_2: the same in the second.

    Raises:
        InvalidValueError: if a probability is not in [0, 1).

    Source:
        Zhu et al. 2020, arXiv:2006.04131; the paper chooses the four for each data set, between 0 and 0.5.
    """
    return GraphViews(
        Together(EdgeDropping(edge_ratio_1), FeatureMasking(feature_ratio_1)),
        Together(EdgeDropping(edge_ratio_2), FeatureMasking(feature_ratio_2)),
    )


def _probability(value: float) -> float:
    if not 0 <= value < 1:
        raise kt.InvalidValueError(f"`ratio` must be in [0, 1), got {value!r}")
    return value
