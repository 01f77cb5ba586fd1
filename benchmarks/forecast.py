"""Forecasts of a real series: two years of hourly traffic, by what TS2Vec says of an hour, and by the hours themselves.

    pip download autots --no-deps     # unzip; the package carries the series
    python benchmarks/forecast.py autots/datasets/data/traffic_hourly.zip [--seeds 3]

Cars per hour on the Interstate 94 westbound 17,520 hours from October 2016 (104 are missing), from the
UCI repository's "Metro Interstate Traffic Volume". The first 60 % are for training, 20 % choose a ridge regression's
penalty, 20 % judge; hours before a gap are left out. Standardised by the training part. TS2Vec with the paper's
settings: dilated convolutions (10 blocks of 64, one to 320), 200 iterations of AdamW at 0.001 on the training part, cut
in four; the mean of the weights. All see the last 201 hours and nothing else, no calendar: the representation of the
last hour, trained and as drawn, or the 201 values themselves. Beside them the value of the same hour a week before.
"""

import argparse
import csv
import io
import zipfile
from pathlib import Path

import torch
from torch import Tensor

import kontrast as kt
from kontrast.adapters import timeseries
from kontrast.plugins.ts2vec import ts2vec

HORIZONS, CONTEXT, WEEK, TRAIN, VALIDATION = (24, 48, 168), 201, 168, 0.6, 0.2
PARTS = 4  # of the training part, a batch of series


class Values(kt.Encoder):
    """The values of a window themselves, as what is said of its last step."""

    representation_size = CONTEXT

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the values of windows [B, T, 1] in a row; the mean where they are missing."""
        return inputs.nan_to_num(0.0).flatten(1)

    def encode(self, view: kt.View, copies: Tensor) -> kt.Encoded:
        """Return them as the representation of one step, [B, 1, T]."""
        return kt.Encoded(None, view.ids, copies, dense=self(view.inputs)[:, None])


def read(path: Path, hours: int | None) -> Tensor:
    """Return the recording [T], or its beginning, standardised by its training part."""
    with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as file:
        rows = csv.DictReader(io.TextIOWrapper(file, "utf-8"))
        values = torch.tensor([float(row["traffic_volume"] or "nan") for row in rows][:hours], dtype=torch.float64)
    known = values[: int(len(values) * TRAIN)]
    mean = known.nanmean()
    return ((values - mean) / (known - mean).square().nanmean().sqrt()).float()


def errors(encoder: kt.Encoder, recording: Tensor) -> list[float]:
    """Return the mean squared and the mean absolute error for each horizon."""
    found = timeseries.forecast(encoder, recording, HORIZONS, context=CONTEXT, train=TRAIN, validation=VALIDATION)
    return [error for one in found for error in (one.mse, one.mae)]


def week_before(recording: Tensor) -> list[float]:
    """Return the same for the value of the same hour a week before."""
    judged = recording[int(len(recording) * (TRAIN + VALIDATION)) :]
    found = []
    for horizon in HORIZONS:
        ahead, before = judged[WEEK:].unfold(0, horizon, 1), judged[:-WEEK].unfold(0, horizon, 1)
        wrong = (ahead - before)[~(ahead - before).isnan().any(1)]
        found += [float(wrong.square().mean()), float(wrong.abs().mean())]
    return found


def trained(recording: Tensor, seed: int) -> tuple[list[float], list[float]]:
    """Return the errors of the encoder as drawn and as trained."""
    torch.manual_seed(seed)
    method = ts2vec(timeseries.DilatedCNN(1))
    drawn = errors(method.encoder, recording)
    known = int(len(recording) * TRAIN)
    data = timeseries.windows(recording[:known], known // PARTS)
    kt.Run(
        method,
        data,
        augmenter=timeseries.OverlappingCrops(),
        steps=200,
        batch_size=PARTS,
        warmup_epochs=0,
        schedule="constant",
        seed=seed,
        diagnose_every=0,
        observers=(),
    ).fit()
    return drawn, errors(method.encoder, recording)


def main() -> None:
    """Print one line per way of forecasting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--hours", type=int, help="of the beginning, for a shorter run; all by default")
    options = parser.parse_args()
    torch.set_num_threads(1)
    recording = read(options.file, options.hours)
    print(f"{'mean squared, absolute error at horizon':<44}" + "".join(f"{horizon:>14}" for horizon in HORIZONS))
    show("the same hour a week before", torch.tensor(week_before(recording)))
    show("ridge on the last 201 values", torch.tensor(errors(Values(), recording)))
    found = []
    for seed in range(options.seeds):
        found.append(trained(recording, seed))
        show(f"ridge on the encoder as drawn, seed {seed}", torch.tensor(found[-1][0]))
        show(f"ridge on TS2Vec, seed {seed}", torch.tensor(found[-1][1]))
    for name, values in zip(("the encoder as drawn", "TS2Vec"), torch.tensor(found).unbind(1), strict=True):
        show(f"{name}, mean", values.mean(0))
        if options.seeds > 1:
            show(f"{name}, standard deviation", values.std(0))


def show(name: str, values: Tensor) -> None:
    """Print one line."""
    pairs = zip(values[::2].tolist(), values[1::2].tolist(), strict=True)
    print(f"{name:<44}" + "".join(f"{a:8.3f}{b:6.3f}" for a, b in pairs), flush=True)


if __name__ == "__main__":
    main()
