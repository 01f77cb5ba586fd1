"""Leaving in good order when somebody asks: SIGTERM (a scheduler) and SIGINT (Ctrl-C)."""

import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn

import torch
import torch.distributed as dist

from .distributed import rank, world_size

__all__ = ["StopRequest", "Stopped"]


class Stopped(SystemExit):
    """Leaving because of a signal, on every process after the same step."""


class StopRequest:
    """While it is entered, a signal is noted instead of obeyed; a second SIGINT is obeyed at once."""

    def __init__(self) -> None:
        self._signal = 0
        self._before: dict[int, Any] = {}
        self._ask_at = 0
        self._asked, self._asked_at = time.monotonic(), 0

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._signal = number

    def agreed(self, done: int, *, at_most: int, device: torch.device) -> int:
        """Return the signal that any process was sent, 0 if none was: all of them stop after the same step.

        Several processes ask each other about once a second: a scheduler gives little time before it kills.

        Args:
            done: number of steps done.
            at_most: steps between two questions, however fast they are.
            device: for the question.
        """
        if world_size() == 1:
            return self._signal
        if done < self._ask_at:
            return 0
        now = time.monotonic()
        seconds = (now - self._asked) / max(1, done - self._asked_at)
        answer = torch.tensor([float(self._signal), seconds], dtype=torch.float64, device=device)
        dist.all_reduce(answer, dist.ReduceOp.MAX)
        number, slowest = answer.tolist()
        # The slowest rank's pace is known to all now, so that all ask again after the same step.
        self._ask_at = done + max(1, min(at_most, int(1 / max(slowest, 1e-9))))
        self._asked, self._asked_at = now, done
        return int(number)

    @staticmethod
    def leave(number: int, step: int, folder: Path | None) -> NoReturn:
        """End the process with the status a shell expects, and say how to go on.

        Raises:
            Stopped: with 128 + the signal's number.
        """
        if rank() == 0:
            where = f"saved in {folder}; resume it to go on" if folder is not None else "nothing could be saved"
            sys.stderr.write(f"kontrast: {signal.Signals(number).name} after step {step}; {where}\n")
        raise Stopped(128 + number)
