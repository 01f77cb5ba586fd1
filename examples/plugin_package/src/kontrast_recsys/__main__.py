"""Train LightGCN and SGL over several seeds, and print recall and nDCG at 20 with mean and spread.

python -m kontrast_recsys                                           # the generated set
python -m kontrast_recsys --root data/recsys --dataset lastfm       # data/recsys/lastfm-train.txt.gz and so on
python -m kontrast_recsys --root data/recsys --dataset lastfm --held-out valid --every 2    # to choose settings
"""

import argparse
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

import kontrast as kt
from kontrast_recsys.augment import SGLViews
from kontrast_recsys.data import Interactions, load
from kontrast_recsys.encoder import LightGCN
from kontrast_recsys.evaluate import evaluate
from kontrast_recsys.methods import lightgcn, sgl

__all__ = ["main"]


@dataclass(frozen=True)
class Settings:
    """How a method is trained on a data set; the learning rate stays constant."""

    epochs: int
    batch_size: int
    learning_rate: float
    l2: float = 1e-4
    contrast_weight: float = 0.1


# On Last.fm: the number of epochs, LightGCN's `l2` and SGL's `contrast_weight` were chosen on the part `valid`.
SETTINGS = {
    "lastfm": {
        "lightgcn": Settings(epochs=100, batch_size=2048, learning_rate=1e-2),
        "sgl": Settings(epochs=20, batch_size=2048, learning_rate=1e-2),
    },
    "gowalla": {
        "lightgcn": Settings(epochs=100, batch_size=2048, learning_rate=1e-3),
        "sgl": Settings(epochs=20, batch_size=2048, learning_rate=1e-3),
    },
    "blocks": {
        "lightgcn": Settings(epochs=30, batch_size=128, learning_rate=5e-3),
        "sgl": Settings(epochs=30, batch_size=128, learning_rate=5e-3),
    },
}


class Curve(kt.Observer):
    """Prints what the held-out part says after every few epochs, and at the end the best of it."""

    def __init__(self, encoder: LightGCN, data: kt.Splits[Interactions], every: int) -> None:
        self.encoder = encoder
        self.data = data
        self.every = every
        self.found: dict[int, dict[str, float]] = {}

    def epoch_ended(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Score, where it is due."""
        if (epoch + 1) % self.every == 0:
            self.found[epoch + 1] = evaluate(self.encoder, self.data)
            _say(f"  epoch {epoch + 1:3}  loss {metrics['loss']:.4f}  {_scores(self.found[epoch + 1])}")

    def run_ended(self, error: BaseException | None) -> None:
        """Say which epoch was best by recall."""
        best = max(self.found, key=lambda epoch: self.found[epoch]["recall"])
        _say(f"  best at epoch {best}: {_scores(self.found[best])}")


def main() -> None:
    """Read the command line, train, print."""
    parser = argparse.ArgumentParser(prog="python -m kontrast_recsys", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("."), help="folder of the files")
    parser.add_argument("--dataset", choices=sorted(SETTINGS), default="blocks", help="blocks is the generated set")
    parser.add_argument("--methods", nargs="+", choices=["lightgcn", "sgl"], default=["lightgcn", "sgl"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--held-out", choices=["test", "valid"], default="test", help="valid: train on train alone")
    parser.add_argument("--every", type=int, default=0, help="score after so many epochs; with --held-out valid alone")
    for name, kind in (("epochs", int), ("batch-size", int), ("learning-rate", float), ("l2", float)):
        parser.add_argument(f"--{name}", type=kind, help="instead of what is set for the data set")
    parser.add_argument("--contrast-weight", type=float, help="likewise, of SGL")
    asked = parser.parse_args()
    if asked.every and asked.held_out == "test":
        parser.error("--every would choose an epoch by its test score; take --held-out valid")
    data = load("blocks" if asked.dataset == "blocks" else asked.root / asked.dataset, asked.held_out)
    for name in asked.methods:
        settings = SETTINGS[asked.dataset][name]
        given = {key: getattr(asked, key) for key in vars(settings) if getattr(asked, key) is not None}
        settings = replace(settings, **given)
        _say(f"{name} on {asked.dataset}, scored on {asked.held_out}: {settings}")
        found = []
        for seed in asked.seeds:
            began = time.monotonic()
            found.append(_train(name, data, settings, seed, asked.every))
            _say(f"{name:9} seed {seed}  {_scores(found[-1])}  ({time.monotonic() - began:.0f} s)")
        means = "  ".join(f"{score}@20 {_spread([one[score] for one in found])}" for score in found[0])
        _say(f"{name:9} mean    {means}  over {len(found)} seeds")


def _train(name: str, data: kt.Splits[Interactions], settings: Settings, seed: int, every: int) -> dict[str, float]:
    """Return the scores of the last epoch."""
    torch.manual_seed(seed)
    encoder = LightGCN(**data.about)
    if name == "sgl":
        method = sgl(encoder, contrast_weight=settings.contrast_weight, l2=settings.l2)
    else:
        method = lightgcn(encoder, l2=settings.l2)
    kt.Run(
        method,
        data.train,
        augmenter=SGLViews(),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        drop_last=False,
        optimizer=kt.AdamW(settings.learning_rate, weight_decay=0.0),
        warmup_epochs=0,
        schedule="constant",
        seed=seed,
        observers=[Curve(encoder, data, every)] if every else [],
    ).fit()
    return evaluate(encoder, data)


def _scores(found: Mapping[str, float]) -> str:
    return "  ".join(f"{score}@20 {value:.4f}" for score, value in found.items())


def _spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.4f} +- {statistics.stdev(values) if len(values) > 1 else 0.0:.4f}"


def _say(text: str) -> None:
    if kt.rank() == 0:
        print(text, flush=True)


if __name__ == "__main__":
    main()
