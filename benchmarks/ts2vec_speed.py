"""TS2Vec's step against a plain PyTorch version written from the paper: same encoder, same crops, same numbers.

    python benchmarks/ts2vec_speed.py                       # all parts, each in a process of its own
    python benchmarks/ts2vec_speed.py --part ratios --threads 2

ratios: the fastest of several interleaved trials of the hierarchical loss alone, forward and backward, and of the whole
step. memory: how much more a process holds at the peak of the loss than before it, at lengths beyond. iterations: 200
steps of 8 series on as many and as long ones as GunPoint has, with one and two threads, beside the encoder alone on
the same crops. million: the representations of 20,000 overlapping windows of one recording of a million steps.
"""

import argparse
import subprocess
import sys
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
PARTS = ("ratios", "memory", "iterations", "million")


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


def held() -> float:
    """Return what the process holds, in megabytes, and begin a new peak (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status("VmRSS")


def peak() -> float:
    """Return the most it held since then."""
    return _status("VmHWM")


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024 / 1e6


def _plain(one: Tensor, two: Tensor) -> None:
    plain_loss(one, two).backward()


def _ours(method: kt.Method, one: Tensor, two: Tensor) -> None:
    our_loss(method, one, two).backward()


def ratios(method: kt.Method) -> None:
    """Print ours beside the plain version."""
    for steps, trials in ((150, 9), (1000, 3)):
        one = (0.3 * torch.randn(BATCH, steps, SIZE)).requires_grad_()
        two = (one.detach() + 0.1 * torch.randn(BATCH, steps, SIZE)).requires_grad_()
        difference = abs(float((plain_loss(one, two) - our_loss(method, one, two)).detach()))
        plain, ours = fastest(trials, partial(_plain, one, two), partial(_ours, method, one, two))
        goal = " (goal 0.5)" if steps == 150 else ""
        print(f"loss, T = {steps}: {ours / plain:.2f}{goal} of {plain:.3f} s; values differ by {difference:.0e}")

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
        goal = " (goal 0.8)" if steps == 1000 else ""
        print(f"step, T = {steps}: {ours / plain:.2f}{goal} of {plain:.3f} s", flush=True)


def memory(method: kt.Method, steps: int, name: str) -> None:
    """Print the memory of one loss, forward and backward, beside its inputs and their gradients."""
    function = partial(_ours, method) if name == "ours" else _plain
    function(*(torch.randn(2, 50, SIZE).requires_grad_() for _ in range(2)))  # what is loaded once
    one, two = ((0.3 * torch.randn(2, steps, SIZE)).requires_grad_() for _ in range(2))
    for part in (one, two):
        part.grad = torch.zeros_like(part)  # held before and after alike
    before, start = held(), time.perf_counter()
    function(one, two)
    print(
        f"{name}, 2 series of T = {steps}: {peak() - before:.0f} MB beside {4 * one.numel() * 4 / 1e6:.0f} MB of "
        f"inputs and gradients, {time.perf_counter() - start:.1f} s"
    )


def iterations(method: kt.Method) -> None:
    """Print the seconds of 200 iterations, and those that the encoder takes of them."""
    data = kt.ArrayData(torch.randn(50, 150, 1))
    crops = timeseries.OverlappingCrops()
    encoder: Any = method.towers["default"].encoder
    start = time.perf_counter()
    for step in range(200):
        ids = torch.arange(8 * step, 8 * step + 8) % 50
        method.zero_grad()
        views = crops(data.batch(ids), kt.Draws(0, step // 6, step))
        dense = [encoder.encode(view, ids).dense for view in views]
        torch.autograd.backward(dense, [torch.ones_like(part) for part in dense if part is not None])
    alone = time.perf_counter() - start
    settings: dict[str, Any] = {"schedule": "constant", "warmup_epochs": 0, "diagnose_every": 0, "observers": ()}
    run = kt.Run(method, data, augmenter=crops, steps=200, batch_size=8, **settings)
    start = time.perf_counter()
    run.fit()
    print(
        f"200 iterations on 50 series of T = 150, {torch.get_num_threads()} threads: "
        f"{time.perf_counter() - start:.1f} s (goal 30), crops and encoder alone {alone:.1f} s"
    )


def million(method: kt.Method) -> None:
    """Print the memory and time of embedding a recording of a million steps."""
    recording = torch.randn(1_000_000)
    data = timeseries.windows(recording, 100, 50)
    kt.evaluate.embed(method.encoder, kt.ArrayData(data.inputs[:256]), batch_size=256)
    before, start = held(), time.perf_counter()
    rows = kt.evaluate.embed(method.encoder, data, batch_size=256).rows
    print(
        f"{len(rows)} windows of 100 of a million steps: {peak() - before:.0f} MB, of which the representations are "
        f"{rows.numel() * 4 / 1e6:.0f}, {time.perf_counter() - start:.0f} s"
    )


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--part", choices=PARTS, help="all by default")
    parser.add_argument("--steps", type=int, help="of the part memory: this length alone")
    parser.add_argument("--plain", action="store_true", help="of the part memory: the plain version")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    method = ts2vec(timeseries.DilatedCNN(1, dropout=0.0 if options.part == "ratios" else 0.1))
    if options.part == "ratios":
        print(f"threads {options.threads}")
        ratios(method)
    elif options.part == "memory" and options.steps:
        memory(method, options.steps, "plain" if options.plain else "ours")
    elif options.part == "memory":
        for steps in ("1000", "3000", "10000"):
            _again("--part", "memory", "--steps", steps)
        _again("--part", "memory", "--steps", "3000", "--plain")
    elif options.part == "iterations":
        iterations(method)
    elif options.part == "million":
        million(method)
    else:
        for part in ("ratios", "memory"):
            _again("--part", part)
        for threads in ("1", "2"):
            _again("--part", "iterations", "--threads", threads)
        _again("--part", "million")


def _again(*arguments: str) -> None:
    """Run this file in a process of its own, whose memory nothing else has touched."""
    subprocess.run([sys.executable, __file__, *arguments], check=True)


if __name__ == "__main__":
    main()
