"""TS2Vec's step against a plain PyTorch version written from the paper: same encoder, same crops, same numbers.

    python benchmarks/ts2vec_speed.py [--threads 1]

Ratios of the fastest of several interleaved trials: the hierarchical loss alone, forward and backward; the whole step;
the extra memory of the loss at lengths beyond.
"""

import argparse
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import kontrast as kt
from kontrast.adapters import timeseries
from kontrast.plugins.ts2vec import ts2vec

BATCH, SIZE = 8, 320


def plain_loss(one: Tensor, two: Tensor) -> Tensor:
    """Return the loss of Yue et al. 2022, equations 1 to 3, with the matrices of each level whole."""
    total, levels = torch.zeros(()), 0
    while True:
        _, steps, _ = one.shape
        instance = _contrast(torch.cat([one, two]).transpose(0, 1), len(one))
        levels += 1
        total = total + 0.5 * instance
        if steps == 1:
            return total / levels
        total = total + 0.5 * _contrast(torch.cat([one, two], 1), steps)
        one, two = (F.max_pool1d(z.transpose(1, 2), 2).transpose(1, 2) for z in (one, two))


def _contrast(rows: Tensor, half: int) -> Tensor:
    scores = rows @ rows.transpose(1, 2)
    scores = scores.masked_fill(torch.eye(2 * half, dtype=torch.bool), -torch.inf)
    logs = scores.log_softmax(2)
    at = torch.arange(half)
    return -(logs[:, at, at + half].mean() + logs[:, at + half, at].mean()) / 2


def our_loss(method: kt.Method, one: Tensor, two: Tensor) -> Tensor:
    """Return the same by the method's sampler and objective."""
    ids = torch.arange(len(one))
    views = [kt.Encoded(None, ids, ids + n * len(one), dense=z) for n, z in enumerate((one, two))]
    return method.score(views).reduced().backward


def fastest(trials: int, *functions: Callable[[], object]) -> list[float]:
    """Return the least seconds of each, run in turn."""
    best = [float("inf")] * len(functions)
    for function in functions:
        function()
    for _ in range(trials):
        for n, function in enumerate(functions):
            start = time.perf_counter()
            function()
            best[n] = min(best[n], time.perf_counter() - start)
    return best


def extra_memory(function: Callable[[], object]) -> float:
    """Return by how many megabytes the process grew while a function ran."""
    page, seen, done = 4096, [0], threading.Event()

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * page

    def watch() -> None:
        while not done.wait(0.002):
            seen[0] = max(seen[0], resident())

    before = resident()
    watcher = threading.Thread(target=watch)
    watcher.start()
    function()
    done.set()
    watcher.join()
    return max(0, seen[0] - before) / 1e6


def _plain(one: Tensor, two: Tensor) -> None:
    plain_loss(one, two).backward()


def _ours(method: kt.Method, one: Tensor, two: Tensor) -> None:
    our_loss(method, one, two).backward()


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    method = ts2vec(timeseries.DilatedCNN(1, dropout=0.0))
    print(f"threads {options.threads}")
    for steps, trials in ((150, 9), (1000, 3)):
        one = (0.3 * torch.randn(BATCH, steps, SIZE)).requires_grad_()
        two = (one.detach() + 0.1 * torch.randn(BATCH, steps, SIZE)).requires_grad_()
        difference = abs(float(plain_loss(one, two) - our_loss(method, one, two)))
        plain, ours = fastest(trials, partial(_plain, one, two), partial(_ours, method, one, two))
        print(
            f"loss, T = {steps}: {ours / plain:.2f} of the plain one's {plain:.3f} s; values differ by {difference:.0e}"
        )

        batch = kt.Batch(torch.randn(BATCH, steps, 1), torch.arange(BATCH))
        views = timeseries.OverlappingCrops(mask_ratio=0.0)(batch, kt.Draws(0))
        # The whole series twice: the longest overlap there is.
        views = [replace(view, inputs=batch.inputs, coords=torch.arange(steps).expand(BATCH, steps)) for view in views]

        def plain_step(views: list[kt.View] = views) -> None:
            method.zero_grad()
            encoder: Any = method.towers["default"].encoder
            plain_loss(*(encoder.steps(view.inputs) for view in views)).backward()

        def our_step(views: list[kt.View] = views) -> None:
            method.zero_grad()
            method(views)[0].reduced().backward.backward()

        plain, ours = fastest(trials, plain_step, our_step)
        print(f"step, T = {steps}: {ours / plain:.2f} of the plain one's {plain:.3f} s", flush=True)
    for steps in (3000, 10000):
        one, two = ((0.3 * torch.randn(2, steps, SIZE)).requires_grad_() for _ in range(2))
        start = time.perf_counter()
        grown = extra_memory(partial(_ours, method, one, two))
        inputs = 2 * one.numel() * 4 / 1e6
        print(
            f"loss, 2 series of T = {steps}: {time.perf_counter() - start:.1f} s, {grown:.0f} MB beside {inputs:.0f} MB"
        )


if __name__ == "__main__":
    main()
