"""Node-level and walk-based graph methods: GRACE, InfoGraph, GCC, against plain loops.

Shapes: B graphs, N nodes, D embedding size.
"""

import math
from typing import Any

import networkx as nx  # type: ignore[import-untyped]
import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data as Graph
from torch_geometric.utils import from_networkx

import kontrast as kt
from kontrast.adapters import graph
from kontrast.adapters.graph.batch import Flat, Part, split
from kontrast.adapters.graph.structural import positional
from kontrast.plugins.gcc import gcc
from kontrast.plugins.grace import grace
from kontrast.plugins.infograph import infograph
from kontrast.testing import check_method


def items(count: int = 12) -> list[Graph]:
    """Random graphs; among them a single node, one without edges, isolated nodes and a self-loop."""
    made: list[Graph] = []
    for seed in range(count):
        plain = nx.gnp_random_graph(5 + seed % 4, 0.4, seed=seed)
        if seed == 1:
            plain = nx.empty_graph(1)
        if seed == 2:
            plain = nx.empty_graph(4)
        if seed == 3:
            plain.add_node(99)
            plain.add_edge(0, 0)
        item = from_networkx(nx.convert_node_labels_to_integers(plain))
        item.x = torch.randn(int(item.num_nodes or 0), 3, generator=torch.Generator().manual_seed(seed))
        item.y = torch.tensor([seed % 2])
        made.append(item)
    return made


def doubled(count: int) -> graph.GraphData:
    data = graph.graphs(items(count))
    data.x = data.x.double()
    return data


def nodes_of(encoder: Any, view: kt.View) -> list[tuple[tuple[int, int], Tensor]]:
    """Return ((graph id, original node), embedding) of every node."""
    embeddings = encoder.nodes(view.inputs)
    assert view.coords is not None
    owners = view.ids[view.inputs.batch].tolist()
    return [((g, n), row) for g, n, row in zip(owners, view.coords.tolist(), embeddings, strict=True)]


def test_grace_is_the_papers_loss_in_plain_loops_where_views_drop_nodes_too() -> None:
    data = doubled(5)
    torch.manual_seed(0)
    method = grace(graph.GCN(3, hidden_size=4, num_layers=2, all_layers=False), temperature=0.5).double()
    views = graph.GraphViews(graph.NodeDropping(0.3), graph.EdgeDropping(0.4))(data.batch(torch.arange(5)), kt.Draws(3))
    head: Any = method.towers["default"].dense_projector
    rows = [(v, key, head(z)) for v, view in enumerate(views) for key, z in nodes_of(method.encoder, view)]
    losses = []
    for v, key, z in rows:
        others = [(w, k, torch.cosine_similarity(z, y, dim=0) / 0.5) for w, k, y in rows if (w, k) != (v, key)]
        positive = [s for w, k, s in others if k == key and w != v]
        if positive:
            losses.append(torch.stack([s for _, _, s in others]).logsumexp(0) - positive[0])
    expected = torch.stack(losses).mean()
    torch.testing.assert_close(method(views)[0].reduced().value, expected.detach())


def test_infograph_is_the_papers_loss_in_plain_loops() -> None:
    data = doubled(4)
    torch.manual_seed(0)
    method = infograph(graph.GIN(3, hidden_size=4, num_layers=2)).double()
    views = kt.Identity(1)(data.batch(torch.arange(4)), kt.Draws(0))
    tower: Any = method.towers["default"]
    encoder: Any = method.encoder
    local, whole = (
        tower.dense_projector(encoder.nodes(views[0].inputs)),
        tower.projector(encoder(views[0].inputs)),
    )
    positive: list[float] = []
    negative: list[float] = []
    for node, owner in zip(local, views[0].inputs.batch.tolist(), strict=True):
        for number, row in enumerate(whole):
            score = float((node @ row).detach())
            (positive if number == owner else negative).append(
                math.log1p(math.exp(-score if number == owner else score))
            )
    expected = sum(positive) / len(positive) + sum(negative) / len(negative)
    assert float(method(views)[0].reduced().value) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ["grace", "infograph", "gcc"])
@pytest.mark.usefixtures("gloo")
def test_methods_pass_every_check_on_graphs_on_two_and_three_processes_too(name: str) -> None:
    torch.manual_seed(0)
    make: dict[str, Any] = {
        "grace": (lambda: grace(graph.GCN(3, hidden_size=6)), graph.grace_views()),
        "infograph": (lambda: infograph(graph.GIN(3, hidden_size=6)), kt.Identity(1)),
        "gcc": (
            lambda: gcc(graph.StructuralGIN(6, 2, eigenvectors=4, degree_size=3), projection_size=6, queue_size=13),
            graph.EgoSubgraphs(hops=16),
        ),
    }
    method, augmenter = make[name]
    check_method(method(), data=doubled(24), augmenter=augmenter)


