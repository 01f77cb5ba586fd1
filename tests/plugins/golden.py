"""Golden curves: the losses of a 20-step run of every method, float64 on the CPU; only a change of maths moves them.

`make golden` records them anew; say in the change why they moved.
"""

import functools
import json
from collections.abc import Mapping
from pathlib import Path

import torch

import kontrast as kt
from kontrast.adapters import graph, timeseries, vision

FILE = Path(__file__).parent.parent / "golden" / "losses.json"
SMALL = {
    "byol": {"hidden_size": 16, "projection_size": 8},
    "clip": {"projection_size": 8},
    "cpc": {"hidden_size": 8, "steps": 3},
    "gcc": {"projection_size": 8, "queue_size": 40},
    "grace": {"projection_size": 8},
    "graphcl": {},
    "infograph": {},
    "moco-v2": {"projection_size": 8, "queue_size": 40},
    "simclr": {"hidden_size": 16, "projection_size": 8},
    "tnc": {},
    "ts2vec": {},
    "vicreg": {"projection_size": 8},
}


SERIES = ("cpc", "tnc", "ts2vec")
NODES = ("grace", "infograph")  # methods that read elements, which images have none of


def curve(name: str) -> list[float]:
    """Return the loss of each of 20 steps."""
    factory = kt.get_record(kt.MethodRecord, name).load()
    torch.manual_seed(0)
    towers = ("image", "text") if name == "clip" else ()
    if name in SERIES:
        encoders: list[kt.Encoder] = [timeseries.DilatedCNN(1, 6, hidden_size=4, depth=3, dropout=0.0)]
    elif name in NODES:
        encoders = [graph.GIN(10, hidden_size=4, readout="mean")]
    else:
        encoders = [vision.SmallCNN(in_channels=1, width=4) for _ in towers or ("",)]
    method: kt.Method = factory(*encoders, **SMALL[name]).double()
    views: kt.Augmenter = vision.AffineViews()
    data: kt.Data = kt.ArrayData(vision.load("digits").train.inputs[:80].double())
    if name in SERIES:
        waves = timeseries.load("waves").train
        views, data = timeseries.OverlappingCrops(), kt.ArrayData(waves.inputs[:80].double())
    if name == "tnc":
        views = timeseries.NeighborWindows(8, count=2)
    if name in NODES:
        views, data = graph.grace_views(), _graphs()
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


@functools.cache
def _graphs() -> graph.GraphData:
    whole = graph.load("ba2motifs").train
    x = torch.randn(len(whole.x), 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    nodes, edges = int(whole.num_nodes[:80].sum()), int(whole.num_edges[:80].sum())
    return graph.GraphData(x[:nodes], whole.edge_index[:, :edges], whole.num_nodes[:80], whole.num_edges[:80])


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps({name: curve(name) for name in sorted(SMALL)}, indent=1) + "\n", encoding="utf-8")
    print(f"recorded {', '.join(sorted(SMALL))}")
