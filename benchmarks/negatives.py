"""False negatives: plain, debiased, hard, and both, on CIFAR-10's first 10,000 training images.

The papers' settings (temperature 0.5, prior 0.1 as there are ten classes, hardness 1, batches of 256), a small encoder,
an equal budget, last epoch; nothing is chosen on the test images, the first 2,000. Prints mean and standard deviation
over seeds, beside raw pixels and the untrained encoder. Half an hour on two cores: `python benchmarks/negatives.py`.
The images are looked for in the folder `cifar10` of KONTRAST_DATA (default ../shared/data).
"""

import argparse
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import kontrast as kt
from kontrast.adapters import vision
from kontrast.plugins.objectives import InfoNCE

SAMPLERS: dict[str, Callable[[], kt.PairSampler]] = {
    "InfoNCE": kt.InBatch,
    "debiased": lambda: kt.Debiased(kt.InBatch(), positive_prior=0.1),
    "hard": lambda: kt.HardNegatives(kt.InBatch(), hardness=1.0),
    "debiased and hard": lambda: kt.Debiased(kt.HardNegatives(kt.InBatch(), hardness=1.0), positive_prior=0.1),
}


class ColourViews(kt.Augmenter):
    """Crops, flips, gains of each colour, and grey now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.crops = vision.AffineViews(crop=0.3, shift=0.0, scale=1.0, rotation=0.0, brightness=0.2, contrast=1.5)

    def forward(self, batch: kt.Batch, draws: kt.Draws) -> list[kt.View]:
        """Return two views of images [B, 3, 32, 32]."""
        views = []
        for number, view in enumerate(self.crops(batch, draws)):
            u = draws.uniform(batch.ids, 5, view=number, stream=1)[:, :, None, None, None]
            images = torch.where(u[:, 0] < 0.5, view.inputs.flip(3), view.inputs)
            images = (images * (0.6 + 0.8 * u[:, 1:4, 0])).clamp(0, 1)
            views.append(kt.View.of(batch, torch.where(u[:, 4] < 0.2, images.mean(1, keepdim=True), images)))
        return views


def load(folder: Path, name: str, count: int) -> kt.ArrayData:
    """Return the first images of a file of JPEGs."""
    archive = np.load(folder / f"{name}.npz")
    joined, offsets = archive["jpeg"].tobytes(), archive["offsets"]
    images = [Image.open(io.BytesIO(joined[offsets[i] : offsets[i + 1]])).convert("RGB") for i in range(count)]
    return vision.images(np.stack([np.asarray(image) for image in images]), archive["labels"][:count])


def main() -> None:
    """Train with every sampler and every seed, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    folder = Path(os.environ.get("KONTRAST_DATA", "../shared/data")) / "cifar10"
    if not (folder / "train.npz").is_file():
        sys.exit("the images must be in the folder `cifar10` of KONTRAST_DATA, and train.npz is not there; set it")
    train, test = load(folder, "train", 10_000), load(folder, "test", 2_000)

    def accuracy(encoder: torch.nn.Module | None) -> tuple[float, float]:
        pair = kt.evaluate.embed(encoder, train), kt.evaluate.embed(encoder, test)
        return kt.evaluate.knn(pair, k=200), kt.evaluate.linear(pair)

    def show(name: str, results: list[tuple[float, float]]) -> None:
        numbers = torch.tensor(results)
        cells = [f"{m:.1f} +- {s:.1f}" for m, s in zip(numbers.mean(0), numbers.std(0, correction=0), strict=True)]
        print(f"{name:<20} {cells[0]:>14} {cells[1]:>14}", flush=True)

    print(f"{options.epochs} epochs, {options.seeds} seeds")
    print(f"{'accuracy %':<20} {'kNN (k=200)':>14} {'linear':>14}")
    show("raw pixels", [accuracy(None)])
    for number, (name, sampler) in enumerate(SAMPLERS.items()):
        drawn, trained = [], []
        for seed in range(options.seeds):
            torch.manual_seed(seed)
            encoder = vision.SmallCNN(in_channels=3, width=16)
            drawn += [] if number else [accuracy(encoder)]
            method = kt.Method(
                encoder,
                projector=kt.mlp(encoder.representation_size, 512, 128),
                sampler=sampler(),
                objective=InfoNCE(temperature=0.5),
                joint_forward=True,
            )
            run = kt.Run(
                method,
                train,
                augmenter=ColourViews(),
                epochs=options.epochs,
                batch_size=256,
                optimizer=kt.AdamW(1e-3, weight_decay=1e-6),
                seed=seed,
                observers=(),
            )
            run.fit()
            trained.append(accuracy(encoder))
        if drawn:
            show("untrained encoder", drawn)
        show(name, trained)


if __name__ == "__main__":
    main()
