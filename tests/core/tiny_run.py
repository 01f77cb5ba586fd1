"""A finished run of `kontrast train` on a few small images, for tests of what is done with runs afterwards."""

from pathlib import Path

import numpy as np
import torch

from kontrast.cli import main

__all__ = ["TEST", "TRAIN", "make_run", "save_images"]

TRAIN, TEST = 60, 25


def save_images(path: Path, *, train: int = TRAIN, test: int = TEST, labels: bool = True, channels: int = 1) -> Path:
    """Write images of three classes, which differ in the row that is bright; 30, 20 and 10 of 60 in the first part."""
    generator = torch.Generator().manual_seed(0)
    arrays = {}
    for prefix, count in (("", train), ("test_", test)):
        if count:
            classes = torch.tensor([0, 0, 0, 1, 1, 2]).repeat(count)[:count]
            pixels = torch.rand(count, 8, 8, channels, generator=generator) * 0.5
            pixels[torch.arange(count), 3 * classes] += 0.5
            arrays[f"{prefix}images"] = pixels.numpy()
            if labels:
                arrays[f"{prefix}labels"] = classes.numpy()
    np.savez(path, **arrays)  # type: ignore[arg-type]  # the arrays are not `allow_pickle`
    return path


def make_run(folder: Path) -> Path:
    """Train for two steps in `folder` and return the run's folder."""
    data = save_images(folder / "images.npz")
    options = {"data": data, "epochs": 1, "batch_size": 30, "encoder.width": 4, "method.hidden_size": 8}
    out = folder / "run"
    assert main(["train", "simclr", *(f"--{name}={value}" for name, value in options.items()), f"--out={out}"]) == 0
    return out
