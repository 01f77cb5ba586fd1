"""Runs a training that is killed again and again, and says whether it ended as the one that was left alone.

A script of its own, so that torch is imported once and each attempt is a fork: ``killing.py FOLDER WORLD KILLS SEED``.
Prints one line of JSON.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

import kontrast as kt
from kontrast.plugins.objectives import InfoNCE

STEPS = 60


class Jitter(kt.Augmenter):
    """Adds numbers drawn for each sample and view."""

    def forward(self, batch: kt.Batch, draws: kt.Draws) -> list[kt.View]:
        return [kt.View.of(batch, batch.inputs + 0.1 * draws.uniform(batch.ids, 6, view=v)) for v in range(2)]


class Starter(kt.Observer):
    """Tells the parent that the first step is about to be taken."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe

    def run_started(self, progress: kt.Progress) -> None:
        os.write(self.pipe, b"x")


def train(out: Path, world: int, store: Path | None, rank: int, pipe: int) -> kt.Method:
    """A run with all that has state: dropout, batch norm, a momentum copy, a queue, Adam."""
    if store is not None:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    torch.manual_seed(0)
    encoder = kt.as_encoder(nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2)), 16)
    method = kt.Method(
        encoder,
        projector=kt.mlp(16, 16, 8),
        target=kt.Momentum(0.9, final=1.0),
        sampler=kt.Queue(kt.InBatch(), size=37),
        objective=InfoNCE(),
    )
    data = kt.ArrayData(torch.randn(50, 6, generator=torch.Generator().manual_seed(1)))
    kt.Run(
        method,
        data,
        augmenter=Jitter(),
        epochs=STEPS // 5,
        batch_size=10,
        out=out,
        resume="auto",
        checkpoint_every=1,
        diagnose_every=7,
        device="cpu",
        observers=(Starter(pipe),),
    ).fit()
    return method


def attempt(out: Path, world: int, seconds: float | None) -> bool:
    """Fork the processes of one attempt; kill them `seconds` after the first step; say whether they ended before."""
    started, pipe = os.pipe()
    store = out.parent / f"store-{time.monotonic_ns()}" if world > 1 else None
    children = []
    for rank in range(world):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                method = train(out, world, store, rank, pipe)
                if rank == 0:
                    torch.save(method.state_dict(), out / "final.pt")
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    if seconds is not None:
        os.read(started, 1)
        time.sleep(seconds)
        for child in children:
            os.kill(child, signal.SIGKILL)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    os.close(started)
    os.close(pipe)
    failed = [os.waitstatus_to_exitcode(status) for status in statuses]
    if any(code > 0 for code in failed):
        raise SystemExit(f"an attempt failed by itself: {failed}")
    return not any(failed)


def main() -> None:
    """Compare the killed run with the one left alone."""
    folder, world, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(1)
    train(folder / "warm", 1, None, 0, os.open(os.devnull, os.O_WRONLY))  # what torch imports late is imported here
    started = time.monotonic()
    attempt(folder / "alone", world, None)
    whole = time.monotonic() - started
    moments = random.Random(seed)
    killed, torn, rounds = 0, 0, 0
    reached: list[int] = []
    while killed < kills:  # a run that comes to its end before its kill is begun anew
        out = folder / f"killed-{rounds}"
        rounds += 1
        ended = False
        left = 0
        while killed < kills and not ended:
            ended = attempt(out, world, moments.uniform(0.0, 0.2 * whole))
            killed += not ended
            left = max([left, *(int(path.stem[5:]) for path in out.glob("checkpoints/step-*.pt"))])
            torn += len(list(out.glob("checkpoints/*.part")))
        if not ended:
            attempt(out, world, None)
        reached.append(left)
    expected = torch.load(folder / "alone" / "final.pt", weights_only=True)
    equal = steps = True
    for out in folder.glob("killed-*"):
        found = torch.load(out / "final.pt", weights_only=True)
        equal &= found.keys() == expected.keys() and all(
            torch.equal(found[key], value) if isinstance(value, torch.Tensor) else found[key] == value
            for key, value in expected.items()
        )
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        reference = [json.loads(line) for line in (folder / "alone" / "metrics.jsonl").read_text().splitlines()]
        steps &= rows == reference and [row["step"] for row in rows] == list(range(STEPS))
    print(json.dumps({"kills": killed, "torn": torn, "reached": reached, "equal": equal, "steps": steps}))


if __name__ == "__main__":
    main()
