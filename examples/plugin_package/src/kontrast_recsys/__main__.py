"""Train LightGCN and SGL over several seeds, and print recall and nDCG at 20 with mean and spread.

python -m kontrast_recsys                                           # the generated set
python -m kontrast_recsys --root data/recsys --dataset lastfm       # data/recsys/lastfm-train.txt.gz and so on
"""

import argparse
import statistics
import time
from pathlib import Path

import torch

import kontrast as kt
from kontrast_recsys.augment import SGLViews
from kontrast_recsys.data import load
from kontrast_recsys.encoder import LightGCN
from kontrast_recsys.evaluate import evaluate
from kontrast_recsys.methods import lightgcn, sgl

METHODS = {"lightgcn": lightgcn, "sgl": sgl}


def main() -> None:
    """Read the command line, train, print."""
    parser = argparse.ArgumentParser(prog="python -m kontrast_recsys", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("."), help="folder of the files")
    parser.add_argument("--dataset", default="blocks", help="their name, or blocks, the generated set")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3, help="how many: 0, 1, 2 and so on")
    parser.add_argument("--methods", nargs="+", choices=sorted(METHODS), default=sorted(METHODS))
    parser.add_argument("--batch-size", type=int, help="2048, as in the papers, or 128 on the generated set")
    parser.add_argument("--learning-rate", type=float, help="1e-3, as in the papers, or 5e-3 on the generated set")
    parser.add_argument("--contrast-weight", type=float, default=0.1, help="SGL's; the paper chooses it per data set")
    parser.add_argument("--held-out", choices=["test", "valid"], default="test", help="valid: to choose settings on")
    asked = parser.parse_args()
    generated = asked.dataset == "blocks"
    data = load("blocks" if generated else asked.root / asked.dataset, asked.held_out)
    batch_size = asked.batch_size or (128 if generated else 2048)
    learning_rate = asked.learning_rate or (5e-3 if generated else 1e-3)
    options = {"lightgcn": {}, "sgl": {"contrast_weight": asked.contrast_weight}}
    for name in asked.methods:
        found = []
        for seed in range(asked.seeds):
            torch.manual_seed(seed)
            began = time.monotonic()
            encoder = LightGCN(**data.about)
            run = kt.Run(
                METHODS[name](encoder, **options[name]),
                data.train,
                augmenter=SGLViews(),
                epochs=asked.epochs,
                batch_size=batch_size,
                drop_last=False,
                optimizer=kt.AdamW(learning_rate, weight_decay=0.0),
                warmup_epochs=0,
                seed=seed,
                observers=[],
            )
            run.fit()
            found.append(evaluate(encoder, data))
            if kt.rank() == 0:
                scores = "  ".join(f"{score}@20 {found[-1][score]:.4f}" for score in found[-1])
                print(f"{name:9} seed {seed}  {scores}  ({time.monotonic() - began:.0f} s)", flush=True)
        if kt.rank() == 0:
            means = "  ".join(f"{score}@20 {_spread([one[score] for one in found])}" for score in found[0])
            print(f"{name:9} mean    {means}  over {asked.seeds} seeds, {asked.epochs} epochs", flush=True)


def _spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.4f} +- {statistics.stdev(values) if len(values) > 1 else 0.0:.4f}"


if __name__ == "__main__":
    main()
