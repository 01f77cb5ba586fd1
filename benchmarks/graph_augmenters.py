"""Augmented graphs per second, each augmenter, against a loop of torch_geometric's functions over single graphs.

    python benchmarks/graph_augmenters.py [--root DIR]       # NCI1 in batches of 512

Both begin at the data set and end with a batch that an encoder can read. Torch_geometric's `add_random_edge` fails on
some of these graphs, so beside edge perturbation, which adds edges too, the loop only drops them. Then the time of a
training epoch of GraphCL against the encoder's forward and backward passes alone on the same batches, two views each.
"""

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch_geometric.data import Batch, Data
from torch_geometric.utils import dropout_edge, dropout_node, k_hop_subgraph, mask_feature, subgraph

import kontrast as kt
from kontrast.adapters import graph
from kontrast.plugins.graphcl import graphcl

ROOT = Path(os.environ.get("KONTRAST_DATA", "../shared/data")) / "tu-graphs"
SIZE = 512


def drop_nodes(item: Any) -> Any:
    """Drop a tenth of the nodes."""
    edges, _, kept = dropout_node(item.edge_index, p=0.1, num_nodes=item.num_nodes)
    edges, _ = subgraph(kept, edges, relabel_nodes=True, num_nodes=item.num_nodes)
    return Data(x=item.x[kept], edge_index=edges)


def drop_edges(item: Any) -> Any:
    """Drop three tenths of the edges."""
    return Data(x=item.x, edge_index=dropout_edge(item.edge_index, p=0.3, force_undirected=True)[0])


def mask_nodes(item: Any) -> Any:
    """Replace the features of a tenth of the nodes."""
    at = torch.rand(item.num_nodes) < 0.1
    return Data(x=torch.where(at[:, None], 0.5 + 0.5 * torch.randn_like(item.x), item.x), edge_index=item.edge_index)


def hide_features(item: Any) -> Any:
    """Hide three tenths of the features."""
    return Data(x=mask_feature(item.x, p=0.3, mode="col")[0], edge_index=item.edge_index)


def neighborhood(item: Any) -> Any:
    """Keep what is within two hops of a random node."""
    centre = int(torch.randint(item.num_nodes, ()))
    kept, edges, _, _ = k_hop_subgraph(centre, 2, item.edge_index, relabel_nodes=True, num_nodes=item.num_nodes)
    return Data(x=item.x[kept], edge_index=edges)


PAIRS: dict[str, tuple[graph.GraphTransform, Callable[[Any], Any]]] = {
    "node dropping": (graph.NodeDropping(num_views=1), drop_nodes),
    "edge perturbation": (graph.EdgePerturbation(num_views=1), drop_edges),
    "edge dropping": (graph.EdgeDropping(num_views=1), drop_edges),
    "attribute masking": (graph.AttributeMasking(num_views=1), mask_nodes),
    "feature masking": (graph.FeatureMasking(num_views=1), hide_features),
    "subgraph": (graph.Subgraph(num_views=1), neighborhood),
    "ego subgraph": (graph.EgoSubgraphs(num_views=1), neighborhood),
}


def least(trials: int, *functions: Callable[[], object]) -> list[float]:
    """Return the least seconds of each, run in turn."""
    best = [float("inf")] * len(functions)
    for _ in range(trials):
        for n, function in enumerate(functions):
            start = time.perf_counter()
            function()
            best[n] = min(best[n], time.perf_counter() - start)
    return best


def _batched(transform: graph.GraphTransform, data: graph.GraphData, chosen: torch.Tensor) -> None:
    transform(data.batch(chosen), kt.Draws(0))


def _looped(function: Callable[[Any], Any], singles: list[Any]) -> None:
    Batch.from_data_list([function(item) for item in singles])


def main() -> None:
    """Print the rates and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=ROOT)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = graph.load("NCI1", options.root).train
    chosen = torch.arange(SIZE)
    singles = [
        Data(x=b.x, edge_index=b.edge_index) for b in (data.batch(chosen[n : n + 1]).inputs for n in range(SIZE))
    ]
    print(f"NCI1, {SIZE} graphs, {options.threads} thread{'s' if options.threads > 1 else ''}; graphs per second")
    for name, (ours, theirs) in PAIRS.items():
        batched, looped = least(5, partial(_batched, ours, data, chosen), partial(_looped, theirs, singles))
        print(f"{name:<18} {SIZE / batched:>9,.0f}   loop {SIZE / looped:>7,.0f}   {looped / batched:.0f} times")

    torch.manual_seed(0)
    encoder = graph.GIN(data.num_features)
    batches = [data.batch(part).inputs for part in torch.arange(len(data)).split(128)]
    run = kt.Run(
        graphcl(graph.GIN(data.num_features)),
        data,
        augmenter=graph.graphcl_views(),
        epochs=4,
        batch_size=128,
        optimizer=kt.AdamW(0.01, weight_decay=0.0),
        drop_last=False,
        observers=(),
        device="cpu",
    )

    def alone() -> None:
        for _ in range(2 * 4):
            for part in batches:
                encoder.zero_grad()
                encoder(part).square().mean().backward()

    alone()
    (bare,) = least(1, alone)
    (epochs,) = least(1, run.fit)
    print(f"an epoch of GraphCL: {epochs / bare:.2f} of the encoder alone on two views, {bare / 4:.2f} s")


if __name__ == "__main__":
    main()
