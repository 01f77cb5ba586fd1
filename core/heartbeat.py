"""Signs of life of every process of a run, so that one that dies is named by the others, on every node.

When a process dies, the others see a broken connection (gloo) or wait in a collective (NCCL); neither says who it was.
Each beats in the process group's store from a thread of its own: slow steps, long evaluations and the writing of
checkpoints do not delay it.
"""

import os
import socket
import sys
import threading
import time
from types import TracebackType
from typing import Any

import torch.distributed as dist

from .distributed import rank, world_size
from .errors import KontrastError

__all__ = ["Heartbeat", "LostRankError"]

INTERVAL = 2.0  # seconds between two beats
BROKEN = 8.0  # seconds without a beat after which a process is dead, where a collective has failed already
SILENT = 45.0  # seconds without a beat after which it is dead in any case

_runs = 0


class LostRankError(KontrastError, RuntimeError):
    """Another process of the run has died or failed."""


class Heartbeat:
    """While it is entered, this process beats and listens; with one process it does nothing.

    A process that waits in a collective for a dead one cannot raise: after `SILENT` seconds its thread writes the
    sentence to the standard error and ends it with status 1.
    """

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._heard: dict[int, tuple[bytes, float]] = {}
        self._thread: threading.Thread | None = None
        self._explaining = False

    def __enter__(self) -> "Heartbeat":
        global _runs
        _runs += 1  # every process enters its runs in the same order
        self._prefix = f"kontrast-run-{_runs}"
        find = getattr(dist.distributed_c10d, "_get_default_store", None) if world_size() > 1 else None
        if find is not None:
            # A client of its own: one that waits in the main thread would hold up the beats.
            self._store: Any = find().clone()
            self._store.set(self._key("about", rank()), f"{socket.gethostname()}, process {os.getpid()}")
            started = time.monotonic()
            self._heard = {other: (b"", started) for other in range(world_size()) if other != rank()}
            self._thread = threading.Thread(target=self._beat, name="kontrast-heartbeat", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is None:
            return
        self._stop.set()
        self._thread.join()
        lost = isinstance(error, LostRankError)
        end = "done" if error is None or isinstance(error, SystemExit) or lost else f"{type(error).__name__}: {error}"
        try:
            self._store.set(self._key("end", rank()), end)
        except RuntimeError:  # the store is gone with the process that kept it; the error in flight says so
            if error is None:
                raise

    def explained(self, error: Exception, last: str) -> Exception:
        """Return what to raise in place of an error: it names the process whose end made a collective fail, if any did.

        Args:
            error: what was raised here.
            last: says which checkpoint is the last.
        """
        if self._thread is None or isinstance(error, KontrastError) or not isinstance(error, RuntimeError):
            return error
        self._explaining = True
        give_up = time.monotonic() + BROKEN + 2 * INTERVAL
        while time.monotonic() < give_up:
            found = self._dead(BROKEN)
            if found:
                return LostRankError(f"{found}; this process ends with it; {last}")
            self._stop.wait(INTERVAL / 4)
        return error

    def _beat(self) -> None:
        count, found_at = 0, 0.0
        while not self._stop.is_set():
            count += 1
            try:
                with self._lock:
                    self._store.set(self._key("beat", rank()), str(count))
            except RuntimeError:
                return  # the store is gone: the main thread's next collective fails
            found = self._dead(SILENT)
            found_at = (found_at or time.monotonic()) if found else 0.0
            # A main thread whose collective failed says it better; one that waits in a collective never will.
            if found and not self._explaining and time.monotonic() - found_at > BROKEN:
                sys.stderr.write(f"kontrast: {found}; rank {rank()} waits for it and ends now\n")
                sys.stderr.flush()
                os._exit(1)
            self._stop.wait(INTERVAL)

    def _dead(self, limit: float) -> str:
        """Return a sentence on the processes that failed, or have not beaten for `limit` seconds; empty: none."""
        try:
            with self._lock:
                return "; ".join(filter(None, (self._state(other, limit) for other in sorted(self._heard))))
        except RuntimeError:
            return "the process that keeps the store of the process group (rank 0, or the agent on its node) died"

    def _state(self, other: int, limit: float) -> str:
        now = time.monotonic()
        if self._store.check([self._key("end", other)]):
            end = self._store.get(self._key("end", other)).decode()
            if end == "done":
                return ""
            return f"rank {other} ({self._about(other)}) stopped with {end}"
        key = self._key("beat", other)
        beat: bytes = self._store.get(key) if self._store.check([key]) else b""
        before, since = self._heard[other]
        if beat != before:
            self._heard[other] = beat, now
            return ""
        return f"rank {other} ({self._about(other)}) died" if now - since > limit else ""

    def _about(self, other: int) -> str:
        key = self._key("about", other)
        return self._store.get(key).decode() if self._store.check([key]) else "which never started"

    def _key(self, name: str, of: int) -> str:
        return f"{self._prefix}/{name}/{of}"
