"""One pool of gloo processes for the whole test session: a spawn per case would cost seconds each."""

import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

__all__ = ["GlooPool"]

TIMEOUT_SECONDS = 120


class GlooPool:
    """Runs a module-level function on each of W processes that form a process group, and returns their results."""

    def __init__(self, folder: Path, size: int = 3) -> None:
        self._context = mp.get_context("spawn")
        self._size = size
        self._folder = folder
        self._calls = 0
        self._workers: list[tuple[Any, Connection]] = []

    def run(self, world: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Return `function(*arguments)` of every rank, in rank order; a rank's exception is raised here."""
        if not self._workers:
            self._workers = [self._start() for _ in range(self._size)]
        self._calls += 1
        store = self._folder / f"store-{self._calls}"
        for rank, (_, pipe) in enumerate(self._workers[:world]):
            pipe.send((function, arguments, rank, world, str(store)))
        results: list[Any] = []
        errors: list[str] = []
        for rank, (_, pipe) in enumerate(self._workers[:world]):
            if not pipe.poll(TIMEOUT_SECONDS):
                errors.append(f"rank {rank} did not answer within {TIMEOUT_SECONDS} s")
                continue
            fine, result = pipe.recv()
            (results if fine else errors).append(result)
        if errors:
            self.close()  # ranks that wait for the failed one must not be met by the next call
            raise AssertionError("\n".join(errors))
        return results

    def close(self) -> None:
        """End the processes."""
        for process, pipe in self._workers:
            process.kill()
            process.join()
            pipe.close()
        self._workers = []

    def _start(self) -> tuple[Any, Connection]:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs,), daemon=True)
        process.start()
        return process, ours


def _serve(pipe: Connection) -> None:
    torch.set_num_threads(1)
    while True:
        function, arguments, rank, world, store = pipe.recv()
        try:
            dist.init_process_group(
                "gloo",
                init_method=f"file://{store}",
                rank=rank,
                world_size=world,
                timeout=timedelta(seconds=TIMEOUT_SECONDS // 2),
            )
            try:
                answer = (True, function(*arguments))
            finally:
                dist.destroy_process_group()
        except BaseException:  # sent to the test, which raises it
            answer = (False, f"rank {rank}: {traceback.format_exc()}")
        pipe.send(answer)