def test_grace_trains_on_a_single_graph() -> None:
    item = from_networkx(nx.karate_club_graph().__class__(nx.karate_club_graph().edges))
    item.x = torch.randn(34, 3, generator=torch.Generator().manual_seed(0))
    method = grace(graph.GCN(3, hidden_size=8, num_layers=2, all_layers=False, batch_norm=False))
    losses: list[float] = []

    class Recorder(kt.Observer):
        def step_ended(self, metrics: Any) -> None:
            losses.append(metrics["loss"])

    kt.Run(
        method,
        graph.graphs([item]),
        augmenter=graph.grace_views(),
        epochs=20,
        batch_size=1,
        optimizer=kt.AdamW(0.01),
        warmup_epochs=0,
        device="cpu",
        observers=(Recorder(),),
    ).fit()
    assert sum(losses[-5:]) < sum(losses[:5])


def test_walks_are_longer_around_hubs() -> None:
    star = from_networkx(nx.star_graph(3000))
    batch = graph.graphs([star]).batch(torch.tensor([0]))
    walks = graph.EgoSubgraphs(hops=1, restart=0.8, power=0.75)
    for seed in range(60):
        view = walks(batch, kt.Draws(seed))[0]
        assert view.coords is not None
        at_centre = int(view.coords[view.inputs.seed]) == 0
        if at_centre:
            hops = int(3000**0.75 * math.e / (math.e - 1) / 0.8 + 0.5)
            expected = 3000 * (1 - (1 - 1 / 3000) ** (0.8 * hops)) + 1
            assert expected * 0.9 < len(view.inputs.x) < 3000 * (1 - (1 - 1 / 3000) ** hops) * 1.1
            return
    raise AssertionError("the centre, of chance 0.12, was never drawn")


def test_a_queue_of_elements_is_kept_and_the_wrong_order_is_refused() -> None:
    data = doubled(6)
    torch.manual_seed(0)
    method = kt.Method(
        graph.GCN(3, hidden_size=4),
        sampler=kt.Queue(kt.Elements(kt.Positives("forward")), size=50),
        objective=kt.get_record(kt.ObjectiveRecord, "info-nce").load()(),
    ).double()
    views = graph.grace_views()(data.batch(torch.arange(6)), kt.Draws(0))
    _, encoded = method(views)
    method.after_step([view.detach() for view in encoded], 0.5)
    nodes = len(views[1].inputs.x)
    queue: Any = method.sampler
    encoder: Any = method.encoder
    assert queue.fill == min(nodes, 50)
    torch.testing.assert_close(queue.rows[:nodes], encoder.nodes(views[1].inputs).detach()[-50:])
    with pytest.raises(kt.IncompatibleError, match=r"write Queue\(Elements"):
        kt.Elements(kt.Queue(kt.InBatch()))
    with pytest.raises(kt.IncompatibleError, match="gives pooled ones alone"):
        kt.Elements(kt.InBatch()).pairs(kt.embedded(torch.ones(3, 2), torch.ones(3, 2)))


def test_padded_elements_leave_out_what_is_not_valid() -> None:
    dense = torch.randn(2, 3, 4)
    valid = torch.tensor([[True, True, False], [True, True, True]])
    coords = torch.tensor([[5, 6, 7], [2, 3, 4]])
    view = kt.Encoded(None, torch.tensor([8, 9]), torch.tensor([0, 1]), dense=dense, valid=valid, coords=coords)
    flat = kt.elements(view)
    assert flat.rows is not None
    torch.testing.assert_close(flat.rows, dense[valid])
    assert flat.coords is not None
    assert flat.coords.tolist() == [5, 6, 2, 3, 4]
    assert flat.groups is not None
    assert flat.groups.tolist() == [8, 8, 9, 9, 9]
    assert len(set(flat.copies.tolist())) == 5
    assert flat.ids.tolist() == kt.key(flat.groups, flat.coords).tolist()


# --- augmenters


def test_walks_visit_what_a_walk_hop_by_hop_visits_as_often() -> None:
    """On a path the chance to be within r of the start is counted against a walk in a plain loop."""
    path = from_networkx(nx.path_graph(9))
    data = graph.graphs([path] * 3000)
    ego = graph.EgoSubgraphs(hops=12, restart=0.4, power=0.0)
    batch = data.batch(torch.arange(3000))
    view = ego(batch, kt.Draws(1))[0]
    sizes = view.inputs.ptr.diff().double()
    assert view.coords is not None
    seeds = view.coords[view.inputs.seed]
    assert len(seeds) == 3000
    generator = torch.Generator().manual_seed(5)
    plain = []
    for start in seeds.tolist():
        here, seen = start, {start}
        for _ in range(12):
            around = [n for n in (here - 1, here + 1) if 0 <= n <= 8]
            here = around[int(torch.randint(len(around), (1,), generator=generator))]
            seen.add(here)
            if float(torch.rand(1, generator=generator)) < 0.4:
                here = start
        plain.append(len(seen))
    expected = torch.tensor(plain).double()
    error = 4 * (expected.var() / 3000 * 2).sqrt()
    assert abs(float(sizes.mean() - expected.mean())) < float(error)
    assert torch.bincount(seeds, minlength=9).min() > 250


