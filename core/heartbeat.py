"""Signs of life of every process of a run, so that one that dies is named by the others, on every node.

When a process dies, the others see a broken connection (gloo) or wait in a collective for ever (NCCL); neither says who
it was. Each beats in the process group's store from a thread of its own: slow steps, long evaluations and the writing
of checkpoints do not delay it. Missed beats are counted by looks, not by the clock: a job that a scheduler suspends and
wakes again has missed none.
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch.distributed as dist

from .distributed import rank, world_size
from .errors import KontrastError
from .stopping import Stopped

__all__ = ["Heartbeat", "LostRankError"]

INTERVAL = 2.0  # seconds between two beats, and between two looks at the others'
BROKEN = 8.0  # seconds of missed beats that make a process dead where a collective has failed already
SILENT = 40.0  # seconds that make it dead where nothing else tells

_DONE, _LOST = "done", "lost another"


class LostRankError(KontrastError, RuntimeError):
    """Another process of the run has died or failed."""


class Heartbeat:
    """While it is entered, this process beats and watches the others; alone it does nothing.

    A collective's error is replaced by one that says who is gone. A process that waits in a collective cannot raise:
    its thread says the same on the standard error and ends it with status 1. A process that comes to its end waits for
    the others to come to theirs, so that none is left without the store.

    Args:
        last: says which checkpoint is the last.

    Raises:
        LostRankError: on leaving, from the collective's error.
    """

    def __init__(self, last: Callable[[], str]) -> None:
        self._last = last
        self._store: Any = None
        self._end: str | None = None  # why this process leaves
        self._leaving, self._over = threading.Event(), threading.Event()
        self._said: dict[int, dict[str, Any]] = {}  # what each other process said last
        self._missed: dict[int, int] = {}  # looks in a row at which it had said nothing new
        self._talks, self._silence = 0, 0  # exchanges with the store; looks in a row without a new one

    def __enter__(self) -> "Heartbeat":
        find = getattr(dist.distributed_c10d, "_get_default_store", None) if world_size() > 1 else None
        if find is not None:
            # A connection of its own: a call of the main thread that waits would hold up the beats.
            self._store = find().clone()
            run = self._store.add(f"kontrast/runs-of-{rank()}", 1)  # every process enters its runs in the same order
            self._keys = {r: f"kontrast/run-{run}/{r}" for r in range(world_size())}
            self._missed = {other: 0 for other in self._keys if other != rank()}
            self._about = {"host": socket.gethostname(), "pid": os.getpid()}
            self._say()  # whatever becomes of it from here, the others know its name
            # Two threads: an exchange with a store whose keeper hangs never returns.
            self._talker = threading.Thread(target=self._talk, name="kontrast-beat", daemon=True)
            self._talker.start()
            threading.Thread(target=self._watch, name="kontrast-watch", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._store is None:
            return
        self._leaving.set()
        found = self._who(BROKEN) if _of_a_collective(error) else ""
        agreed = error is None or isinstance(error, Stopped)  # all processes leave here
        self._end = _DONE if agreed else _LOST if found else " ".join(f"{type(error).__name__}: {error}".split())[:300]
        # Whoever found out first stays for the others to find out too: it may keep the store.
        give_up = time.monotonic() + (float("inf") if agreed else BROKEN if found else 0)
        while time.monotonic() < give_up and self._awaited(SILENT if agreed else BROKEN):
            time.sleep(0.01)
        self._over.set()
        self._talker.join(timeout=2 * INTERVAL)  # it says that this process has left
        if found:
            raise LostRankError(f"{found}; this process ends with it; {self._last()}") from error

    def _who(self, limit: float) -> str:
        """Wait until it shows who made a collective fail; empty: nobody is gone."""
        give_up = time.monotonic() + limit + 3 * INTERVAL
        while not (found := self._gone(limit, told=True)) and time.monotonic() < give_up:
            time.sleep(INTERVAL / 20)
        return found

    def _awaited(self, limit: float) -> bool:
        """Return whether another process lives and has not come to its end; the first, which may keep the store, is
        the last to leave.
        """
        if not self._talker.is_alive() or self._silence * INTERVAL >= limit:
            return False
        said = self._said
        # One that has said nothing yet has only just come: without it there is no coming to the end.
        alive = [other for other, missed in self._missed.items() if missed * INTERVAL < limit or other not in said]
        return any(not said.get(other, {}).get("left" if rank() == 0 else "end") for other in alive)

    def _talk(self) -> None:
        count_at = 0.0
        try:
            while not self._say():
                count = time.monotonic() >= count_at
                if count:
                    count_at = time.monotonic() + 0.9 * INTERVAL
                self._read(count=count)
                self._talks += 1
                if self._leaving.wait(INTERVAL):
                    time.sleep(min(0.02, INTERVAL))
        except RuntimeError:  # the store is gone; the watching thread knows by the silence
            return

    def _say(self) -> bool:
        """Say how this process is; return whether that was its last word."""
        left = self._over.is_set()
        said = {**self._about, "beat": self._talks, "end": self._end, "left": left}
        self._store.set(self._keys[rank()], json.dumps(said))
        return left

    def _read(self, *, count: bool) -> None:
        others = list(self._missed)
        # Reading a key that is not there would wait for it.
        there = others if len(self._said) == len(others) else [o for o in others if self._store.check([self._keys[o]])]
        values = self._store.multi_get([self._keys[other] for other in there]) if there else []
        said = dict(zip(there, map(json.loads, values), strict=True))
        for other in others:
            if said.get(other) != self._said.get(other):
                self._missed[other] = 0
            elif count:
                self._missed[other] += 1
        self._said = said

    def _watch(self) -> None:
        talks = 0
        while not self._over.wait(INTERVAL):
            self._silence = self._silence + 1 if self._talks == talks else 0
            talks = self._talks
            found = "" if self._leaving.is_set() else self._gone(SILENT)
            if found and rank() == 0:
                self._leaving.wait(2 * INTERVAL)  # it may keep the store, and the others must come to know too
            if found and not self._leaving.is_set():
                sys.stderr.write(f"kontrast: {found}; rank {rank()} waits for it, and ends now; {self._last()}\n")
                sys.stderr.flush()
                os._exit(1)

    def _gone(self, limit: float, *, told: bool = False) -> str:
        """Return a sentence on the processes that are gone; empty: none.

        Args:
            limit: seconds of missed beats.
            told: count those that left a reason at once; and those that never began.
        """
        if self._silence * INTERVAL >= limit:
            return (
                f"the store of the process group does not answer: {self._name(0)}, or the launcher that keeps it, died"
            )
        found = []
        for other, missed in sorted(self._missed.items()):
            end = self._said.get(other, {}).get("end")
            silent = missed * INTERVAL >= limit and (told or other in self._said)
            if end in (_DONE, _LOST) or not (silent or (told and end)):
                continue
            found.append(f"{self._name(other)} {f'stopped with {end}' if end else 'died'}")
        return "; ".join(found)

    def _name(self, other: int) -> str:
        said = self._said.get(other)
        return f"rank {other} ({said['host']}, process {said['pid']})" if said else f"rank {other}"


def _of_a_collective(error: BaseException | None) -> bool:
    """Return whether an error, or what caused it, is that of a connection between processes."""
    while error is not None:
        # gloo raises plain RuntimeErrors that begin with the place in its source.
        if isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error)):
            return not isinstance(error, KontrastError)
        error = error.__cause__ or error.__context__
    return False
