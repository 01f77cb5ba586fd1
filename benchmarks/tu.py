"""GraphCL on TU graph sets: mean and spread of the protocol's accuracy over seeds, beside the encoder as it was drawn.

    python benchmarks/tu.py                            # MUTAG, PROTEINS, NCI1, IMDB-BINARY; five seeds: half an hour
    python benchmarks/tu.py --root DIR --sets MUTAG --paper-code

The paper's unsupervised setting: GIN of 3 x 32, sums, 20 epochs of 128 graphs, Adam at a constant 0.01, temperature
0.2, one of four augmentations per graph; the last epoch is judged. Differs from its code:
- each epoch has an order of its own;
- Linears start as torch has them, where the code draws weights by Xavier's uniform rule and begins with zero biases;
- edges are added as well as removed, and subgraphs grow beyond their seed's neighbours (`--paper-code`: as theirs);
- they grow by a random edge that leads out, where the code means to draw a random neighbour.
Nothing is chosen by these folds. Published: You et al. 2020, arXiv:2010.13902, table 3.
"""

import argparse
import os
from pathlib import Path

import torch

import kontrast as kt
from kontrast.adapters import graph
from kontrast.plugins.graphcl import graphcl

ROOT = Path(os.environ.get("KONTRAST_DATA", "../shared/data")) / "tu-graphs"
PUBLISHED = {
    "MUTAG": "86.80 +- 1.34",
    "PROTEINS": "74.39 +- 0.45",
    "NCI1": "77.87 +- 0.41",
    "IMDB-BINARY": "71.14 +- 0.44",
}


def accuracies(data: graph.GraphData, seed: int, paper_code: bool) -> tuple[float, float]:
    """Return the accuracy of the encoder as it was drawn and as it was trained, in percent."""
    torch.manual_seed(seed)
    method = graphcl(graph.GIN(data.num_features))
    drawn = float(kt.evaluate.svm(method.encoder, data, seed=seed))
    run = kt.Run(
        method,
        data,
        augmenter=graph.graphcl_views(paper_code=paper_code),
        epochs=20,
        batch_size=128,
        optimizer=kt.AdamW(0.01, weight_decay=0.0),
        warmup_epochs=0,
        schedule="constant",
        drop_last=False,
        seed=seed,
        observers=(),
    )
    run.fit()
    return drawn, float(kt.evaluate.svm(run.encoder, data, seed=seed))


def main() -> None:
    """Print one row per set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=ROOT, help="a folder of data sets")
    parser.add_argument("--sets", nargs="+", default=list(PUBLISHED))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--paper-code", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'set':<14}{'drawn':>16}{'GraphCL':>16}{'published':>18}", flush=True)
    for name in options.sets:
        data = graph.load(name, options.root).train
        results = torch.tensor([accuracies(data, seed, options.paper_code) for seed in range(options.seeds)])
        cells = [f"{mean:.2f} +- {spread:.2f}" for mean, spread in zip(results.mean(0), results.std(0), strict=True)]
        print(f"{name:<14}{cells[0]:>16}{cells[1]:>16}{PUBLISHED.get(name, ''):>18}", flush=True)


if __name__ == "__main__":
    main()