def test_both_walks_are_around_one_node_and_hubs_are_drawn_more_often() -> None:
    star = from_networkx(nx.star_graph(8))
    batch = graph.graphs([star] * 2000).batch(torch.arange(2000))
    first, second = graph.EgoSubgraphs(hops=4)(batch, kt.Draws(0))
    assert first.coords is not None
    assert second.coords is not None
    seeds = first.coords[first.inputs.seed]
    assert torch.equal(seeds, second.coords[second.inputs.seed])
    share = float((seeds == 0).double().mean())
    assert share == pytest.approx(8**0.75 / (8**0.75 + 8), abs=0.04)


def test_grace_drops_edges_and_features_at_their_rates() -> None:
    data = graph.load("ba2motifs").train
    batch = data.batch(torch.arange(200))
    view = graph.grace_views(0.4, 0.1, 0.25, 0.0)(batch, kt.Draws(0))
    edges = batch.inputs.edge_index.shape[1]
    assert view[0].inputs.edge_index.shape[1] / edges == pytest.approx(0.6, abs=0.03)
    assert view[1].inputs.edge_index.shape[1] / edges == pytest.approx(0.9, abs=0.03)
    kept = view[0].inputs.x.reshape(200, -1, view[0].inputs.x.shape[1])
    assert (kept != 0).double().mean() / (batch.inputs.x != 0).double().mean() == pytest.approx(0.75, abs=0.08)
    assert torch.equal(view[1].inputs.x, batch.inputs.x)
    with pytest.raises(kt.IncompatibleError, match="two change `edges`"):
        graph.Together(graph.EdgeDropping(), graph.EdgePerturbation())(batch, kt.Draws(0))


def alone(batch: Any, number: int) -> Part:
    """Return one graph of a batch."""
    chosen = torch.arange(len(batch.ptr) - 1) == number
    return split(batch.x, Flat.of(batch, torch.arange(len(chosen))), chosen.numpy(), 2)[1]


def test_one_of_several_shows_each_transform_its_own_graphs_alone() -> None:
    """What a graph gets is what its transform does to it in the whole batch."""
    batch = graph.graphs(items()).batch(torch.arange(12))
    choices = (graph.NodeDropping(0.3), graph.EdgePerturbation(0.3), graph.AttributeMasking(0.4))
    mixed = graph.OneOf(*choices, num_views=1)(batch, kt.Draws(2))[0].inputs
    whole = [choice(batch, kt.Draws(2))[0].inputs for choice in choices]
    taken: set[int] = set()
    for number in range(12):
        own = alone(mixed, number)
        same = [
            w
            for w, other in enumerate(whole)
            for part in [alone(other, number)]
            if torch.equal(part.x, own.x) and torch.equal(part.edge_index, own.edge_index)
        ]
        assert same, f"graph {number} is as no transform leaves it"
        taken.update(same if len(same) == 1 else ())
    assert taken == {0, 1, 2}


def test_nodes_are_masked_that_others_dropped_stand_beside() -> None:
    batch = graph.graphs(items()).batch(torch.arange(12))
    before = batch.inputs.x.clone()
    masked, dropping = graph.AttributeMasking(0.5), graph.NodeDropping(0.4)
    (noise,), (kept,) = (one(batch, kt.Draws(3))[:1] for one in (masked, dropping))
    both = graph.Together(dropping, masked)(batch, kt.Draws(3))[0]
    rows = batch.inputs.ptr[kept.inputs.batch] + kept.coords
    assert torch.equal(both.inputs.x, noise.inputs.x[rows])
    assert torch.equal(both.coords, kept.coords)
    assert not torch.equal(both.inputs.x, kept.inputs.x)
    assert torch.equal(batch.inputs.x, before)


def test_positions_are_eigenvectors() -> None:
    item = from_networkx(nx.lollipop_graph(4, 3))
    found = positional(graph.graphs([item]).batch(torch.tensor([0])).inputs, 3)
    adjacency = torch.zeros(7, 7)
    adjacency[item.edge_index[0], item.edge_index[1]] = 1
    scale = adjacency.sum(1).rsqrt()
    vectors = torch.linalg.eigh(scale[:, None] * adjacency * scale)[1].flip(1)[:, :3]
    expected = torch.nn.functional.normalize(vectors, dim=1)
    torch.testing.assert_close(found.abs(), expected.abs(), rtol=1e-4, atol=1e-5)
    alone = positional(graph.graphs(items()[1:2]).batch(torch.tensor([0])).inputs, 3)
    assert alone.shape == (1, 3)
    assert alone.isfinite().all()
