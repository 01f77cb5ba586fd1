"""GRACE on contextual stochastic block models: accuracy on unseen nodes, beside raw features and the encoder as drawn.

    python benchmarks/sbm.py [--seeds 5]        # generated; two minutes

One graph per seed, made by torch_geometric's `stochastic_blockmodel_graph`: 5 blocks of 200 nodes, edges with
probability 0.04 inside a block and 0.01 between blocks. A node's features are its block's mean, a normal vector of
length about 1, plus normal noise of standard deviation 1 in 32 dimensions. GRACE learns from the whole graph without
labels: GCN 2 x 32, a head of 32, temperature 0.2, edges and features dropped at 0.3, Adam at a constant 0.01, 200
steps, last step. A logistic regression (C = 1) is fitted to the labels of 100 nodes and judged on the other 900, on
which nothing was chosen.

Source: Deshpande et al. 2018, arXiv:1807.09174 (the model); Zhu et al. 2020, arXiv:2006.04131.
"""

import argparse

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import stochastic_blockmodel_graph

import kontrast as kt
from kontrast.adapters import graph
from kontrast.plugins.grace import grace

BLOCKS, SIZE, FEATURES, LABELLED = 5, 200, 32, 100
INSIDE, BETWEEN, STEPS = 0.04, 0.01, 200


def block_model(seed: int) -> tuple[graph.GraphData, Tensor]:
    """Return one graph as a data set, and the block of each node."""
    torch.manual_seed(seed)
    chances = torch.full((BLOCKS, BLOCKS), BETWEEN).fill_diagonal_(INSIDE)
    edge_index = stochastic_blockmodel_graph(torch.full((BLOCKS,), SIZE), chances)
    block = torch.arange(BLOCKS).repeat_interleave(SIZE)
    x = (torch.randn(BLOCKS, FEATURES) / FEATURES**0.5)[block] + torch.randn(len(block), FEATURES)
    return graph.graphs([Data(x=x, edge_index=edge_index)]), block


def accuracy(rows: Tensor, block: Tensor, seed: int) -> float:
    """Return the accuracy on the nodes that are not labelled, in percent."""
    order = torch.randperm(len(block), generator=torch.Generator().manual_seed(seed))
    parts = [
        kt.evaluate.Representations(rows[at], at, block[at]) for at in order.split([LABELLED, len(order) - LABELLED])
    ]
    return float(kt.evaluate.linear((parts[0], parts[1])))


def nodes(encoder: kt.Encoder, data: graph.GraphData) -> Tensor:
    """Return the representation of every node."""
    encoder.eval()
    with torch.no_grad():
        assert isinstance(encoder, graph.GraphEncoder)
        return encoder.nodes(data.batch(torch.tensor([0])).inputs)


def main() -> None:
    """Print one row per seed, then mean and standard deviation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    results = []
    print(f"{'seed':<16}{'raw features':>16}{'as drawn':>16}{'GRACE':>16}")
    for seed in range(options.seeds):
        data, block = block_model(seed)
        method = grace(graph.GCN(FEATURES, hidden_size=32, num_layers=2, all_layers=False, batch_norm=False))
        drawn = nodes(method.encoder, data)
        run = kt.Run(
            method,
            data,
            augmenter=graph.grace_views(),
            epochs=STEPS,  # the one graph is the whole batch
            batch_size=1,
            optimizer=kt.AdamW(0.01, weight_decay=0.0),
            warmup_epochs=0,
            schedule="constant",
            seed=seed,
            observers=(),
            device="cpu",
        )
        run.fit()
        assert isinstance(run.encoder, kt.Encoder)
        row = [accuracy(rows, block, seed) for rows in (data.x, drawn, nodes(run.encoder, data))]
        results.append(row)
        print(f"{seed:<16}" + "".join(f"{value:>16.1f}" for value in row), flush=True)
    whole = torch.tensor(results)
    cells = [f"{mean:.1f} +- {std:.1f}" for mean, std in zip(whole.mean(0), whole.std(0), strict=True)]
    print(f"{'mean':<16}" + "".join(f"{cell:>16}" for cell in cells))


if __name__ == "__main__":
    main()
