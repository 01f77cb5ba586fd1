"""A process that dies, fails or hangs is named by the others, on every node; one that is slow is not."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fresh import python

DYING = Path(__file__).parent / "dying.py"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
HOST = socket.gethostname()

# scene -> the rank it is about, what the others say of it, and how those that wait in a collective say it
SCENES = {
    "killed": (1, "rank 1 ({host}, process {pid}) died"),
    "raises": (1, "rank 1 ({host}, process {pid}) stopped with ValueError: the tower fell over"),
    "stopped": (1, "rank 1 ({host}, process {pid}) died"),
    "keeper-killed": (0, "the store of the process group does not answer: rank 0 ({host}, process {pid}), or the"),
    "keeper-stopped": (0, "the store of the process group does not answer: rank 0 ({host}, process {pid}), or the"),
}


def _played(folder: Path, world: int, *scenes: str) -> dict[str, dict[str, Any]]:
    result = python(str(DYING), str(folder), str(world), *scenes, timeout=240)
    assert result.returncode == 0, result.stderr
    found = [json.loads(line) for line in result.stdout.splitlines()]
    print(*found, sep="\n")
    return {one["scene"]: one for one in found}


def _named(folder: Path, world: int, *scenes: str) -> None:
    for scene, found in _played(folder, world, *scenes).items():
        gone, sentence = SCENES[scene]
        sentence = sentence.format(host=HOST, pid=found["pids"][gone])
        last = folder / scene / "run" / "checkpoints" / "step-000000004.pt"
        for survivor in {*range(world)} - {gone}:
            said = (folder / scene / str(survivor)).read_text().splitlines()[-1]
            assert found["statuses"][str(survivor)] == 1
            if scene in ("stopped", "keeper-stopped"):  # nothing could be raised
                assert said.startswith(f"kontrast: {sentence}"), said
                assert f"rank {survivor} waits for it, and ends now" in said
            else:
                assert said.startswith(f"kontrast.heartbeat.LostRankError: {sentence}"), said
                assert "this process ends with it" in said
            assert said.endswith(f"the last good checkpoint is {last}")
            others = [pid for pid in found["pids"] if pid != found["pids"][gone]]
            assert not any(f"process {pid})" in said for pid in others), "one that lived was blamed"


def test_the_survivors_name_the_process_that_died_or_failed(tmp_path: Path) -> None:
    _named(tmp_path, 3, "killed", "raises")


def test_slow_and_late_processes_are_not_called_dead(tmp_path: Path) -> None:
    found = _played(tmp_path, 2, "slow")["slow"]
    assert found["statuses"] == {"0": 0, "1": 0}
    assert [(tmp_path / "slow" / str(rank)).read_text() for rank in (0, 1)] == ["", ""]
    assert (tmp_path / "slow" / "run" / "encoder.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_the_survivors_name_the_process_however_it_is_lost(tmp_path: Path, world: int) -> None:
    _named(tmp_path, world, *SCENES)


@pytest.mark.slow
def test_a_job_that_is_suspended_and_woken_goes_on(tmp_path: Path) -> None:
    assert _played(tmp_path, 3, "suspended")["suspended"]["statuses"] == {"0": 0, "1": 0, "2": 0}


@pytest.mark.slow
def test_an_error_that_all_processes_raise_stays_what_it_is(tmp_path: Path) -> None:
    _played(tmp_path, 2, "all-raise")
    for rank in (0, 1):
        said = (tmp_path / "all-raise" / str(rank)).read_text().splitlines()[-1]
        assert said == "RuntimeError: a shape is wrong everywhere"


@pytest.mark.slow  # on one node: above, and under torchrun in test_resume.py
def test_the_other_node_names_the_process_that_died(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def node(number: int) -> subprocess.Popen[str]:
        where = ["--nnodes", "2", "--node-rank", str(number), "--nproc-per-node", "1"]
        meet = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "test"]
        command = [sys.executable, "-P", "-m", "torch.distributed.run", *where, *meet]
        command += [str(DYING), str(tmp_path / "run"), "killed"]
        return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    nodes = [node(0), node(1)]
    said = [process.communicate(timeout=180)[1] for process in nodes]
    assert all(process.returncode for process in nodes)
    blamed = [
        f"LostRankError: rank 1 ({HOST}, process " in text and ") died; this process ends" in text for text in said
    ]
    summary = ["rank      : 1 (local_rank: 0)" in text and "Signal 9" in text for text in said]
    # Ranks may be given to the nodes in any order: one node had the dead process, the other names it.
    assert sorted(zip(blamed, summary, strict=True)) == [(False, True), (True, False)], said
