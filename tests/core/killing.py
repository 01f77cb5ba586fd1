"""Runs a training that is killed again and again, and says whether it ended as the one that was left alone.

A script of its own, so that torch is imported once and each attempt is a fork: ``killing.py FOLDER WORLD KILLS SEED
[HOW]``. Prints one line of JSON. HOW is `all` (processes are killed), `one` (of them; the others must end by themselves
and name it), or `loaded` (all, with loader workers and gradient caching).
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

import kontrast as kt
from kontrast import heartbeat
from kontrast.plugins.objectives import InfoNCE

STEPS = 60
SURVIVED: list[float] = []  # seconds from the death of one process to the end of the last


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


def train(out: Path, world: int, store: Path | None, rank: int, pipe: int, *, loaded: bool) -> kt.Method:
    """A run with all that has state: dropout, a norm, a momentum copy, a queue, Adam."""
    if store is not None:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    torch.manual_seed(0)
    norm = nn.LayerNorm(16) if loaded else nn.BatchNorm1d(16)  # with batch norms caching is not exact, and warns
    encoder = kt.as_encoder(nn.Sequential(nn.Linear(6, 16), norm, nn.ReLU(), nn.Dropout(0.2)), 16)
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
        micro_batch_size=3 if loaded else 0,
        workers=2 if loaded else 0,
        out=out,
        resume="auto",
        checkpoint_every=1,
        diagnose_every=7,
        device="cpu",
        observers=(Starter(pipe),),
    ).fit()
    return method


def attempt(out: Path, world: int, seconds: float | None, how: str, victim: int = 0) -> bool:
    """Fork the processes of one attempt; kill them `seconds` after the first step; say whether they ended before.

    Where one is killed, `victim`, the others must name it.
    """
    started, pipe = os.pipe()
    store = out.parent / f"store-{time.monotonic_ns()}" if world > 1 else None
    children = []
    for rank in range(world):
        child = os.fork()
        if child == 0:
            code = 1
            log = os.open(out.parent / f"log-{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 2)
            try:
                method = train(out, world, store, rank, pipe, loaded=how == "loaded")
                if rank == 0:
                    torch.save(method.state_dict(), out / "final.pt")
                code = 0
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(code)
        children.append(child)
    if seconds is not None:
        os.read(started, 1)
        time.sleep(seconds)
        for child in [children[victim]] if how == "one" else children:
            os.kill(child, signal.SIGKILL)
    killed = time.monotonic()
    statuses = [os.waitpid(child, 0)[1] for child in children]
    os.close(started)
    os.close(pipe)
    failed = [os.waitstatus_to_exitcode(status) for status in statuses]
    for rank, code in enumerate(failed):
        said = (out.parent / f"log-{rank}").read_text()
        if code > 0 and (how != "one" or seconds is None or f"rank {victim} (" not in said or "died" not in said):
            raise SystemExit(f"rank {rank} of {failed} failed by itself: {said}")
    if how == "one" and seconds is not None and any(failed):
        SURVIVED.append(time.monotonic() - killed)
    return not any(failed)


def main() -> None:
    """Compare the killed run with the one left alone."""
    folder, world, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    how = sys.argv[5] if len(sys.argv) > 5 else "all"
    torch.set_num_threads(1)
    heartbeat.INTERVAL, heartbeat.BROKEN = 0.1, 1.0
    # What torch imports late is imported here.
    train(folder / "warm", 1, None, 0, os.open(os.devnull, os.O_WRONLY), loaded=False)
    started = time.monotonic()
    attempt(folder / "alone", world, None, how)
    whole = time.monotonic() - started
    moments, victims = random.Random(seed), random.Random(seed)
    killed, torn, rounds = 0, 0, 0
    reached: list[int] = []
    while killed < kills:  # a run that comes to its end before its kill is begun anew
        out = folder / f"killed-{rounds}"
        rounds += 1
        ended = False
        left = 0
        while killed < kills and not ended:
            ended = attempt(out, world, moments.uniform(0.0, 0.2 * whole), how, victims.randrange(world))
            killed += not ended
            left = max([left, *(int(path.stem[5:]) for path in out.glob("checkpoints/step-*.pt"))])
            torn += len(list(out.glob("checkpoints/*.part")))
        if not ended:
            attempt(out, world, None, how)
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
    print(
        json.dumps(
            {"kills": killed, "torn": torn, "reached": reached, "equal": equal, "steps": steps, "survived": SURVIVED}
        )
    )


if __name__ == "__main__":
    main()
