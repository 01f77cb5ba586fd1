"""What numpy computes on the CPU and torch on a GPU: the same lines, run both ways here, make the same views."""

from collections.abc import Callable
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_graph_ego_networks import whole
from test_graph_extremes import EXTREMES, NAMES, items

import kontrast as kt
from kontrast.adapters import graph
from kontrast.adapters.graph import arrays
from kontrast.adapters.graph.structural import positional

MODULES = ("batch", "chance", "data", "edges", "edit", "ego", "ego_networks", "graphcl", "structural", "transforms")
FIELDS = ("x", "edge_index", "batch", "ptr", "seed")


def by_torch(make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what is made where the CPU counts as a GPU, on which there are tensors alone."""
    with monkeypatch.context() as patched:
        for name in MODULES:
            module = import_module(f"kontrast.adapters.graph.{name}")
            if hasattr(module, "array"):
                patched.setattr(module, "array", lambda given: given)
        patched.setattr(arrays, "np", SimpleNamespace(ndarray=type(None)))
        return make()


@pytest.mark.parametrize(
    ("name", "options"), [(name, options) for name in NAMES for options in [{}, *EXTREMES[name]]], ids=str
)
def test_views_are_the_same(name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    augmenter = kt.get_record(kt.AugmenterRecord, name).load()(**options)
    data = graph.graphs(items())
    indices = torch.arange(len(data)).flip(0)

    def views() -> list[kt.View]:
        return [view for seed in range(3) for view in augmenter(data.batch(indices), kt.Draws(seed))]

    check(views, monkeypatch)


def test_views_of_directed_graphs_and_of_one_large_graph_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    directed = items()
    for item in directed:
        assert item.edge_index is not None
        item.edge_index = item.edge_index[:, item.edge_index[0] <= item.edge_index[1]]
    batch = graph.graphs(directed, undirected=False).batch(torch.arange(len(directed)))
    check(lambda: graph.EdgePerturbation(0.4, undirected=False)(batch, kt.Draws(1)), monkeypatch)
    with pytest.raises(kt.InvalidValueError, match="graph 4 has one that does not"):
        by_torch(lambda: graph.EdgePerturbation()(batch, kt.Draws(1)), monkeypatch)
    walks, seeds = graph.EgoSubgraphs(hops=7, restart=0.3), torch.arange(22)

    def around() -> list[kt.View]:
        nodes = graph.EgoNetworks(whole(), walks=walks)
        views: list[kt.View] = nodes.views()(nodes.batch(seeds), kt.Draws(2))
        return views

    check(around, monkeypatch)


def test_positions_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = graph.graphs(items()).batch(torch.arange(len(items()))).inputs
    assert torch.equal(positional(inputs, 4), by_torch(lambda: positional(inputs, 4), monkeypatch))


def check(make: Callable[[], list[kt.View]], monkeypatch: pytest.MonkeyPatch) -> None:
    for ours, theirs in zip(make(), by_torch(make, monkeypatch), strict=True):
        found = [
            {"coords": view.coords, **{name: getattr(view.inputs, name, None) for name in FIELDS}}
            for view in (ours, theirs)
        ]
        for name, tensor in found[0].items():
            other = found[1][name]
            if tensor is None:
                assert other is None, name
            else:
                assert isinstance(other, torch.Tensor), name
                assert torch.equal(tensor, other), name
