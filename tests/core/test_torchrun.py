"""Two agents of torchrun on one machine, each with its rendezvous on loopback, stand for two nodes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from kontrast.cli import main


def test_two_nodes_train_as_one_process_does(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = (sys.executable, "-P", "-m", "torch.distributed.run")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    options = ["train", "simclr", "--epochs", "1", "--batch_size", "400", "--encoder.width", "4"]

    def node(rank: int) -> subprocess.Popen[str]:
        where = ["--nnodes", "2", "--node-rank", str(rank), "--nproc-per-node", "1"]
        meet = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "test"]
        command = [*torchrun, *where, *meet, "-m", "kontrast", *options, "--out", str(tmp_path / "two")]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    nodes = [node(0), node(1)]
    outputs = [process.communicate(timeout=180) for process in nodes]
    assert [process.returncode for process in nodes] == [0, 0], outputs
    assert "".join(out for out, _ in outputs).count("encoder in") == 1
    assert main([*options, "--out", str(tmp_path / "one")]) == 0
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    assert len(losses[0]) == 3
    assert all(abs(one - two) < 1e-4 * one for one, two in zip(*losses, strict=True)), losses
    assert json.loads((tmp_path / "two" / "environment.jsonl").read_text())["processes"] == 2
