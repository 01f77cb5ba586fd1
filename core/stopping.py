"""Leaving in good order when somebody asks: SIGTERM (a scheduler) and SIGINT (Ctrl-C)."""

import signal
import sys
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn

import torch
import torch.distributed as dist

from .distributed import rank, world_size

__all__ = ["StopRequest"]


class StopRequest:
    """While it is entered, a signal is noted instead of obeyed; a second SIGINT is obeyed at once."""

    def __init__(self) -> None:
        self._signal = 0
        self._before: dict[int, Any] = {}

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

    def agreed(self, device: torch.device) -> int:
        """Return the signal that any process was sent, 0 if none was: all of them stop after the same step."""
        if world_size() == 1:
            return self._signal
        number = torch.tensor(self._signal, device=device)
        dist.all_reduce(number, dist.ReduceOp.MAX)
        return int(number)

    @staticmethod
    def leave(number: int, step: int, folder: Path | None) -> NoReturn:
        """End the process with the status a shell expects, and say how to go on.

        Raises:
            SystemExit: with 128 + the signal's number.
        """
        if rank() == 0:
            where = (
                f"saved in {folder}; resume it to go on" if folder is not None else "without a folder nothing is saved"
            )
            sys.stderr.write(f"kontrast: {signal.Signals(number).name} after step {step}; {where}\n")
        raise SystemExit(128 + number)
