"""Edge perturbation, edge by edge in a plain loop on the same random numbers; graphs whose edges go one way alone."""

import math
from typing import Any

import networkx as nx  # type: ignore[import-untyped]
import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data as Graph

import kontrast as kt
from kontrast.adapters import graph
from kontrast.adapters.graph.edges import EDGES, MOST_CANDIDATES, NEW_EDGES


def made(nodes: int, edges: list[tuple[int, int]]) -> Graph:
    return Graph(x=torch.ones(nodes, 1), edge_index=torch.tensor(edges, dtype=torch.int64).reshape(-1, 2).T)


def one_way() -> list[Graph]:
    """Directed graphs: some pairs joined both ways, most one way; a single edge, none, self-loops, a full graph."""
    random = [nx.gnp_random_graph(n, 0.3, seed=n, directed=True) for n in range(4, 12)]
    drawn = [made(len(plain), list(plain.edges)) for plain in random]
    full = made(3, [(a, b) for a in range(3) for b in range(3) if a != b])
    return [*drawn, made(2, [(0, 1)]), made(3, []), made(1, [(0, 0)]), made(4, [(2, 2), (0, 1), (1, 0), (3, 0)]), full]


def both_ways() -> list[Graph]:
    edges = ([(a, b) for a, b in item.edge_index.T.tolist()] for item in one_way() if item.edge_index is not None)
    sizes = [int(item.num_nodes or 0) for item in one_way()]
    return [made(n, sorted({*own, *((b, a) for a, b in own)})) for n, own in zip(sizes, edges, strict=True)]


def perturbed(
    item: Graph, sample: int, draws: kt.Draws, view: int, *, ratio: float, add: bool, undirected: bool
) -> set[tuple[int, int]]:
    """Return what an edge perturbation leaves of one graph."""
    assert item.edge_index is not None
    n, given = int(item.num_nodes or 0), {(a, b) for a, b in item.edge_index.T.tolist()}

    def bits(number: int, stream: int) -> int:
        one = torch.tensor
        return int(draws.bits(one([sample]), one([0]), one([number]), view=view, stream=stream))

    edges = {(min(a, b), max(a, b)) if undirected else (a, b) for a, b in given if a != b}
    leaving = math.floor(ratio * len(edges) + 1e-9)
    stay = sorted(edges, key=lambda edge: bits(edge[0] * n + edge[1], EDGES))[leaving:]
    pairs = n * (n - 1) // (2 if undirected else 1)
    wanted = min(leaving, pairs - len(edges)) if add else 0
    new: list[tuple[int, int]] = []
    for number in range(wanted * min(MOST_CANDIDATES, math.ceil(3 * pairs / max(1, pairs - len(edges))))):
        start = bits(2 * number, NEW_EDGES) * n >> 40
        end = (start + 1 + (bits(2 * number + 1, NEW_EDGES) * (n - 1) >> 40)) % n
        pair = (min(start, end), max(start, end)) if undirected else (start, end)
        if len(new) < wanted and pair not in edges and pair not in new:
            new.append(pair)
    left = {*stay, *new}
    return {*left, *((b, a) for a, b in left if undirected), *((a, b) for a, b in given if a == b)}


@pytest.mark.parametrize("undirected", [True, False])
@pytest.mark.parametrize("add", [True, False])
@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.99])
def test_edges_are_exchanged_as_in_a_plain_loop(undirected: bool, add: bool, ratio: float) -> None:
    items = both_ways() if undirected else one_way()
    batch = graph.graphs(items, undirected=undirected).batch(torch.arange(len(items)))
    transform = graph.EdgePerturbation(ratio, add=add, undirected=undirected)
    for seed in range(3):
        for number, view in enumerate(transform(batch, kt.Draws(seed))):
            for row, item in enumerate(items):
                expected = perturbed(item, row, kt.Draws(seed), number, ratio=ratio, add=add, undirected=undirected)
                assert edges_of(view.inputs, row) == expected, f"graph {row}"


def edges_of(batch: Any, row: int) -> set[tuple[int, int]]:
    first, end = int(batch.ptr[row]), int(batch.ptr[row + 1])
    own = [(a - first, b - first) for a, b in batch.edge_index.T.tolist() if first <= a < end]
    assert len(own) == len(set(own))
    return set(own)


def test_directed_graphs_are_refused_by_name_where_undirected_ones_are_needed() -> None:
    items = [*both_ways()[:5], made(3, [(0, 1), (1, 0), (1, 2)]), made(2, [])]
    data = graph.graphs(items, undirected=False)
    batch = data.batch(torch.tensor([6, 5, 4]))
    for transform in (graph.EdgePerturbation(), graph.OneOf(graph.EdgePerturbation()), graph.graphcl_views()):
        with pytest.raises(kt.InvalidValueError, match=r"graph 5 has one that does not; .*undirected=False"):
            [transform(batch, kt.Draws(seed)) for seed in range(20)]  # until graph 5 draws it
    with pytest.raises(kt.InvalidValueError, match="graph 1 of this batch has one that does not"):
        graph.StructuralGIN()(batch.inputs)
    view = graph.EgoSubgraphs(hops=64)(batch, kt.Draws(0))[0]
    with pytest.raises(kt.InvalidValueError, match="graph 5 has one that does not"):
        graph.StructuralGIN().encode(view, torch.arange(3))


@pytest.mark.parametrize("make", [graph.EdgeDropping, graph.NodeDropping, graph.Subgraph, graph.EgoSubgraphs])
def test_what_drops_parts_of_directed_graphs_turns_no_edge(make: Any) -> None:
    items = one_way()
    batch = graph.graphs(items, undirected=False).batch(torch.arange(len(items)))
    view = make()(batch, kt.Draws(1))[0]
    assert view.coords is not None
    for row, item in enumerate(items):
        assert item.edge_index is not None
        kept: Tensor = view.coords[view.inputs.batch == row]
        left = {(int(kept[a]), int(kept[b])) for a, b in edges_of(view.inputs, row)}
        assert left <= {(a, b) for a, b in item.edge_index.T.tolist()}
