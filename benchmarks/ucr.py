"""TS2Vec on UCR and UEA sets: test accuracy of the last iteration, mean and spread over seeds.

    python benchmarks/ucr.py                                   # the sets of KONTRAST_DATA/ucr: some hours
    python benchmarks/ucr.py --root FOLDER --sets GunPoint ArrowHead   # sets as NAME_TRAIN.ts and NAME_TEST.ts

The package aeon carries seven sets: `pip download aeon --no-deps`, unzip, `--root aeon/datasets/data`.
The paper's settings: dilated convolutions (10 blocks of 64, one to 320), AdamW at 0.001 without a schedule, 200
iterations of 8 series (600 where the training part has more than 100,000 values), rounded up to whole epochs; the mean
of the weights; a support vector machine on the maxima over time. Beside it: the nearest neighbour by Euclidean
distance, the encoder as it was drawn, and published numbers where they are known: for TS2Vec the two columns of
arXiv:2308.08241's table 14 that are believed to be it (a re-run by others gave 78.9 on ArrowHead, 84.0 on ACSF1), for
T-Loss arXiv:1901.10738, for TNC the same table 14.
"""

import argparse
import os
from pathlib import Path

import torch

import kontrast as kt
from kontrast.adapters import timeseries
from kontrast.adapters.timeseries.evaluate import svm
from kontrast.plugins.ts2vec import ts2vec

ROOT = Path(os.environ.get("KONTRAST_DATA", "../shared/data")) / "ucr"
PUBLISHED = {  # TS2Vec (two columns), T-Loss, TNC
    "ArrowHead": ("81.7-85.7", "76.6", "70.3"),
    "GunPoint": ("98.0-98.7", "98.0", "96.7"),
    "ItalyPowerDemand": ("92.5-96.0", "95.4", "92.8"),
    "OSULeaf": ("84.3-85.1", "76.0", "72.3"),
    "ACSF1": ("91.0", "90.0", "73.0"),
    "BasicMotions": ("97.5", "100.0", "-"),
    "JapaneseVowels": ("98.4", "98.6", "-"),
}


def accuracies(splits: kt.Splits[kt.ArrayData], seed: int) -> tuple[float, float]:
    """Return the accuracy of the encoder as it was drawn and as it was trained, in percent."""
    torch.manual_seed(seed)
    data = splits.train
    method = ts2vec(timeseries.DilatedCNN(data.inputs.shape[2]))
    drawn = svm(*(kt.evaluate.embed(method.encoder, part, batch_size=64) for part in (data, splits.test)))
    batch = min(8, len(data))
    iterations = 200 if data.inputs.numel() <= 100_000 else 600
    run = kt.Run(
        method,
        data,
        augmenter=timeseries.OverlappingCrops(),
        epochs=-(-iterations // (len(data) // batch)),
        batch_size=batch,
        optimizer=kt.AdamW(1e-3, weight_decay=0.01),
        warmup_epochs=0,
        schedule="constant",
        seed=seed,
        diagnose_every=0,
        observers=(),
    )
    run.fit()
    return drawn, svm(*(kt.evaluate.embed(run.encoder, part, batch_size=64) for part in (data, splits.test)))


def nearest(splits: kt.Splits[kt.ArrayData]) -> float:
    """Return the accuracy of the nearest training series by Euclidean distance, in percent."""
    parts = [part.inputs.nan_to_num(0.0) for part in (splits.train, splits.test)]
    longest = max(part.shape[1] for part in parts)
    train, test = (torch.nn.functional.pad(part, (0, 0, 0, longest - part.shape[1])).flatten(1) for part in parts)
    assert splits.train.labels is not None
    assert splits.test.labels is not None
    found = splits.train.labels[torch.cdist(test, train).argmin(1)]
    return 100 * float((found == splits.test.labels).double().mean())


def main() -> None:
    """Print one line per set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=ROOT)
    parser.add_argument("--sets", nargs="*", help="all .npz files of the root by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    names = options.sets or sorted(file.stem for file in options.root.glob("*.npz"))
    print(f"{'set':<28} {'1-NN':>6} {'drawn':>6} {'TS2Vec':>6} {'+-':>4}  {'published':>10} {'T-Loss':>6} {'TNC':>6}")
    means = []
    for name in names:
        splits = timeseries.standardized(timeseries.load(name, options.root))
        found = torch.tensor([accuracies(splits, seed) for seed in range(options.seeds)])
        drawn, trained = found.mean(0).tolist()
        spread = float(found[:, 1].std()) if options.seeds > 1 else 0.0
        published = PUBLISHED.get(name, ("-", "-", "-"))
        means.append((nearest(splits), drawn, trained))
        line = f"{name:<28} {means[-1][0]:6.1f} {drawn:6.1f} {trained:6.1f} {spread:4.1f}"
        print(f"{line}  {published[0]:>10} {published[1]:>6} {published[2]:>6}", flush=True)
    print(f"{'mean':<28} " + " ".join(f"{value:6.1f}" for value in torch.tensor(means).mean(0).tolist()))


if __name__ == "__main__":
    main()
