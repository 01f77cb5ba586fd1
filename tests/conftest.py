"""Settings of the whole test session, and what tests share."""

import multiprocessing
import os
from collections.abc import Iterator

import pytest
import torch
from gloo import GlooPool

from kontrast.testing import processes

# Two test processes share two cores: one thread each, and idle OpenMP threads that sleep.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
torch.set_num_threads(1)
# Triton's kernels are interpreted where there is no GPU to run them: to be said before Triton is imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# The kit's own pool, which its checks find without asking for it. Its processes, and those of fresh.py, are forked from
# a server that imports beforehand what takes seconds: torch, and what torch's DDP imports late.
POOL = processes()
multiprocessing.set_forkserver_preload(["kontrast.testing.processes", "torch._dynamo"])


@pytest.fixture(scope="session")
def gloo() -> Iterator[GlooPool]:
    yield POOL
    POOL.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # All tests of the pool go to one test process, so that there is one pool.
    for item in items:
        if "gloo" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("gloo"))
