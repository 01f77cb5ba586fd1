"""The progress bar: a live line in a terminal, a plain line per epoch elsewhere."""

import time
from collections.abc import Mapping
from functools import cache

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

import kontrast as kt

__all__ = ["ProgressBar", "stderr_console"]


@cache
def stderr_console() -> Console:
    """Return the console on standard error that observers share: what one prints then stands above another's bar."""
    return Console(stderr=True)


class ProgressBar(kt.Observer):
    """Show epoch, steps, loss and the time left, on standard error of the first process.

    Args:
        console: where to; standard error by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = stderr_console() if console is None else console
        self._bar: Bar | None = None
        self._started = 0.0
        self._progress: kt.Progress | None = None

    def run_started(self, progress: kt.Progress) -> None:
        """Open the bar."""
        if not progress.main:
            return
        self._progress = progress
        self._started = time.monotonic()
        if self._console.is_terminal:
            columns = (
                TextColumn("epoch {task.fields[epoch]}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("loss {task.fields[loss]}"),
            )
            self._bar = Bar(*columns, console=self._console)
            per_epoch = progress.steps_per_epoch
            self._bar.add_task(
                "",
                total=progress.steps,
                completed=progress.start,  # a resumed run goes on where it was
                epoch=min(progress.start // per_epoch + 1, progress.epochs),
                loss="-",
            )
            self._bar.start()
        elif progress.start:
            self._console.print(
                f"resumed after step {progress.start} of {progress.steps}", highlight=False, soft_wrap=True
            )

    def step_ended(self, metrics: Mapping[str, float]) -> None:
        """Advance the bar."""
        if self._bar is not None:
            self._bar.update(
                self._bar.task_ids[0],
                completed=int(metrics["step"]) + 1,
                epoch=int(metrics["epoch"]) + 1,
                loss=f"{metrics['loss']:.4f}",
            )

    def epoch_ended(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Print the epoch's line where there is no bar: every one of 20, else 10 to 20 in all."""
        if self._progress is None or self._bar is not None:
            return
        epochs = self._progress.epochs
        if (epoch + 1) % -(-epochs // 20) == 0 or epoch + 1 == epochs:
            seconds = time.monotonic() - self._started
            self._console.print(
                f"epoch {epoch + 1}/{epochs}  loss {metrics['loss']:.4f}  {seconds:.1f} s",
                highlight=False,
                soft_wrap=True,
            )

    def run_ended(self, error: BaseException | None) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.stop()
