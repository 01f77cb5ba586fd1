"""Augmented graphs per second, each augmenter, against a loop of torch_geometric's functions over single graphs.

    python benchmarks/graph_augmenters.py [--root DIR]       # NCI1 in batches of 512

Two columns of each. From the data set: ours gathers a batch and augments it; the loop has its graphs as single `Data`
objects and ends with `Batch.from_data_list`. From a batch: both begin with a torch_geometric Batch, so the loop
begins with `to_data_list`. The loop of edge perturbation adds edges by `add_random_edge`, which fails where the draw
finds no place for one; such a graph stays with its edges dropped. There is no random walk without torch_cluster, so
beside subgraphs and ego subgraphs the loop takes two hops, which is less work. Then the time of a training epoch of
GraphCL against the encoder's forward and backward passes alone on unaugmented batches of the same graphs, twice each.
All is the least of seven trials, ours and the other in turn.
"""

import argparse
import importlib
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch_geometric.data import Batch, Data
from torch_geometric.utils import add_random_edge, dropout_edge, dropout_node, k_hop_subgraph, mask_feature, subgraph

import kontrast as kt
from kontrast.adapters import graph
from kontrast.plugins.graphcl import graphcl

ROOT = Path(os.environ.get("KONTRAST_DATA", "../shared/data")) / "tu-graphs"
SIZE = 512
TRIALS = 7


def drop_nodes(item: Any) -> Any:
    """Drop a tenth of the nodes."""
    edges, _, kept = dropout_node(item.edge_index, p=0.1, num_nodes=item.num_nodes)
    edges, _ = subgraph(kept, edges, relabel_nodes=True, num_nodes=item.num_nodes)
    return Data(x=item.x[kept], edge_index=edges)


def drop_edges(item: Any) -> Any:
    """Drop three tenths of the edges."""
    return Data(x=item.x, edge_index=dropout_edge(item.edge_index, p=0.3, force_undirected=True)[0])


def exchange_edges(item: Any) -> Any:
    """Drop a tenth of the edges and add as many."""
    edges, _ = dropout_edge(item.edge_index, p=0.1, force_undirected=True)
    try:
        new = add_random_edge(item.edge_index, p=0.1, force_undirected=True, num_nodes=item.num_nodes)[1]
        edges = torch.cat([edges, new], 1)
    except RuntimeError:  # no place drawn: torch_geometric reshapes nothing
        pass
    return Data(x=item.x, edge_index=edges)


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
    "edge perturbation": (graph.EdgePerturbation(num_views=1), exchange_edges),
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


def _looped_from_batch(function: Callable[[Any], Any], batch: Any) -> None:
    _looped(function, batch.to_data_list())


def peer() -> str:
    """Return whether PyGCL can be imported here."""
    try:
        return f"{importlib.import_module('GCL.augmentors').__name__} imports here, and is not timed yet"
    except ImportError as error:
        return f"not timed, since it does not import ({error}); 0.1.2 asks for dgl, and dgl for torchdata"


def epochs(data: graph.GraphData) -> str:
    """Return what an epoch of GraphCL takes against its encoder alone on two views, and its parts by themselves."""
    torch.manual_seed(0)
    encoder = graph.GIN(data.num_features)
    parts = torch.arange(len(data)).split(128)
    batches, views = [data.batch(part) for part in parts], graph.graphcl_views()
    runs = iter([_run(data) for _ in range(TRIALS)])

    def alone() -> None:
        for batch in (*batches, *batches):
            encoder.zero_grad()
            encoder(batch.inputs).square().mean().backward()

    def gathered() -> None:
        for part in parts:
            data.batch(part)

    def augmented() -> None:
        for batch in batches:
            views(batch, kt.Draws(0))

    alone()
    bare, gather, augment, whole = least(TRIALS, alone, gathered, augmented, lambda: next(runs).fit())
    return (
        f"an epoch of GraphCL: {whole / bare:.2f} of the encoder alone on two views, {1e3 * bare:.0f} ms; "
        f"augmentation by itself {augment / bare:.2f}, gathering batches {gather / bare:.2f}"
    )


def _run(data: graph.GraphData) -> kt.Run:
    return kt.Run(
        graphcl(graph.GIN(data.num_features)),
        data,
        augmenter=graph.graphcl_views(),
        epochs=1,
        batch_size=128,
        optimizer=kt.AdamW(0.01, weight_decay=0.0),
        warmup_epochs=0,
        drop_last=False,
        observers=(),
        device="cpu",
    )


def main() -> None:
    """Print the rates and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=ROOT)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = graph.load("NCI1", options.root).train
    chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:SIZE]
    singles: list[Any] = [
        Data(x=b.x, edge_index=b.edge_index) for b in (data.batch(chosen[n : n + 1]).inputs for n in range(SIZE))
    ]
    drawn, whole = data.batch(chosen), Batch.from_data_list(singles)
    print(f"NCI1, {SIZE} graphs, {options.threads} thread{'s' if options.threads > 1 else ''}; graphs per second")
    print(f"{'':<18} {'from the data set':>32}   {'from a batch':>32}")
    for name, (ours, theirs) in PAIRS.items():
        cells = []
        for batched, looped in (
            (partial(_batched, ours, data, chosen), partial(_looped, theirs, singles)),
            (partial(ours, drawn, kt.Draws(0)), partial(_looped_from_batch, theirs, whole)),
        ):
            fast, slow = least(TRIALS, batched, looped)
            cells.append(f"{SIZE / fast:>9,.0f}, loop {SIZE / slow:>7,.0f}: {slow / fast:>3.0f} times")
        print(f"{name:<18} {cells[0]:>32}   {cells[1]:>32}", flush=True)
    print(f"PyGCL: {peer()}")
    print(epochs(data))


if __name__ == "__main__":
    main()
