"""GraphCL's views as its authors' code makes them: each quirk by hand, and node by node in a plain loop."""

from typing import Any

import networkx as nx  # type: ignore[import-untyped]
import pytest
import torch
from torch_geometric.data import Data as Graph

import kontrast as kt
from kontrast.adapters import graph
from kontrast.adapters.graph.graphcl import EntryDropping, PaperCode, looped

Edges = list[tuple[int, int]]


def made(nodes: int, edges: Edges) -> Graph:
    both = [*edges, *((b, a) for a, b in edges if a != b)]
    return Graph(x=torch.arange(nodes).float()[:, None], edge_index=torch.tensor(both).long().reshape(-1, 2).T)


def items() -> list[Graph]:
    random = [nx.gnp_random_graph(n, 0.25, seed=n) for n in range(3, 15)]
    odd = [made(1, []), made(3, []), made(4, [(0, 1)]), made(4, [(2, 3)]), made(3, [(0, 1), (1, 2)])]
    return [*(made(len(plain), list(plain.edges)) for plain in random), *odd]


def edges_of(batch: Any, row: int) -> Edges:
    first, end = int(batch.ptr[row]), int(batch.ptr[row + 1])
    return sorted((a - first, b - first) for a, b in batch.edge_index.T.tolist() if first <= a < end)


def with_loops(item: Graph) -> Edges:
    """Return the entries of a graph as the code makes them: range(edge_index.max()), so the last node has no loop."""
    assert item.edge_index is not None
    entries = [(a, b) for a, b in item.edge_index.T.tolist()]
    return [*entries, *((n, n) for n in range(max((max(entry) for entry in entries), default=0)))]


def test_the_first_view_has_a_self_loop_on_every_node_before_the_last_one_with_an_edge() -> None:
    batch = graph.graphs(items()).batch(torch.arange(len(items())))
    first = graph.graphcl_views(paper_code=True)(batch, kt.Draws(0))[0].inputs
    for row, item in enumerate(items()):
        assert edges_of(first, row) == sorted(with_loops(item))
    assert torch.equal(first.x, batch.inputs.x)
    path = [(0, 1), (1, 0), (1, 2), (2, 1)]
    assert edges_of(first, len(items()) - 1) == sorted([*path, (0, 0), (1, 1)])


TRANSFORMS = {
    "nodes": graph.NodeDropping(0.4),
    "subgraph": graph.Subgraph(0.3, hops=1),
    "entries": EntryDropping(0.4),
    "attributes": graph.AttributeMasking(0.4),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_second_view_loses_nodes_in_no_entry_and_then_its_self_loops(name: str) -> None:
    inner = TRANSFORMS[name]
    batch = graph.graphs(items()).batch(torch.arange(len(items())))
    inputs = looped(batch.inputs)
    whole = kt.Batch(inputs, batch.ids)
    for seed in range(4):
        edit = inner.edit(inputs, batch.ids, kt.Draws(seed), 1)
        view = PaperCode(inner)(whole, kt.Draws(seed))[1]
        assert view.coords is not None
        for row in range(len(items())):
            start, end = int(inputs.ptr[row]), int(inputs.ptr[row + 1])
            kept = [n - start for n in range(start, end) if edit.nodes is None or edit.nodes[n]]
            entries = [
                (a - start, b - start)
                for place, (a, b) in enumerate(inputs.edge_index.T.tolist())
                if start <= a < end and a - start in kept and b - start in kept
                if edit.edges is None or edit.edges[place]
            ]
            nodes = sorted({n for entry in entries for n in entry}) or kept[:1]
            mine = view.coords[view.inputs.batch == row].tolist()
            assert mine == nodes, f"graph {row}"
            assert [(mine[a], mine[b]) for a, b in edges_of(view.inputs, row)] == sorted(
                entry for entry in entries if entry[0] != entry[1]
            )
            if name != "attributes":
                assert view.inputs.x[view.inputs.batch == row, 0].tolist() == nodes


def test_each_direction_and_each_self_loop_is_an_entry_that_goes_by_itself() -> None:
    batch = graph.graphs(items()).batch(torch.arange(len(items())))
    inputs = looped(batch.inputs)
    edges = EntryDropping(0.3).edit(inputs, batch.ids, kt.Draws(0), 0).edges
    assert edges is not None
    owner = inputs.batch[inputs.edge_index[0]].tolist()
    left = [pair for pair, stays in zip(inputs.edge_index.T.tolist(), edges.tolist(), strict=True) if stays]
    for row, item in enumerate(items()):
        count = len(with_loops(item))
        stay = sum(bool(stays) for mine, stays in zip(owner, edges, strict=True) if mine == row)
        assert stay == count - int(0.3 * count + 1e-9)
    assert any([b, a] not in left for a, b in left)
    assert sum(a == b for a, b in left) < sum(a == b for a, b in inputs.edge_index.T.tolist())


def test_the_choices_are_the_papers_and_each_is_drawn() -> None:
    star = made(40, [(0, n) for n in range(1, 40)])
    batch = graph.graphs([star] * 60).batch(torch.arange(60))
    for choices, sizes in ((2, 2), (3, 3), (4, 4)):
        second = graph.graphcl_views(choices=choices, paper_code=True)(batch, kt.Draws(0))[1]
        nodes, masked = second.inputs.ptr.diff(), torch.zeros(60, dtype=torch.bool)
        assert second.coords is not None
        masked[second.inputs.batch[second.inputs.x[:, 0] != second.coords]] = True
        assert (nodes >= 1).all()
        assert (second.inputs.edge_index[0] != second.inputs.edge_index[1]).all()
        kinds = {(int(n) < 12, int(n) <= 36, bool(m)) for n, m in zip(nodes, masked, strict=True)}
        assert len(kinds) == sizes, kinds
    assert batch.inputs.edge_index.shape[1] == 60 * 78  # what came in is as it was
