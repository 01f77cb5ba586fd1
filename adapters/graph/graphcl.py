"""GraphCL's pair of views: as the paper has them, and as its authors' code makes them.

Shapes: B graphs, N nodes, E directed edges.
"""

from dataclasses import replace

from torch import Tensor

import kontrast as kt
from kontrast.adapters.graph.arrays import lower, lowest, offsets, zeros
from kontrast.adapters.graph.batch import Flat, GraphBatch, graph_batch
from kontrast.adapters.graph.chance import part_of, per_edge, share
from kontrast.adapters.graph.edges import EdgePerturbation
from kontrast.adapters.graph.edit import Edit, GraphTransform, GraphViews, check_graphs
from kontrast.adapters.graph.transforms import AttributeMasking, NodeDropping, OneOf, Subgraph, Unchanged
from kontrast.arrays import array, library, tensor, true_at

__all__ = ["EntryDropping", "PaperCode", "PaperCodeViews", "graphcl_views"]

ENTRIES = 9  # stream of random numbers


def graphcl_views(ratio: float = 0.1, keep: float = 0.2, choices: int = 4, paper_code: bool = False) -> kt.Augmenter:
    """Return GraphCL's pair of views: the graph as it is, and one augmentation drawn for each graph.

    Args:
        ratio: share of nodes dropped, edges exchanged or attributes masked, in [0, 1).
        keep: share of nodes that a subgraph keeps, in (0, 1].
        choices: 2: node dropping and subgraph; 3: edge perturbation too; 4: attribute masking too.
        paper_code: as the authors' code, not as the paper, see `PaperCodeViews`: edges are removed and none added,
            subgraphs end at the seed's neighbours, self-loops come and go, and nodes without an edge are lost.

    Raises:
        InvalidValueError: if a parameter is out of range.

    Source:
        You et al. 2020, arXiv:2010.13902; `random2` to `random4` of its unsupervised setting.
    """
    if choices not in (2, 3, 4):
        raise kt.InvalidValueError(f"`choices` must be 2, 3 or 4, got {choices!r}")
    if paper_code:
        return PaperCodeViews(ratio, keep, choices)
    transforms = (NodeDropping(ratio), Subgraph(keep), EdgePerturbation(ratio), AttributeMasking(ratio))
    return GraphViews(Unchanged(), OneOf(*transforms[:choices]))


class PaperCodeViews(GraphViews):
    """The two views as the authors' code makes them.

    1. The nodes before the last one that has an edge, in the order of their numbers, get self-loops: one too few.
    2. The first view is that graph.
    3. The second is one augmentation of it. A subgraph holds neighbours of its seed alone. Edge perturbation removes a
       share of the entries of `edge_index` and adds none: an entry is one direction of an edge, or a self-loop.
    4. Of the second view, whichever augmentation it was, nodes in no entry are lost, and then the self-loops go.

    Args:
        ratio: see `graphcl_views`, like the rest.
        keep: likewise.
        choices: likewise.

    Source:
        The unsupervised setting of the code of You et al. 2020, arXiv:2010.13902. Differs from it: a graph that would
        be lost whole keeps its first node that was not dropped, since a batch must not lose a sample; the code tries as
        often to draw another neighbour of the seed as the graph has nodes and may miss some, here none is missed.
        The code evaluates graphs with the self-loops of step 1; no augmenter sees what is evaluated, so here they
        are evaluated as they are.
    """

    def __init__(self, ratio: float = 0.1, keep: float = 0.2, choices: int = 4) -> None:
        transforms = (NodeDropping(ratio), Subgraph(keep, hops=1), EntryDropping(ratio), AttributeMasking(ratio))
        super().__init__(Unchanged(), PaperCode(OneOf(*transforms[:choices])))

    def forward(self, batch: kt.Batch, draws: kt.Draws) -> list[kt.View]:
        """Return the views of a torch_geometric Batch."""
        check_graphs(batch.inputs)
        return super().forward(replace(batch, inputs=looped(batch.inputs)), draws)


class PaperCode(GraphTransform):
    """What the authors' code does after an augmentation: nodes in no entry are lost, then the self-loops go.

    Args:
        transform: the augmentation.
        num_views: copies per graph.
    """

    def __init__(self, transform: GraphTransform, *, num_views: int = 2) -> None:
        super().__init__(num_views)
        self.transform = transform

    def edit(self, graphs: GraphBatch, ids: Tensor, draws: kt.Draws, view: int) -> Edit:
        """Return the augmentation's edit with that."""
        edit = self.transform.edit(graphs, ids, draws, view)
        flat = Flat.of(graphs, ids)
        xp, start, end = library(flat.owner), flat.start, flat.end
        kept = xp.ones_like(flat.owner, dtype=bool) if edit.nodes is None else array(edit.nodes)
        entries = kept[start] & kept[end]
        if edit.edges is not None:
            entries = entries & array(edit.edges)
        nodes = xp.zeros_like(kept)
        nodes[start[entries]] = True
        nodes[end[entries]] = True
        lost = xp.bincount(flat.owner[nodes], minlength=len(ids)) == 0
        first = lowest(flat.owner, flat.number + len(kept) * ~kept, flat.ptr[:-1], xp.asarray(lost, dtype=xp.int64))
        return Edit(nodes=tensor(nodes | first), edges=tensor(entries & (start != end)), x=edit.x, rows=edit.rows)


class EntryDropping(GraphTransform):
    """A share of each graph's entries of `edge_index` goes: each direction of an edge by itself, and self-loops.

    Args:
        ratio: share of entries that go, in [0, 1).
        num_views: copies per graph.
    """

    def __init__(self, ratio: float = 0.1, *, num_views: int = 2) -> None:
        super().__init__(num_views)
        self.ratio = share(ratio, "ratio")

    def edit(self, graphs: GraphBatch, ids: Tensor, draws: kt.Draws, view: int) -> Edit:
        """Drop floor(ratio x entries) entries of each graph."""
        flat = Flat.of(graphs, ids)
        entries = library(flat.owner).bincount(flat.edge_owner, minlength=len(ids))
        bits = per_edge(flat, draws, view, ENTRIES, undirected=False)
        gone = lowest(flat.edge_owner, bits, offsets(entries)[:-1], part_of(entries, self.ratio))
        return Edit(edges=tensor(~gone))


def looped(graphs: GraphBatch) -> GraphBatch:
    """Return graphs with self-loops on the nodes whose number is lower than that of the last node with an edge."""
    flat = Flat.of(graphs, graphs.ptr[1:])
    last = zeros(len(flat.counts), flat.counts)
    lower(last, flat.owner[flat.start], -flat.number[flat.start])
    lower(last, flat.owner[flat.end], -flat.number[flat.end])
    at = true_at(flat.number < -last[flat.owner])
    xp = library(at)
    edges = tensor(xp.concatenate((flat.edge_index, xp.stack((at, at))), 1))
    return graph_batch(graphs.x, edges, graphs.batch, graphs.ptr)
