"""The four methods on moved digits: accuracy of nearest neighbours and linear probe, mean and spread over seeds.

Training never sees the test digits; settings were chosen on 297 of the training digits; last epoch. About ten minutes
on two cores: `python benchmarks/digits.py`.
"""

import argparse
from collections.abc import Callable

import torch

import kontrast as kt
from kontrast.adapters import vision
from kontrast.plugins.byol import byol
from kontrast.plugins.moco_v2 import moco_v2
from kontrast.plugins.simclr import simclr
from kontrast.plugins.vicreg import vicreg

MOVES = vision.AffineViews(shift=0.15, scale=1.3, rotation=25.0, brightness=0.1, contrast=1.3)
METHODS: dict[str, tuple[Callable[[kt.Encoder], kt.Method], int, float]] = {  # factory, batch size, learning rate
    "simclr": (lambda e: simclr(e, hidden_size=512, projection_size=64, temperature=0.2), 256, 4e-3),
    "moco-v2": (lambda e: moco_v2(e, projection_size=64, queue_size=1024, momentum=0.99), 128, 2e-3),
    "byol": (lambda e: byol(e, hidden_size=512, projection_size=64, momentum=0.97), 128, 4e-3),
    "vicreg": (lambda e: vicreg(e, projection_size=256), 128, 4e-3),
}


def main() -> None:
    """Train every method with every seed and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    data = vision.load("digits")
    train, test = data.train.augmented(MOVES, seed=1), data.test.augmented(MOVES, seed=2)

    def accuracy(encoder: torch.nn.Module | None) -> tuple[float, float]:
        pair = kt.evaluate.embed(encoder, train), kt.evaluate.embed(encoder, test)
        return kt.evaluate.knn(pair, k=20), kt.evaluate.linear(pair)

    def show(name: str, results: list[tuple[float, float]]) -> None:
        numbers = torch.tensor(results)
        cells = [f"{m:.1f} +- {s:.1f}" for m, s in zip(numbers.mean(0), numbers.std(0, correction=0), strict=True)]
        print(f"{name:<20} {cells[0]:>14} {cells[1]:>14}", flush=True)

    print(f"{'accuracy %':<20} {'kNN (k=20)':>14} {'linear':>14}")
    show("raw pixels", [accuracy(None)])
    drawn: list[tuple[float, float]] = []
    for name, (build, batch_size, learning_rate) in METHODS.items():
        results = []
        for seed in range(options.seeds):
            torch.manual_seed(seed)
            encoder = vision.SmallCNN(in_channels=1, width=16)
            if len(drawn) < options.seeds:
                drawn.append(accuracy(encoder))
            kt.Run(
                build(encoder),
                data.train,
                augmenter=MOVES,
                epochs=options.epochs,
                batch_size=batch_size,
                optimizer=kt.AdamW(learning_rate),
                seed=seed,
                observers=(),
            ).fit()
            results.append(accuracy(encoder))
        if name == next(iter(METHODS)):
            show("untrained encoder", drawn)
        show(name, results)


if __name__ == "__main__":
    main()
