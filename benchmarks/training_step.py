"""A run's step against a bare loop written by hand: same encoder, same loss, same tensors, on one and two processes.

Each step of the run is followed by one of the bare loop, so that both meet the same machine. Prints ratios of medians:
what `kontrast.Run` adds to a step (metrics, logging, keys), and what a look for collapse adds to the step that has one.
First steps, in which much happens once, do not count.

`python benchmarks/training_step.py`, some four minutes on two cores.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import kontrast as kt
from kontrast.adapters import vision
from kontrast.plugins.objectives import NTXent

STEPS, BATCH, TRIALS, TEMPERATURE = 13, 128, 4, 0.5


def parts() -> tuple[kt.Encoder, nn.Sequential]:
    """Return the same encoder and head each time."""
    torch.manual_seed(0)
    return vision.SmallCNN(in_channels=3, width=32), kt.mlp(128, 256, 128, norm="none")


def bare(images: torch.Tensor) -> Iterator[None]:
    """Take the steps of a loop as one writes it by hand, one at a time."""
    encoder, head = parts()
    model: nn.Module = nn.Sequential(encoder, head)
    world, rank = kt.world_size(), kt.rank()
    if world > 1:
        model = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    own = BATCH // world
    for step in range(STEPS):
        batch = images[step * BATCH : (step + 1) * BATCH][rank * own : (rank + 1) * own]
        optimizer.zero_grad(set_to_none=True)
        rows = F.normalize(torch.cat([model(batch), model(batch)]))
        everyone = kt.all_gather(rows)
        logits = rows @ everyone.T / TEMPERATURE
        # Rows of rank r stand at r * 2 * own in the gathered ones, first views before second views.
        offset = rank * 2 * own
        here = torch.arange(2 * own)
        logits[here, offset + here] = -torch.inf
        loss = F.cross_entropy(logits, offset + (here + own) % (2 * own))
        loss.backward()
        optimizer.step()
        yield


class Timed(kt.Method):
    """A method that lets another loop take a step after each of its own, and notes how long both took."""

    def __init__(self, encoder: kt.Encoder, head: nn.Module, other: Iterator[None]) -> None:
        super().__init__(encoder, projector=head, sampler=kt.InBatch(), objective=NTXent(TEMPERATURE))
        self.other = other
        self.began = 0.0
        self.own: list[float] = []
        self.others: list[float] = []

    def after_step(self, encoded: Sequence[kt.Encoded], progress: float) -> None:
        """End a step."""
        super().after_step(encoded, progress)
        ended = time.perf_counter()
        self.own.append(ended - self.began)
        next(self.other)
        self.began = time.perf_counter()
        self.others.append(self.began - ended)


def trial(images: torch.Tensor, diagnose_every: int) -> tuple[list[float], list[float]]:
    """Return the seconds of a run's steps, and of the bare loop's beside it."""
    encoder, head = parts()
    method = Timed(encoder, head, bare(images))
    run = kt.Run(
        method,
        kt.ArrayData(images),
        augmenter=kt.Identity(),
        epochs=1,
        batch_size=BATCH,
        warmup_epochs=0,
        sync_batchnorm=False,
        log_every=4,
        diagnose_every=diagnose_every,
        observers=(),
    )
    run.fit()
    return method.own, method.others


def main() -> None:
    """Measure, print, and start two processes that do the same."""
    torch.set_num_threads(1)
    kt.join_processes("cpu")
    images = torch.rand(STEPS * BATCH, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    seconds: dict[str, list[float]] = {"run": [], "bare": [], "plain": [], "looking": []}
    for _ in range(TRIALS):
        own, others = trial(images, 0)
        seconds["run"] += own[1:]
        seconds["bare"] += others[1:]
        own, _ = trial(images, 2)  # steps 0, 2, 4, ... look for collapse
        seconds["looking"] += own[2::2]
        seconds["plain"] += own[1::2]
    if kt.rank() == 0:
        median = {name: statistics.median(taken) for name, taken in seconds.items()}
        world = kt.world_size()
        print(f"{world} process{'es' if world > 1 else ''}: bare loop {1000 * median['bare']:.1f} ms per step")
        print(f"  run / bare loop                     {median['run'] / median['bare']:.3f}  (goal <= 1.05)")
        cost = 100 * (median["looking"] / median["plain"] - 1)
        print(f"  a look for collapse                 {cost:.1f} % of its step")
        print(f"  one in 50 steps, as is the default  {cost / 50:.2f} %  (goal <= 2)", flush=True)
    if "RANK" not in os.environ:
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", __file__]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


if __name__ == "__main__":
    main()
