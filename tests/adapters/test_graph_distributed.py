"""GraphCL as the example trains it, step by step on several processes, against one process."""

from typing import Any

import networkx as nx  # type: ignore[import-untyped]
import pytest
import torch
from gloo import GlooPool
from torch import Tensor
from torch_geometric.data import Data as Graph
from torch_geometric.utils import from_networkx

import kontrast as kt
from kontrast.adapters import graph
from kontrast.plugins.graphcl import graphcl


class Losses(kt.Observer):
    """Keeps the loss of every step."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def step_ended(self, metrics: Any) -> None:
        self.losses.append(metrics["loss"])


def irregular() -> graph.GraphData:
    """Graphs of 1 to 30 nodes, without edges, sparse and dense, some with a self-loop, the large ones last, so that
    processes hold very different shares.
    """
    items: list[Graph] = []
    for number in range(41):
        nodes = 1 + number * 29 // 40
        plain = nx.gnp_random_graph(nodes, (0.0, 0.1, 0.5)[number % 3], seed=number)
        if number % 5 == 0:
            plain.add_edge(nodes - 1, nodes - 1)
        item = from_networkx(plain)
        item.x = torch.randn(nodes, 3, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
        items.append(item)
    data = graph.graphs(items)
    data.x = data.x.double()
    return data


def trained() -> tuple[list[float], dict[str, Tensor]]:
    """Return the losses and the last weights and statistics of two epochs of 16, 16 and 9 graphs."""
    torch.manual_seed(0)
    method = graphcl(graph.GIN(3, hidden_size=8)).double()
    assert any(isinstance(part, torch.nn.BatchNorm1d) for part in method.modules())
    kept = Losses()
    kt.Run(
        method,
        irregular(),
        augmenter=graph.graphcl_views(),
        epochs=2,
        batch_size=16,
        optimizer=kt.AdamW(0.01, weight_decay=0.0),
        warmup_epochs=0,
        schedule="constant",
        drop_last=False,
        device="cpu",
        observers=(kept,),
    ).fit()
    return kept.losses, {name: value for name, value in method.state_dict().items() if isinstance(value, Tensor)}


@pytest.mark.parametrize("world", [2, 3])
def test_every_loss_and_the_last_weights_are_those_of_one_process(gloo: GlooPool, world: int) -> None:
    losses, state = trained()
    assert len(losses) == 6
    for found, ended in gloo.run(world, trained):
        assert found == pytest.approx(losses, rel=1e-9)
        for name, value in ended.items():
            torch.testing.assert_close(value, state[name], rtol=1e-7, atol=1e-9, msg=name)
