"""No augmenter empties a graph, whatever graph and parameters; broken graphs are named, in Python and in commands."""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_graph import BROKEN
from torch_geometric.data import Data as Graph

import kontrast as kt
from kontrast.adapters import graph
from kontrast.cli import main

MOST = 1 - 2**-20  # of a share that must be less than 1

# What is as far as parameters go; a graph augmenter that is registered later must say so here.
EXTREMES: dict[str, list[dict[str, Any]]] = {
    "attribute-masking": [{"ratio": 0.0}, {"ratio": MOST}],
    "edge-dropping": [{"ratio": 0.0}, {"ratio": MOST}],
    "edge-perturbation": [{"ratio": 0.0}, {"ratio": MOST}, {"ratio": MOST, "add": False}],
    "ego-subgraphs": [{"hops": 1, "restart": 1.0}, {"hops": 1, "restart": 0.01}, {"power": 0.0}, {"power": 1.0}],
    "feature-masking": [{"ratio": 0.0}, {"ratio": MOST}],
    "grace-views": [{"edge_ratio_1": MOST, "edge_ratio_2": 0.0, "feature_ratio_1": MOST, "feature_ratio_2": 0.0}],
    "graphcl-views": [
        {"ratio": ratio, "keep": keep, "choices": choices, "paper_code": paper_code}
        for ratio, keep in ((0.0, 1e-9), (MOST, 1e-9), (MOST, 1.0))
        for choices in (2, 3, 4)
        for paper_code in (False, True)
    ],
    "node-dropping": [{"ratio": 0.0}, {"ratio": MOST}],
    "subgraph": [{"keep": 1e-9}, {"keep": 1.0}, {"keep": 1e-9, "hops": 1}, {"keep": 1.0, "hops": 1}],
}
NAMES = [name for name, record in kt.get_records(kt.AugmenterRecord).items() if record.adapter == "graph"]


def items() -> list[Graph]:
    """One node, with a self-loop or none; no edges; isolated nodes first and last; a star, a clique, two parts."""
    star = [(0, n) for n in range(1, 30)]
    clique = [(a, b) for a in range(6) for b in range(a)]
    apart = [(0, 1), (2, 3)]
    made = []
    for nodes, edges in (
        (1, []),
        (1, [(0, 0)]),
        (2, []),
        (5, []),
        (2, [(0, 1)]),
        (4, [(2, 3)]),
        (4, [(0, 1)]),
        (3, [(0, 0), (1, 1), (2, 2)]),
        (30, star),
        (6, clique),
        (4, apart),
    ):
        both = {*edges, *((b, a) for a, b in edges)}
        edge_index = torch.tensor(sorted(both), dtype=torch.int64).reshape(-1, 2).T
        made.append(Graph(x=torch.ones(nodes, 3), edge_index=edge_index))
    return made


@pytest.mark.parametrize(
    ("name", "options"), [(name, options) for name in NAMES for options in EXTREMES[name]], ids=str
)
def test_every_graph_keeps_a_node_and_stays_a_graph(name: str, options: dict[str, Any]) -> None:
    augmenter = kt.get_record(kt.AugmenterRecord, name).load()(**options)
    data = graph.graphs(items())
    batch = data.batch(torch.arange(len(data)))
    encoder = graph.GIN(3).eval()
    for seed in range(4):
        for view in augmenter(batch, kt.Draws(seed)):
            made = view.inputs
            counts = made.ptr.diff()
            assert len(counts) == len(view.ids) == len(data)
            assert (counts >= 1).all()
            assert (counts <= data.num_nodes).all()
            assert torch.equal(made.batch, torch.repeat_interleave(counts))
            assert len(made.x) == len(made.batch) == len(view.coords)
            assert made.x.isfinite().all()
            start, end = made.edge_index
            assert torch.equal(made.batch[start], made.batch[end])
            if not (name == "graphcl-views" and options["paper_code"]):
                pairs = {(a, b) for a, b in made.edge_index.T.tolist()}
                assert pairs == {(b, a) for a, b in pairs}
            places = kt.key(made.batch, view.coords)
            assert len(places.unique()) == len(places)
            assert (view.coords < data.num_nodes[made.batch]).all()
            assert encoder(made).isfinite().all()


def test_nothing_at_all_is_changed_where_nothing_is_to_be() -> None:
    data = graph.graphs(items())
    batch = data.batch(torch.arange(len(data)))
    for name in ("node-dropping", "edge-perturbation", "attribute-masking", "edge-dropping", "feature-masking"):
        view = kt.get_record(kt.AugmenterRecord, name).load()(ratio=0.0)(batch, kt.Draws(0))[0]
        for field in ("x", "edge_index", "batch", "ptr"):
            assert torch.equal(getattr(view.inputs, field), getattr(batch.inputs, field)), (name, field)


@pytest.mark.parametrize(("given", "sentence"), BROKEN[1:], ids=[sentence for _, sentence in BROKEN[1:]])
def test_a_broken_graph_is_named_on_the_command_line(
    given: list[Graph], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(given, tmp_path / "broken.pt")
    arguments = ["--adapter", "graph", "--data", str(tmp_path / "broken.pt"), "--out", str(tmp_path / "run")]
    assert main(["train", "graphcl", *arguments]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1\n0 1\n", "graph 0 must have at least one node"),
        ("2\n1 0\n0 0\n2 1\n0 1 2\n0 1 0\n", "`edge_index` of graph 1 must be in 0..1, its nodes, got 2"),
        ("2\n1 0\n0 0\n2 1\n0 1 1\n0 0\n", "graph 1 has one that does not"),
        ("2\n1 0\n0 0\n2 1\n0 2 1\n0 1 0\n", "graph 1 near line 4 is not: node 0 names 1 of its 2 neighbours"),
        ("2\n1 0\n0 0\n", "graph 1 near line 4 is not"),
        ("2\n1 0\n0 0\n2 x\n", "graph 1 near line 4 is not"),
    ],
)
def test_a_broken_graph_of_a_text_file_is_named(
    text: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.txt").write_text(text)
    with pytest.raises(kt.InvalidValueError) as error:
        graph.load(tmp_path / "broken.txt")
    assert sentence in str(error.value)
    arguments = ["--adapter", "graph", "--data", str(tmp_path / "broken.txt"), "--out", str(tmp_path / "run")]
    assert main(["train", "graphcl", *arguments]) == 2
    assert sentence in capsys.readouterr().err
