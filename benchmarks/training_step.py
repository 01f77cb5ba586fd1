"""A run's step against a bare loop written by hand: same encoder, same loss, same tensors, on one and two processes.

Prints ratios of the fastest of several interleaved trials: what `kontrast.Run` adds to a step (metrics, logging, keys),
and what diagnostics add to that. `python benchmarks/training_step.py`, about three minutes on two cores.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import kontrast as kt
from kontrast.adapters import vision
from kontrast.plugins.objectives import NTXent

STEPS, BATCH, TRIALS, TEMPERATURE = 12, 128, 6, 0.5


def parts() -> tuple[kt.Encoder, nn.Sequential]:
    """Return the same encoder and head each time."""
    torch.manual_seed(0)
    return vision.SmallCNN(in_channels=3, width=32), kt.mlp(128, 256, 128, norm="none")


def bare(images: torch.Tensor) -> float:
    """Return the seconds of STEPS steps of a loop as one writes it by hand."""
    encoder, head = parts()
    model: nn.Module = nn.Sequential(encoder, head)
    world, rank = kt.world_size(), kt.rank()
    if world > 1:
        model = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    own = BATCH // world
    started = time.perf_counter()
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
    return time.perf_counter() - started


def ours(images: torch.Tensor, diagnose_every: int) -> float:
    """Return the seconds of the same steps as a run, without what happens once (folder, first imports)."""
    encoder, head = parts()
    method = kt.Method(encoder, projector=head, sampler=kt.InBatch(), objective=NTXent(TEMPERATURE))
    run = kt.Run(
        method,
        kt.ArrayData(images),
        augmenter=kt.Identity(),
        epochs=1,
        batch_size=BATCH,
        warmup_epochs=0,
        sync_batchnorm=False,
        diagnose_every=diagnose_every,
        observers=(),
    )
    started = time.perf_counter()
    run.fit()
    return time.perf_counter() - started


def main() -> None:
    """Measure, print, and start two processes that do the same."""
    torch.set_num_threads(1)
    kt.join_processes("cpu")
    images = torch.rand(STEPS * BATCH, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    ways: dict[str, Callable[[], float]] = {
        "bare": lambda: bare(images),
        "run": lambda: ours(images, 0),
        "run with diagnostics": lambda: ours(images, 10),
    }
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(TRIALS):
        for name, way in ways.items():
            if dist.is_initialized():
                dist.barrier()
            best[name] = min(best[name], way())
    if kt.rank() == 0:
        world = kt.world_size()
        print(f"{world} process{'es' if world > 1 else ''}: bare loop {1000 * best['bare'] / STEPS:.1f} ms per step")
        print(f"  run / bare loop            {best['run'] / best['bare']:.3f}  (goal <= 1.05)")
        cost = best["run with diagnostics"] / best["run"]
        print(f"  diagnostics every 10 steps {cost:.3f}  (goal <= 1.02; default every 50)")
    if "RANK" not in os.environ:
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", __file__]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


if __name__ == "__main__":
    main()
