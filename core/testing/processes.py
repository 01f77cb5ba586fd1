"""A pool of processes that form a gloo group: what is claimed of several GPUs is checked on the CPU.

The processes are started when first needed and kept for further calls, since a start costs seconds; they end with
this process.
"""

import atexit
import os
import pickle
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import cache
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from kontrast import KontrastError

from .checks import NotCheckedError

__all__ = ["ProcessError", "Processes", "processes"]

TIMEOUT_SECONDS = 120
GRACE_SECONDS = 2  # for the other ranks, once it is known why one has failed
PATIENCE_SECONDS = 20  # for the rank that knows why, once another has seen it leave


class ProcessError(KontrastError, AssertionError):
    """A function failed on one of several processes; the notes hold the traceback of each."""


class Processes:
    """Runs a function of a module on each of W processes that form a group, and returns their results.

    Args:
        size: how many processes are started at once; a call may want fewer, or more.
    """

    def __init__(self, size: int = 3) -> None:
        self._context: Any = mp.get_context("spawn")
        if sys.platform == "linux":  # elsewhere a process that has loaded torch may not be forked
            self._context = mp.get_context("forkserver")
            self._context.set_forkserver_preload([__name__])  # torch, once for all: its import takes seconds
        self._size = size
        self._folder: Path | None = None
        self._calls = 0
        self._workers: list[tuple[Any, Connection]] = []

    def run(self, world: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Return `function(*arguments)` of every rank, in rank order.

        Args:
            world: how many processes.
            function: found by its import name, like the classes of all arguments: from a module, not a notebook.
            arguments: what can be pickled.

        Raises:
            NotCheckedError: if this torch has no gloo.
            ProcessError: if a rank raised, died, or did not answer.
        """
        if not (dist.is_available() and dist.is_gloo_available()):
            raise NotCheckedError("this build of torch has no gloo, by which processes talk on the CPU")
        try:
            job = pickle.dumps((function, arguments))
        except Exception as error:
            raise ProcessError(
                f"what is sent to another process must be pickled, and this cannot: {error}; "
                "define functions and classes at the top of a module"
            ) from error
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="kontrast-"))
        while len(self._workers) < max(world, self._size):
            self._workers.append(self._start())
        self._calls += 1
        store = str(self._folder / f"store-{self._calls}")
        workers = self._workers[:world]
        for rank, (_, pipe) in enumerate(workers):
            with suppress(OSError):  # one that died is met below
                pipe.send_bytes(pickle.dumps((sys.path, rank, world, store, job)))
        return self._answers(world, {pipe: rank for rank, (_, pipe) in enumerate(workers)})

    def close(self) -> None:
        """End the processes; a later call starts others."""
        for process, pipe in self._workers:
            process.kill()
            process.join()
            pipe.close()
        self._workers = []
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _start(self) -> tuple[Any, Connection]:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs,), daemon=True)
        process.start()
        theirs.close()  # so that the end of the process is the end of the pipe
        return process, ours

    def _answers(self, world: int, waiting: dict[Connection, int]) -> list[Any]:
        results: dict[int, Any] = {}
        errors: dict[int, tuple[str, str]] = {}
        broken = False
        end = time.monotonic() + TIMEOUT_SECONDS
        while waiting:
            ready = wait(list(waiting), timeout=max(0.0, end - time.monotonic()))
            if not ready:
                broken = True  # ranks that wait for the failed one must not be met by the next call
                break
            for pipe in ready:
                assert isinstance(pipe, Connection)
                rank = waiting.pop(pipe)
                try:
                    fine, answer = pickle.loads(pipe.recv_bytes())
                except (EOFError, OSError):
                    fine, answer = False, (_DIED, "")
                    broken = True
                (results if fine else errors)[rank] = answer
                if not fine:
                    known = not any(sign in answer[0] for sign in _CONSEQUENCES)
                    end = min(end, time.monotonic() + (GRACE_SECONDS if known else PATIENCE_SECONDS))
        if broken:
            self.close()
        if not errors and waiting:
            errors = {rank: (f"no answer within {TIMEOUT_SECONDS} s", "") for rank in waiting.values()}
        if errors:
            # A rank whose neighbour went away says so; the neighbour says why.
            first = min(errors, key=lambda rank: (any(sign in errors[rank][0] for sign in _CONSEQUENCES), rank))
            failure = ProcessError(f"on rank {first} of {world}: {errors[first][0]}")
            for rank, (_, trace) in sorted(errors.items()):
                failure.add_note(f"rank {rank}: {trace}")
            raise failure
        return [results[rank] for rank in sorted(results)]


@cache
def processes() -> Processes:
    """Return the pool that the checks of this process share; it ends with the process."""
    pool = Processes()
    atexit.register(pool.close)
    return pool


_CONSEQUENCES = ("Connection closed", "Connection reset", "Timed out waiting", "no answer within")
_DIED = "the process ended; a script that checks something must do it under `if __name__ == '__main__':`"


def _serve(pipe: Connection) -> None:
    os.dup2(2, 1)  # standard output is the caller's: what a plugin prints here goes where errors do
    torch.set_num_threads(1)
    while True:
        try:
            path, rank, world, store, job = pickle.loads(pipe.recv_bytes())
        except (EOFError, OSError, KeyboardInterrupt):  # whoever asked is gone
            return
        sys.path += [entry for entry in path if entry not in sys.path]
        try:
            function, arguments = pickle.loads(job)
            dist.init_process_group(
                "gloo",
                init_method=f"file://{store}",
                rank=rank,
                world_size=world,
                timeout=timedelta(seconds=TIMEOUT_SECONDS // 2),
            )
            try:
                dist.barrier()  # a rank that is done at once must not leave while others still connect
                answer = pickle.dumps((True, function(*arguments)))
            finally:
                dist.destroy_process_group()
        except BaseException as error:  # sent to the caller, which raises it
            answer = pickle.dumps((False, (f"{type(error).__name__}: {error}", traceback.format_exc())))
        pipe.send_bytes(answer)
