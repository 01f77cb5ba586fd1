"""The nodes of one large graph as samples: what walks around them visit, against a walk hop by hop."""

from collections import Counter
from typing import Any

import networkx as nx  # type: ignore[import-untyped]
import pytest
import torch
from torch_geometric.data import Data as Graph
from torch_geometric.utils import from_networkx

import kontrast as kt
from kontrast.adapters import graph
from kontrast.plugins.gcc import gcc
from kontrast.testing import check_method


def whole() -> Graph:
    """A clique with a tail, a hub, a self-loop, and a node by itself."""
    plain = nx.lollipop_graph(5, 4)
    plain.add_edges_from([(20, n) for n in range(9, 20)] + [(20, 0), (3, 3)])
    plain.add_node(21)
    item = from_networkx(nx.convert_node_labels_to_integers(plain, ordering="sorted"))
    item.x = torch.arange(22).float()[:, None]
    item.y = torch.arange(22) % 3
    return item


def test_a_sample_is_the_nodes_of_a_walk_with_all_edges_among_them() -> None:
    item = whole()
    nodes = graph.EgoNetworks(item, walks=graph.EgoSubgraphs(hops=6, restart=0.3))
    assert item.edge_index is not None
    given = {(a, b) for a, b in item.edge_index.T.tolist()}
    chosen = torch.tensor([20, 3, 21, 0, 8])
    batch = nodes.batch(chosen)
    assert batch.labels is not None
    assert batch.labels.tolist() == (chosen % 3).tolist()
    for made in (batch.inputs, *(view.inputs for view in nodes.views()(batch, kt.Draws(4)))):
        for row, node in enumerate(chosen.tolist()):
            own = made.x[made.batch == row, 0].long().tolist()
            assert own == sorted(set(own))
            start = int(made.ptr[row])
            edges = [(own[a - start], own[b - start]) for a, b in made.edge_index.T.tolist() if made.batch[a] == row]
            assert sorted(edges) == sorted((a, b) for a, b in given if a in own and b in own)
            assert [n for n, seed in zip(own, made.seed[made.batch == row], strict=True) if seed] == [node]
    assert batch.inputs.ptr.diff()[2] == 1  # the node by itself


def test_a_walk_visits_each_node_as_often_as_one_hop_by_hop() -> None:
    item, hops, restart, times = whole(), 9, 0.4, 1500
    nodes = graph.EgoNetworks(item, walks=graph.EgoSubgraphs(hops=hops, restart=restart, power=0.0))
    assert item.edge_index is not None
    around: dict[int, list[int]] = {n: [] for n in range(22)}
    for a, b in item.edge_index.T.tolist():
        around[a].append(b)
    seeds, views = torch.tensor([0, 6, 20]), nodes.views()
    found: dict[int, Counter[int]] = {n: Counter() for n in seeds.tolist()}
    for seed in range(times):
        view = views(nodes.batch(seeds), kt.Draws(seed))[0]
        assert view.coords is not None
        for row, node in zip(view.inputs.batch.tolist(), view.coords.tolist(), strict=True):
            found[int(seeds[row])][node] += 1
    generator = torch.Generator().manual_seed(0)
    turns, ends = (torch.rand(3, times, hops, generator=generator).tolist() for _ in range(2))
    for number, start in enumerate(seeds.tolist()):
        plain: Counter[int] = Counter()
        for turn, end in zip(turns[number], ends[number], strict=True):
            here, seen = start, {start}
            for which, returns in zip(turn, end, strict=True):
                here = around[here][int(which * len(around[here]))]
                seen.add(here)
                here = start if returns < restart else here
            plain.update(seen)
        for node in range(22):
            share = (plain[node] + found[start][node]) / (2 * times)
            error = (2 * share * (1 - share) / times) ** 0.5
            assert abs(plain[node] - found[start][node]) / times <= 4.5 * error, (start, node)


def test_a_sample_is_the_same_in_any_batch_and_its_views_are_walks_of_their_own() -> None:
    nodes = graph.EgoNetworks(whole(), walks=graph.EgoSubgraphs(hops=8, restart=0.2))
    every = torch.arange(len(nodes))
    together = nodes.views()(nodes.batch(every), kt.Draws(0, 3))
    alone = nodes.views()(nodes.batch(torch.tensor([8])), kt.Draws(0, 3))
    for one, many in zip(alone, together, strict=True):
        assert many.coords is not None
        assert torch.equal(one.coords, many.coords[many.inputs.batch == 8])
    assert together[0].coords is not None
    assert together[1].coords is not None
    assert together[0].coords.tolist() != together[1].coords.tolist()
    evaluated = nodes.batch(every).inputs.x.tolist()
    assert evaluated == nodes.batch(every).inputs.x.tolist()
    for view in nodes.views()(nodes.batch(every), kt.Draws(0)):
        assert view.inputs.x.tolist() != evaluated


@pytest.mark.usefixtures("gloo")
def test_gcc_passes_every_check_on_the_nodes_of_one_graph_on_two_and_three_processes_too() -> None:
    torch.manual_seed(0)
    nodes = graph.EgoNetworks(from_networkx(nx.karate_club_graph().__class__(nx.karate_club_graph().edges)))
    method = gcc(graph.StructuralGIN(6, 2, eigenvectors=4, degree_size=3), projection_size=6, queue_size=13)
    check_method(method, data=nodes, augmenter=nodes.views())


def test_gcc_trains_on_the_nodes_of_one_graph_and_is_judged_by_their_labels() -> None:
    torch.manual_seed(0)
    item = from_networkx(nx.planted_partition_graph(2, 30, 0.3, 0.02, seed=0))
    item.y = torch.arange(60) // 30
    del item["block"], item["partition"]
    nodes = graph.EgoNetworks(item, walks=graph.EgoSubgraphs(hops=16))
    run = kt.Run(
        gcc(graph.StructuralGIN(8, 2, eigenvectors=4), projection_size=8, queue_size=64, momentum=0.9),
        nodes,
        augmenter=nodes.views(),
        epochs=2,
        batch_size=20,
        device="cpu",
        observers=(),
    )
    run.fit()
    found = kt.evaluate.embed(run.encoder, nodes)
    assert found.rows.shape == (60, 16)
    assert found.labels is not None
    assert torch.equal(found.labels, item.y)


def test_labels_are_one_per_node() -> None:
    item: Any = whole()
    assert graph.EgoNetworks(item, labels=torch.zeros(22).long()).labels is not None
    with pytest.raises(kt.InvalidValueError, match=r"`labels` must be int64 \[22\], one per node, got torch.int64 \[3"):
        graph.EgoNetworks(item, labels=torch.zeros(3).long())
    item.edge_index = item.edge_index[:, :1]
    with pytest.raises(kt.InvalidValueError, match="graph 0 has one that does not"):
        graph.EgoNetworks(item)
