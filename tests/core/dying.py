"""A run on several processes of which one comes to grief, or only looks as if it had.

A script of its own, so that torch is imported once and each process is a fork: ``dying.py FOLDER WORLD SCENE...``. The
standard error of each goes to ``FOLDER/SCENE/RANK``. Prints one line of JSON for each scene: process ids and statuses.
Under torchrun (no arguments but FOLDER and SCENE) it is one of the processes.
"""

import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

import kontrast as kt
from kontrast import heartbeat
from kontrast.plugins.objectives import NTXent

heartbeat.INTERVAL, heartbeat.BROKEN, heartbeat.SILENT = 0.1, 1.0, 1.5

AT = 9  # the call of the encoder in which it happens: step 4, whose checkpoint was not written yet


class Fateful(nn.Module):
    """Does what the scene says."""

    representation_size = 4

    def __init__(self, scene: str) -> None:
        super().__init__()
        self.layer, self.calls, self.scene = nn.Linear(3, 4), 0, scene

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        happens = self.calls == AT
        if happens and (self.scene, kt.rank()) in (("killed", 1), ("keeper-killed", 0)):
            os.kill(os.getpid(), signal.SIGKILL)
        if happens and (self.scene, kt.rank()) in (("stopped", 1), ("keeper-stopped", 0)):
            os.kill(os.getpid(), signal.SIGSTOP)
        if happens and self.scene == "raises" and kt.rank() == 1:
            raise ValueError("the tower fell over")
        if happens and self.scene == "all-raise":
            raise RuntimeError("a shape is wrong everywhere")
        if happens and self.scene == "slow" and kt.rank() == 1:
            time.sleep(1.4 * heartbeat.SILENT)
        return torch.as_tensor(self.layer(inputs))


class Tardy(kt.Observer):
    """Holds one process up before the first step and after the last, where no collective keeps them together."""

    def run_started(self, progress: kt.Progress) -> None:
        if kt.rank() == 1:
            time.sleep(1.4 * heartbeat.SILENT)

    def epoch_ended(self, epoch: int, metrics: Mapping[str, float]) -> None:
        if kt.rank() == 1 and epoch == 2:
            time.sleep(1.4 * heartbeat.SILENT)


def train(scene: str, out: Path) -> None:
    """Three epochs of two steps, two calls of the encoder each."""
    torch.manual_seed(0)
    data = kt.ArrayData(torch.rand(32, 3, generator=torch.Generator().manual_seed(0)))
    method = kt.Method(Fateful(scene), sampler=kt.InBatch(), objective=NTXent())
    observers = (Tardy(),) if scene == "slow" else ()
    kt.Run(
        method, data, augmenter=kt.Identity(), epochs=3, batch_size=16, out=out, observers=observers, device="cpu"
    ).fit()
    if scene == "slow":  # a second run of the same processes, which come to it at different times
        time.sleep(kt.rank() * heartbeat.SILENT)
        kt.Run(method, data, augmenter=kt.Identity(), epochs=1, batch_size=16, observers=(), device="cpu").fit()


def child(scene: str, folder: Path, rank: int, world: int, port: int) -> None:
    """Be one process of a scene; never returns."""
    os.dup2(os.open(folder / str(rank), os.O_WRONLY | os.O_CREAT), 2)
    code = 1
    try:
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
        train(scene, folder / "run")
        code = 0
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(code)


def play(scene: str, folder: Path, world: int) -> None:
    """Play a scene with `world` processes and print what became of them."""
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pids = []
    for rank in range(world):
        pid = os.fork()
        if pid == 0:
            child(scene, folder, rank, world, port)
        pids.append(pid)
    started = time.monotonic()
    suspended = {"suspended": pids}.get(scene, [])
    if suspended:  # as a scheduler does with a whole job
        while not list(folder.glob("run/checkpoints/*")):
            time.sleep(0.01)
        for pid in suspended:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(1.4 * heartbeat.SILENT)
        for pid in suspended:
            os.kill(pid, signal.SIGCONT)
    gone = {"stopped": 1, "keeper-stopped": 0}.get(scene)  # ends by no other hand than ours
    statuses = {}
    for rank, pid in enumerate(pids):
        if rank != gone:
            statuses[rank] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    seconds = time.monotonic() - started
    if gone is not None:
        os.kill(pids[gone], signal.SIGKILL)
        os.waitpid(pids[gone], 0)
    print(json.dumps({"scene": scene, "pids": pids, "statuses": statuses, "seconds": seconds}), flush=True)


def main() -> None:
    """Play the scenes, or one part in one."""
    torch.set_num_threads(1)
    if "RANK" in os.environ:
        train(sys.argv[2], Path(sys.argv[1]))
        return
    folder, world, *scenes = sys.argv[1:]
    train("nothing", Path(folder) / "warm")  # what is imported late is imported here, and not in every fork
    import_module("torch._dynamo")  # by DDP
    for scene in scenes:
        play(scene, Path(folder) / scene, int(world))


if __name__ == "__main__":
    main()
