"""What a queue costs in traffic between processes: the new keys of a step, whatever its size, and nothing from DDP."""

from typing import Any

import pytest
import torch
import torch.distributed as dist
from gloo import GlooPool
from torch import nn

import kontrast as kt
from kontrast import distributed
from kontrast.gradient import averaged
from kontrast.plugins.objectives import InfoNCE

NEW, D = 8, 16


def _bytes_per_step(size: int) -> tuple[int, int]:
    """Return the bytes this process hands to collectives in a step: in pairs and loss, and in commit."""
    sent = 0

    def counting(collective: Any, position: int) -> Any:
        def counted(*arguments: Any, **options: Any) -> Any:
            nonlocal sent
            sent += arguments[position].numel() * arguments[position].element_size()
            return collective(*arguments, **options)

        return counted

    queue = kt.Queue(kt.Positives("forward"), size=size)
    encoder = nn.Linear(3, D)
    rows = torch.randn(size + NEW, D)
    queue.commit(kt.embedded(rows, rows, ids=torch.arange(len(rows))))
    assert queue.fill == size
    before = distributed._gather, distributed._reduce_scatter, dist.all_reduce
    distributed._gather, distributed._reduce_scatter = counting(before[0], 1), counting(before[1], 1)
    dist.all_reduce = counting(before[2], 0)
    try:
        step = encoder(torch.randn(NEW, 3))
        encoded = kt.embedded(step, step.detach())
        (pairs,) = queue.pairs(encoded)
        InfoNCE()(pairs).reduced().backward.backward()
        scored, sent = sent, 0
        queue.commit([view.detach() for view in encoded])
        return scored, sent
    finally:
        distributed._gather, distributed._reduce_scatter, dist.all_reduce = before


def _ddp_broadcasts(size: int) -> int:
    """Return how many of the queue's buffers a run's DDP keeps in step by broadcast."""
    method = kt.Method(nn.Linear(3, D), sampler=kt.Queue(kt.Positives("forward"), size=size), objective=InfoNCE())
    wrapped = averaged(method)
    return len(list(wrapped.modules_buffers)) if wrapped.will_sync_module_buffers() else 0


@pytest.mark.parametrize("world", [2, 3])
def test_a_queue_sends_a_steps_keys_whatever_its_size(gloo: GlooPool, world: int) -> None:
    small, large = (gloo.run(world, _bytes_per_step, size) for size in (16, 4096))
    assert small == large
    keys = NEW * D * 4 + NEW * 2 * 8  # embeddings in float32, ids and copies in int64
    for scored, committed in large:
        assert committed <= keys + world * 8  # and how many rows each process has
        assert scored < 100  # sums and counts


@pytest.mark.parametrize("world", [2])
def test_ddp_never_broadcasts_it(gloo: GlooPool, world: int) -> None:
    assert gloo.run(world, _ddp_broadcasts, 4096) == [0] * world
