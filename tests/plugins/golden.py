"""Golden curves: the losses of a 20-step run of every method, float64 on the CPU; only a change of maths moves them.

`make golden` records them anew; say in the change why they moved.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch

import kontrast as kt
from kontrast.adapters import vision

FILE = Path(__file__).parent.parent / "golden" / "losses.json"
SMALL = {
    "byol": {"hidden_size": 16, "projection_size": 8},
    "clip": {"projection_size": 8},
    "graphcl": {},
    "moco-v2": {"projection_size": 8, "queue_size": 40},
    "simclr": {"hidden_size": 16, "projection_size": 8},
    "vicreg": {"projection_size": 8},
}


def curve(name: str) -> list[float]:
    """Return the loss of each of 20 steps."""
    factory = kt.get_record(kt.MethodRecord, name).load()
    torch.manual_seed(0)
    towers = ("image", "text") if name == "clip" else ()
    encoders = [vision.SmallCNN(in_channels=1, width=4) for _ in towers or ("",)]
    method: kt.Method = factory(*encoders, **SMALL[name]).double()
    views = vision.AffineViews()
    digits = vision.load("digits").train
    data = kt.ArrayData(digits.inputs[:80].double())
    losses: list[float] = []

    class Recorder(kt.Observer):
        """Keeps every step's loss."""

        def step_ended(self, metrics: Mapping[str, float]) -> None:
            losses.append(metrics["loss"])

    kt.Run(
        method,
        data,
        augmenter=kt.ToTowers(views, *towers) if towers else views,
        epochs=4,
        batch_size=16,
        optimizer=kt.SGD(0.05),
        device="cpu",
        observers=(Recorder(),),
    ).fit()
    return losses


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps({name: curve(name) for name in sorted(SMALL)}, indent=1) + "\n", encoding="utf-8")
    print(f"recorded {', '.join(sorted(SMALL))}")
