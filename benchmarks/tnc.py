"""TNC on series that switch between hidden states: what a window's representation says of its state.

    python benchmarks/tnc.py [--seeds 3]        # generated

After the simulation of the paper: series of 2,000 steps in stretches of 50, each of the state of the one before with
a chance of 0.9, else of another of the four. A state generates two channels in its own way (a periodic Gaussian
process, a smooth one, nonlinear moving averages of order 5 and 10), the third is their mean plus noise; every process
has mean 0 and standard deviation 1, so that level and spread do not give the state away. A window has 50 steps and the
state that most of it is in. TNC learns from 100 series without labels: representations of 10 numbers, AdamW at a
constant 0.001, last step. Classifiers are fitted to windows of these series and judged on windows of 50 others.

Source: Tonekaboni et al. 2021, arXiv:2106.00750, section 4.1. Differs from it: the encoder (dilated convolutions), the
sizes, and processes written anew from their names; numbers are not comparable with the paper's.
"""

import argparse

import torch
from torch import Tensor

import kontrast as kt
from kontrast.adapters import timeseries
from kontrast.plugins.tnc import tnc

WINDOW, STRETCHES, STATES, STAY = 50, 40, 4, 0.9
TRAIN, TEST, BATCH = 100, 50, 10
COLUMNS = ("window itself", "drawn", "TNC")


def scene(count: int) -> tuple[Tensor, Tensor]:
    """Return series [count, 2000, 3], and the state of each stretch [count, 40]."""
    states = torch.randint(STATES, (count, 1))
    for _ in range(STRETCHES - 1):
        moved = (states[:, -1:] + torch.randint(1, STATES, (count, 1))) % STATES
        states = torch.cat([states, torch.where(torch.rand(count, 1) < STAY, states[:, -1:], moved)], 1)
    shape = (count, STRETCHES * WINDOW)
    apart = torch.arange(WINDOW)[:, None] - torch.arange(WINDOW)
    periodic, smooth = (-2 * (torch.pi * apart / 12).sin().square()).exp(), (-0.5 * (apart / 3).square()).exp()
    found = []
    for _ in range(2):
        processes = [gaussian(shape, periodic), gaussian(shape, smooth), narma(shape, 5, 0.2), narma(shape, 10, 0.05)]
        whole = torch.stack([(one - one.mean()) / one.std() for one in processes])
        found.append(whole.gather(0, states.repeat_interleave(WINDOW, 1)[None])[0])
    found.append(torch.stack(found).mean(0) + 0.3 * torch.randn(shape))
    return torch.stack(found, 2), states


def gaussian(shape: tuple[int, int], kernel: Tensor) -> Tensor:
    """Return a Gaussian process, anew in every stretch."""
    root = torch.linalg.cholesky(kernel.double() + 1e-2 * torch.eye(WINDOW)).float()
    return (torch.randn(shape).unflatten(1, (-1, WINDOW)) @ root.T).flatten(1)


def narma(shape: tuple[int, int], order: int, feedback: float) -> Tensor:
    """Return a nonlinear autoregressive moving average of a uniform input."""
    given, steps = 0.5 * torch.rand(shape), [torch.full(shape[:1], 0.1)] * order
    for t in range(order, shape[1]):
        memory = torch.stack(steps[-order:]).sum(0)
        steps.append(0.3 * steps[-1] + feedback / order * steps[-1] * memory + given[:, t - order] * given[:, t])
    return torch.stack(steps, 1)


def windows(series: Tensor, states: Tensor) -> kt.ArrayData:
    """Return all windows from the eleventh step on, each with the state that 40 of its 50 steps are in."""
    cut = series[:, 10 : 10 - WINDOW].unflatten(1, (-1, WINDOW)).flatten(0, 1)
    return kt.ArrayData(cut, states[:, :-1].flatten())


def accuracies(encoder: kt.Encoder | None, train: kt.ArrayData, test: kt.ArrayData) -> list[float]:
    """Return the accuracy of a logistic regression and of the vote of 20 neighbours, in percent."""
    return [kt.evaluate.linear(encoder, train, test), kt.evaluate.knn(encoder, train, test, k=20)]


def main() -> None:
    """Print one row per seed, then mean and standard deviation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=500)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("accuracy of the state, %: linear, 20 neighbours".ljust(50) + "".join(f"{name:>16}" for name in COLUMNS))
    found = []
    for seed in range(options.seeds):
        torch.manual_seed(seed)
        series, states = scene(TRAIN)
        parts = windows(series, states), windows(*scene(TEST))
        method = tnc(timeseries.DilatedCNN(3, 10, hidden_size=32, depth=5))
        row = [accuracies(None, *parts), accuracies(method.encoder, *parts)]
        kt.Run(
            method,
            kt.ArrayData(series),
            augmenter=timeseries.NeighborWindows(window=WINDOW),
            steps=options.steps,
            batch_size=BATCH,
            warmup_epochs=0,
            schedule="constant",
            seed=seed,
            diagnose_every=0,
            observers=(),
        ).fit()
        found.append([*row, accuracies(method.encoder, *parts)])
        show(f"seed {seed}", torch.tensor(found[-1]))
    show("mean", torch.tensor(found).mean(0))
    show("standard deviation", torch.tensor(found).std(0))


def show(name: str, values: Tensor) -> None:
    """Print one line: of each column both accuracies."""
    print(f"{name:<50}" + "".join(f"{a:9.1f} {b:6.1f}" for a, b in values.tolist()), flush=True)


if __name__ == "__main__":
    main()
