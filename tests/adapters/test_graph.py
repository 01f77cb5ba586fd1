import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_geometric.data import Batch
from torch_geometric.data import Data as Graph
from torch_geometric.utils import erdos_renyi_graph, to_undirected

import kontrast as kt
from kontrast.adapters import graph
from kontrast.plugins.graphcl import graphcl
from kontrast.testing import check_method

SETS = Path(os.environ.get("KONTRAST_DATA", "../shared/data")) / "tu-graphs"
with_sets = pytest.mark.skipif(not SETS.is_dir(), reason="needs the folder `tu-graphs` of KONTRAST_DATA")


def items(count: int = 12, seed: int = 0) -> list[Graph]:
    """Random graphs, and at the end: one node, no edges, an isolated node beside an edge, a self-loop, a clique."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = [
            Graph(x=torch.randn(n, 3), edge_index=erdos_renyi_graph(n, 0.3), y=torch.tensor([n % 2]))
            for n in range(5, 5 + count)
        ]
        clique = [(a, b) for a in range(4) for b in range(4) if a != b]
        for n, edges in ((1, []), (3, []), (3, [(0, 1), (1, 0)]), (2, [(0, 0), (0, 1), (1, 0)]), (4, clique)):
            edge_index = torch.tensor(edges, dtype=torch.int64).reshape(-1, 2).T
            made.append(Graph(x=torch.randn(n, 3), edge_index=edge_index, y=torch.tensor([0])))
    return made


def edges_of(batch: Any, row: int) -> set[tuple[int, int]]:
    """Return the edges of one graph, by its own numbers."""
    first, end = int(batch.ptr[row]), int(batch.ptr[row + 1])
    own = [(a - first, b - first) for a, b in batch.edge_index.T.tolist() if first <= a < end]
    assert len(own) == len(set(own))
    return set(own)


# --- data


def test_a_batch_is_torch_geometrics() -> None:
    data = graph.graphs(items())
    chosen = [3, 0, 12, 15, 7]
    batch = data.batch(torch.tensor(chosen))
    plain: Any = Batch.from_data_list([items()[index] for index in chosen])
    for name in ("x", "edge_index", "batch", "ptr"):
        assert torch.equal(getattr(batch.inputs, name), getattr(plain, name)), name
    assert batch.inputs.num_graphs == 5
    assert batch.labels is not None
    assert batch.labels.tolist() == [int(torch.as_tensor(items()[index].y)) for index in chosen]
    assert batch.ids.tolist() == chosen


def _with(**fields: Any) -> list[Graph]:
    broken = Graph(x=torch.ones(2, 3), edge_index=torch.tensor([[0, 1], [1, 0]]), y=torch.tensor([1]))
    for name, value in fields.items():
        setattr(broken, name, value)
    return [items()[0], broken]


BROKEN: list[tuple[list[Graph], str]] = [
    ([], "at least one graph"),
    (
        _with(x=torch.ones(0, 3), edge_index=torch.zeros(2, 0, dtype=torch.int64)),
        "graph 1 must have at least one node",
    ),
    (_with(edge_index=torch.tensor([[0, 2], [2, 0]])), "`edge_index` of graph 1 must be in 0..1, its nodes, got 2"),
    (_with(edge_index=torch.tensor([[0, -1], [-1, 0]])), "of graph 1 must be in 0..1, its nodes, got -1"),
    (_with(edge_index=torch.ones(2, 2)), "of graph 1 must be int64"),
    (_with(edge_index=torch.tensor([[0], [1]])), "graph 1 has one that does not"),
    (_with(x=torch.ones(2, 4)), "graph 1 must have 3 features per node as graph 0 has, got 4"),
    (_with(x=torch.tensor([[0.0, 1, 2], [0, math.nan, 0]])), "NaN or infinity at node 1 of graph 1"),
    (_with(x=None, num_nodes=2), "graph 1 must have features"),
]


@pytest.mark.parametrize(("given", "sentence"), BROKEN)
def test_a_broken_graph_is_named(given: list[Graph], sentence: str) -> None:
    with pytest.raises(kt.InvalidValueError, match=sentence.replace("[", r"\[")):
        graph.graphs(given)


def test_directed_graphs_pass_where_they_may_and_bare_ones_get_a_constant() -> None:
    assert len(graph.graphs(_with(edge_index=torch.tensor([[0], [1]])), undirected=False)) == 2
    bare = [Graph(edge_index=item.edge_index, num_nodes=item.num_nodes) for item in items()]
    assert torch.equal(graph.graphs(bare).x, torch.ones(sum(int(item.num_nodes or 0) for item in items()), 1))


def test_the_embedded_set_is_the_same_every_time_and_draws_no_global_numbers() -> None:
    states = torch.get_rng_state(), str(np.random.get_state())
    first, again = graph.load("ba2motifs").train, graph.load("ba2motifs").train
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == str(np.random.get_state())
    assert torch.equal(first.edge_index, again.edge_index)
    assert first.labels is not None
    assert first.labels.bincount().tolist() == [500, 500]


@with_sets
@pytest.mark.parametrize(
    ("name", "count", "nodes", "edges", "features"),
    [("MUTAG", 188, 3371, 3721, 7), ("IMDB-BINARY", 1000, 19773, 96531, 1), ("proteins", 1113, 43471, 81044, 3)],
)
def test_powerful_gnns_files_are_found_by_name(name: str, count: int, nodes: int, edges: int, features: int) -> None:
    data = graph.load(name, SETS).train
    assert (len(data), len(data.x), data.edge_index.shape[1], data.num_features) == (count, nodes, 2 * edges, features)


def test_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "TINY").mkdir()
    (tmp_path / "TINY" / "TINY.txt").write_text("2\n2 0\n5 1 1\n7 1 0\n1 1\n5 0\n")
    for source, root in (("tiny", tmp_path), (tmp_path / "TINY", None), (tmp_path / "TINY" / "TINY.txt", None)):
        data = graph.load(source, root).train
        assert data.x.tolist() == [[1, 0], [0, 1], [1, 0]]
        assert data.edge_index.tolist() == [[0, 1], [1, 0]]
        assert data.labels is not None
        assert data.labels.tolist() == [0, 1]
    torch.save(items(), tmp_path / "some.pt")
    assert torch.equal(graph.load(tmp_path / "some.pt").train.x, graph.graphs(items()).x)
    raw = tmp_path / "RAW" / "raw"
    raw.mkdir(parents=True)
    (raw / "RAW_A.txt").write_text("1, 2\n2, 1\n4, 5\n5, 4\n")
    (raw / "RAW_graph_indicator.txt").write_text("1\n1\n1\n2\n2\n")
    (raw / "RAW_graph_labels.txt").write_text("1\n-1\n")
    (raw / "RAW_node_labels.txt").write_text("0\n1\n0\n1\n1\n")
    data = graph.load("RAW", tmp_path).train
    assert data.num_nodes.tolist() == [3, 2]
    assert data.edge_index.tolist() == [[0, 1, 3, 4], [1, 0, 4, 3]]
    assert data.num_features == 2


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(kt.UnknownNameError, match="did you mean `ba2motifs`"):
        graph.load("ba2motif")
    (tmp_path / "broken.txt").write_text("2\n2 0\n5 1 1\n")
    with pytest.raises(kt.InvalidValueError, match="graph 0 near line 2"):
        graph.load(tmp_path / "broken.txt")
    torch.save([Path("x")], tmp_path / "code.pt")
    with pytest.raises(kt.InvalidValueError, match=r"code\.pt must hold graphs saved by torch.save"):
        graph.load(tmp_path / "code.pt")
    torch.save({"x": 1}, tmp_path / "other.pt")
    with pytest.raises(kt.InvalidValueError, match="must hold a list of torch_geometric Data, got dict"):
        graph.load(tmp_path / "other.pt")


# --- augmentation

TRANSFORMS = {
    "nodes": graph.NodeDropping(0.3),
    "edges": graph.EdgePerturbation(0.3),
    "edges-removed": graph.EdgePerturbation(0.3, add=False),
    "attributes": graph.AttributeMasking(0.3),
    "subgraph": graph.Subgraph(0.5),
    "one-hop": graph.Subgraph(0.5, hops=1),
    "edges-dropped": graph.EdgeDropping(0.3),
    "features": graph.FeatureMasking(0.3),
    "ego": graph.EgoSubgraphs(hops=8, restart=0.5),
    "one-of": graph.OneOf(graph.NodeDropping(0.3), graph.Subgraph(0.5), graph.EdgePerturbation(0.3)),
}


def views(transform: graph.GraphTransform, indices: list[int], seed: int = 0) -> tuple[Any, kt.View]:
    batch = graph.graphs(items()).batch(torch.tensor(indices))
    return batch.inputs, transform(batch, kt.Draws(seed))[1]


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_graph_is_augmented_alike_in_any_batch(name: str) -> None:
    every = list(range(len(items())))
    _, together = views(TRANSFORMS[name], every)
    assert together.coords is not None
    for row in every:
        _, alone = views(TRANSFORMS[name], [row])
        own = together.inputs.batch == row
        assert torch.equal(alone.inputs.x, together.inputs.x[own])
        assert edges_of(alone.inputs, 0) == edges_of(together.inputs, row)
        assert alone.coords is not None
        assert torch.equal(alone.coords, together.coords[own])


@pytest.mark.parametrize("name", TRANSFORMS)
def test_views_are_graphs_whose_nodes_say_where_they_come_from(name: str) -> None:
    for seed in range(5):
        given, view = views(TRANSFORMS[name], list(range(len(items()))), seed)
        made = view.inputs
        assert (made.ptr.diff() >= 1).all()
        assert view.coords is not None
        moved = view.coords + given.ptr[made.batch]
        if name not in ("attributes", "features"):
            assert torch.equal(made.x, given.x[moved])
        for row in range(len(view.ids)):
            own = edges_of(made, row)
            assert {(b, a) for a, b in own} == own
            kept = view.coords[made.batch == row].tolist()
            before = {(kept.index(a), kept.index(b)) for a, b in edges_of(given, row) if a in kept and b in kept}
            if "edge" not in name and name != "one-of":
                assert own == before
            if name in ("edges-removed", "edges-dropped"):
                assert own <= before


def test_how_much_is_changed() -> None:
    given, view = views(graph.NodeDropping(0.3), list(range(17)))
    assert view.inputs.ptr.diff().tolist() == [n - int(0.3 * n + 1e-9) for n in given.ptr.diff().tolist()]
    given, view = views(graph.AttributeMasking(0.3), list(range(17)))
    changed = (view.inputs.x != given.x).all(1)
    expected = [int(0.3 * n + 1e-9) for n in given.ptr.diff().tolist()]
    assert torch.bincount(given.batch[changed], minlength=17).tolist() == expected
    assert ((view.inputs.x != given.x).any(1) == changed).all()
    given, view = views(graph.EdgePerturbation(0.3), list(range(12)))
    for row in range(12):
        before, after = edges_of(given, row), edges_of(view.inputs, row)
        gone = 2 * int(0.3 * len(before) / 2 + 1e-9)
        assert len(before - after) == gone
        assert len(after - before) == gone
    _, view = views(graph.EdgePerturbation(0.3), [16])  # a clique has no room for new ones
    assert len(edges_of(view.inputs, 0)) == 12 - 2


def test_noise_is_normal() -> None:
    data = graph.graphs([Graph(x=torch.zeros(4000, 3), edge_index=torch.zeros(2, 0, dtype=torch.int64))])
    view = graph.AttributeMasking(0.5)(data.batch(torch.tensor([0])), kt.Draws(0))[0]
    noise = view.inputs.x[(view.inputs.x != 0).all(1)]
    assert len(noise) == 2000
    assert float(noise.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(noise.std()) == pytest.approx(0.5, abs=0.03)
    assert float(((noise - 0.5).abs() < 0.5).float().mean()) == pytest.approx(0.683, abs=0.03)


def test_a_subgraph_is_connected_and_as_large_as_asked() -> None:
    ring = to_undirected(torch.stack([torch.arange(40), (torch.arange(40) + 1) % 40]))
    data = graph.graphs([Graph(x=torch.ones(40, 1), edge_index=ring)] * 20)
    view = graph.Subgraph(0.2)(data.batch(torch.arange(20)), kt.Draws(0))[0]
    assert view.inputs.ptr.diff().tolist() == [9] * 20
    assert view.coords is not None
    seeds = set()
    for row in range(20):
        nodes = view.coords[view.inputs.batch == row]
        assert len(edges_of(view.inputs, row)) == 2 * 8  # an arc
        seeds.add(int(nodes.sum()))
    assert len(seeds) > 10
    short = graph.Subgraph(0.2, hops=1)(data.batch(torch.arange(20)), kt.Draws(0))[0]
    assert short.inputs.ptr.diff().tolist() == [3] * 20


def test_growth_takes_each_edge_that_leads_out_as_often() -> None:
    star = to_undirected(torch.tensor([[0, 0, 0, 0], [1, 2, 3, 4]]))
    data = graph.graphs([Graph(x=torch.ones(5, 1), edge_index=star)] * 4000)
    view = graph.Subgraph(0.2)(data.batch(torch.arange(4000)), kt.Draws(3))[0]
    assert view.coords is not None
    assert (view.inputs.ptr.diff() == 2).all()
    leaves = view.coords[view.coords > 0]
    assert len(leaves) == 4000  # from the centre to a leaf, or back
    assert leaves.bincount()[1:].tolist() == pytest.approx([1000] * 4, abs=110)


def test_graphcl_views_are_the_graph_and_each_choice_as_often() -> None:
    data = graph.graphs(items(1) * 500)
    batch = data.batch(torch.arange(len(data))[:2000])
    choices = [Marked(value) for value in range(4)]
    view = graph.OneOf(*choices)(batch, kt.Draws(0))[0]
    marks = view.inputs.x[view.inputs.ptr[:-1], 0]
    counts = marks.long().bincount(minlength=4)
    assert counts.tolist() == pytest.approx([len(batch) / 4] * 4, rel=0.15)
    first, second = graph.graphcl_views()(batch, kt.Draws(0))
    assert torch.equal(first.inputs.x, batch.inputs.x)
    assert len(second.inputs.x) < len(first.inputs.x)


class Marked(graph.GraphTransform):
    """Writes a number into all features."""

    def __init__(self, value: int) -> None:
        super().__init__()
        self.value = value

    def edit(self, graphs: Any, ids: Tensor, draws: kt.Draws, view: int) -> graph.Edit:
        return graph.Edit(x=torch.full_like(graphs.x, self.value))


def test_parameters_out_of_range_are_refused() -> None:
    for make, sentence in (
        (lambda: graph.NodeDropping(1.0), r"`ratio` must be in \[0, 1\), got 1.0"),
        (lambda: graph.Subgraph(0.0), "`keep` must be"),
        (lambda: graph.Subgraph(hops=-1), "`hops` must be >= 0"),
        (lambda: graph.EgoSubgraphs(power=2.0), r"`power` must be in \[0, 1\], got 2.0"),
        (lambda: graph.OneOf(), "to choose from"),
        (lambda: graph.GraphViews(), "one transform per view"),
        (lambda: graph.graphcl_views(choices=5), "`choices` must be 2, 3 or 4"),
        (lambda: graph.GIN(3, num_layers=0), "`num_layers` must be >= 1"),
        (lambda: graph.GAT(3, hidden_size=30), "multiple of `heads`"),
        (
            lambda: graph.NodeDropping()(kt.Batch(torch.ones(2, 3), torch.arange(2)), kt.Draws(0)),
            "torch_geometric Batch",
        ),
        (lambda: graph.GIN(4)(graph.graphs(items()).batch(torch.arange(2)).inputs), "4 features"),
    ):
        with pytest.raises(kt.InvalidValueError, match=sentence):
            make()


# --- encoders and the method


@pytest.mark.parametrize("make", [graph.GIN, graph.GCN, graph.GAT])
@pytest.mark.parametrize("readout", ["sum", "mean", "max"])
def test_a_graphs_representation_depends_on_it_alone_and_not_on_the_order_of_nodes(make: Any, readout: Any) -> None:
    torch.manual_seed(0)
    encoder = make(3, readout=readout).eval()
    made = items()[:4]
    turned = []
    for item in made:
        order = torch.randperm(int(item.num_nodes or 0))
        assert item.x is not None
        assert item.edge_index is not None
        turned.append(Graph(x=item.x[order], edge_index=order.argsort()[item.edge_index]))
    both = [graph.graphs(part).batch(torch.arange(4)).inputs for part in (made, turned)]
    torch.testing.assert_close(encoder(both[0]), encoder(both[1]))
    torch.testing.assert_close(encoder(graph.graphs(made[2:3]).batch(torch.tensor([0])).inputs)[0], encoder(both[0])[2])
    assert encoder.representation_size == encoder(both[0]).shape[1] == 96


@pytest.mark.usefixtures("gloo")
@pytest.mark.slow
def test_graphcl_passes_every_check_of_methods_on_graphs_on_two_and_three_processes_too() -> None:
    data = graph.graphs(items(24))
    data.x = data.x.double()
    torch.manual_seed(0)
    check_method(graphcl(graph.GIN(3, hidden_size=8)), data=data, augmenter=graph.graphcl_views())
