"""Train LightGCN and SGL the same way over several seeds, and print recall and nDCG at 20 with mean and spread.

Trained on the part `train`; every few epochs the part `valid` is scored, and the weights of its best recall are kept.
The part `test` is scored once, with those, each user's items of train and valid known.

python -m kontrast_recsys                                           # the generated set
python -m kontrast_recsys --root data/recsys --dataset lastfm       # data/recsys/lastfm-train.txt.gz and so on
"""

import argparse
import copy
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

import kontrast as kt
from kontrast_recsys.augment import SGLViews
from kontrast_recsys.data import Interactions, load
from kontrast_recsys.encoder import LightGCN
from kontrast_recsys.evaluate import ranking
from kontrast_recsys.methods import lightgcn, sgl

__all__ = ["main"]


@dataclass(frozen=True)
class Settings:
    """How a method is trained on a data set, at a constant learning rate; what is not set is the papers'."""

    epochs: int
    every: int = 2
    batch_size: int = 2048
    learning_rate: float = 1e-3
    l2: float = 1e-4
    contrast_weight: float = 0.1


SETTINGS = {
    # The rate shortens the plateau at which the contrast rules; contrast_weight was chosen on valid (README).
    "lastfm": {
        "lightgcn": Settings(epochs=300, every=10, learning_rate=5e-3),
        "sgl": Settings(epochs=60, every=5, learning_rate=5e-3, contrast_weight=0.02),
    },
    "gowalla": {"lightgcn": Settings(epochs=100), "sgl": Settings(epochs=30)},
    "blocks": {
        "lightgcn": Settings(epochs=30, batch_size=128, learning_rate=5e-3),
        "sgl": Settings(epochs=30, batch_size=128, learning_rate=5e-3),
    },
}


class KeepBest(kt.Observer):
    """Scores the held-out part every few epochs, and keeps the encoder of the best recall."""

    def __init__(self, encoder: LightGCN, data: kt.Splits[Interactions], settings: Settings, *, verbose: bool) -> None:
        self.encoder = encoder
        self.data = data
        self.settings = settings
        self.verbose = verbose
        self.best = copy.deepcopy(encoder)
        self.epoch = 0
        self.scores = {"recall": -1.0}

    def epoch_ended(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Score, where it is due."""
        if (epoch + 1) % self.settings.every and epoch + 1 < self.settings.epochs:
            return
        scores = ranking(self.encoder, self.data.train, self.data.test)
        if self.verbose:
            _say(f"  epoch {epoch + 1:3}  loss {metrics['loss']:.4f}  valid {_text(scores)}")
        if scores["recall"] > self.scores["recall"]:
            self.epoch, self.scores = epoch + 1, scores
            self.best.load_state_dict(self.encoder.state_dict())


def main() -> None:
    """Read the command line, train, print."""
    description, _, _ = (__doc__ or "").partition("\n\npython")
    parser = argparse.ArgumentParser(prog="python -m kontrast_recsys", description=description)
    parser.add_argument("--root", type=Path, default=Path("."), help="folder of the files")
    parser.add_argument("--dataset", choices=sorted(SETTINGS), default="blocks", help="blocks is the generated set")
    parser.add_argument("--methods", nargs="+", choices=["lightgcn", "sgl"], default=["lightgcn", "sgl"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--valid-only", action="store_true", help="leave test alone: to choose settings")
    parser.add_argument("--verbose", action="store_true", help="print every score on valid")
    for name, default in asdict(Settings(0)).items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=type(default), help="instead of what is set for method and data set")
    asked = parser.parse_args()
    source = "blocks" if asked.dataset == "blocks" else asked.root / asked.dataset
    apart, whole = load(source, "valid"), None if asked.valid_only else load(source, "test")
    for method in asked.methods:
        settings = SETTINGS[asked.dataset][method]
        given = {name: getattr(asked, name) for name in asdict(settings) if getattr(asked, name) is not None}
        settings = replace(settings, **given)
        _say(f"{method} on {asked.dataset}: {settings}")
        found = []
        for seed in asked.seeds:
            began = time.monotonic()
            kept = _train(method, apart, settings, seed, verbose=asked.verbose)
            line = f"{method:9} seed {seed}  valid {_text(kept.scores)} at epoch {kept.epoch}"
            if whole is not None:
                found.append(ranking(kept.best, whole.train, whole.test))
                line += f"  test {_text(found[-1])}"
            _say(f"{line}  ({time.monotonic() - began:.0f} s)")
        if found:
            means = "  ".join(f"{score}@20 {_spread([one[score] for one in found])}" for score in found[0])
            _say(f"{method:9} mean    test {means}  over {len(found)} seeds")


def _train(method: str, data: kt.Splits[Interactions], settings: Settings, seed: int, *, verbose: bool) -> KeepBest:
    torch.manual_seed(seed)
    encoder = LightGCN(**data.about, l2=settings.l2)
    kept = KeepBest(encoder, data, settings, verbose=verbose)
    kt.Run(
        sgl(encoder, contrast_weight=settings.contrast_weight) if method == "sgl" else lightgcn(encoder),
        data.train,
        augmenter=SGLViews(),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        drop_last=False,
        optimizer=kt.AdamW(settings.learning_rate, weight_decay=0.0),
        warmup_epochs=0,
        schedule="constant",
        seed=seed,
        observers=[kept],
    ).fit()
    return kept


def _text(scores: Mapping[str, float]) -> str:
    return "  ".join(f"{name}@20 {value:.4f}" for name, value in scores.items())


def _spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.4f} +- {statistics.stdev(values) if len(values) > 1 else 0.0:.4f}"


def _say(text: str) -> None:
    if kt.rank() == 0:
        print(text, flush=True)


if __name__ == "__main__":
    main()
