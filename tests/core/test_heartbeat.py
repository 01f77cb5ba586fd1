"""A process that dies, fails or hangs is named by the others, on every node."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = """
import os, signal, sys, time
import torch
import kontrast as kt
from kontrast import heartbeat
from kontrast.plugins.objectives import NTXent
heartbeat.INTERVAL, heartbeat.BROKEN, heartbeat.SILENT = 0.2, 2.0, 4.0
how, out = sys.argv[1:]

class Encoder(torch.nn.Module):
    representation_size = 4
    def __init__(self):
        super().__init__()
        self.layer, self.calls = torch.nn.Linear(3, 4), 0
    def forward(self, x):
        self.calls += 1
        if kt.rank() == 1 and self.calls == 13:
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "raises":
                raise ValueError("the tower fell over")
            if how == "stopped":
                os.kill(os.getpid(), signal.SIGSTOP)
        if how == "slow":
            time.sleep(0.3)
        return self.layer(x)

data = kt.ArrayData(torch.rand(32, 3, generator=torch.Generator().manual_seed(0)))
method = kt.Method(Encoder(), sampler=kt.InBatch(), objective=NTXent())
epochs = 5 if how == "slow" else 20
kt.Run(method, data, augmenter=kt.Identity(), epochs=epochs, batch_size=16, out=out, observers=()).fit()
print("done", kt.rank())
"""


def start(tmp_path: Path, how: str, number: int, port: int, *, agents: bool = False) -> subprocess.Popen[str]:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT, encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if agents:
        where = ["--nnodes", "2", "--node-rank", str(number), "--nproc-per-node", "1"]
        meet = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "test"]
        command = [sys.executable, "-P", "-m", "torch.distributed.run", *where, *meet]
    else:
        command = [sys.executable, "-P"]
        environment |= {"RANK": str(number), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command += [str(script), how, str(tmp_path / "run")]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("killed", "LostRankError: rank 1 ({host}, process {pid}) died; this process ends with it; the last good"),
        ("raises", "rank 1 ({host}, process {pid}) stopped with ValueError: the tower fell over; this process ends"),
        ("stopped", "kontrast: rank 1 ({host}, process {pid}) died; rank 0 waits for it and ends now"),
    ],
)
def test_the_survivor_names_the_process_that_is_gone(tmp_path: Path, how: str, sentence: str) -> None:
    port = free_port()
    processes = [start(tmp_path, how, number, port) for number in (0, 1)]
    try:
        _, error = processes[0].communicate(timeout=60)
    finally:
        processes[1].send_signal(signal.SIGKILL)
        processes[1].communicate()
    assert processes[0].returncode == 1
    assert sentence.format(host=socket.gethostname(), pid=processes[1].pid) in error
    assert any((tmp_path / "run" / "checkpoints").iterdir())


def test_slow_steps_are_no_death(tmp_path: Path) -> None:
    port = free_port()
    processes = [start(tmp_path, "slow", number, port) for number in (0, 1)]
    outputs = [process.communicate(timeout=90) for process in processes]
    assert [out for out, _ in outputs] == ["done 0\n", "done 1\n"], outputs


def test_the_other_node_names_it_too(tmp_path: Path) -> None:
    port = free_port()
    nodes = [start(tmp_path, "killed", number, port, agents=True) for number in (0, 1)]
    began = time.monotonic()
    outputs = [node.communicate(timeout=120) for node in nodes]
    assert all(node.returncode for node in nodes)
    assert time.monotonic() - began < 100
    assert sum("rank 1 (" in error and "died; this process ends with it" in error for _, error in outputs) == 1
