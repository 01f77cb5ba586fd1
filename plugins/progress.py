"""The progress bar: a live line in a terminal, plain lines elsewhere."""

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

    Where that is no terminal: a line at the end of an epoch (of every one of 20, else of 10 to 20 in all), and one in
    every minute that has no other, so that the log of a long run shows that it lives.

    Args:
        console: where to; standard error by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = stderr_console() if console is None else console
        self._bar: Bar | None = None
        self._started = self._spoke = 0.0
        self._progress: kt.Progress | None = None

    def run_started(self, progress: kt.Progress) -> None:
        """Open the bar."""
        if not progress.main:
            return
        self._progress = progress
        self._started = self._spoke = time.monotonic()
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
            self._say(f"resumed after step {progress.start} of {progress.steps}")

    def step_ended(self, metrics: Mapping[str, float]) -> None:
        """Advance the bar; where there is none, speak when nothing was said for a minute."""
        if self._bar is not None:
            self._bar.update(
                self._bar.task_ids[0],
                completed=int(metrics["step"]) + 1,
                epoch=int(metrics["epoch"]) + 1,
                loss=f"{metrics['loss']:.4f}",
            )
        elif self._progress is not None and time.monotonic() - self._spoke >= _SILENT:
            done, total = int(metrics["step"]) + 1, self._progress.steps
            seconds = time.monotonic() - self._started
            left = seconds * (total - done) / max(1, done - self._progress.start)
            self._say(f"step {done}/{total}  loss {metrics['loss']:.4f}  {_span(seconds)}, {_span(left)} left")

    def epoch_ended(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Print the epoch's line where there is no bar."""
        if self._progress is None or self._bar is not None:
            return
        epochs = self._progress.epochs
        if (epoch + 1) % -(-epochs // 20) == 0 or epoch + 1 == epochs:
            seconds = time.monotonic() - self._started
            self._say(f"epoch {epoch + 1}/{epochs}  loss {metrics['loss']:.4f}  {_span(seconds)}")

    def run_ended(self, error: BaseException | None) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.stop()

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, soft_wrap=True)
        self._spoke = time.monotonic()


_SILENT = 60.0  # seconds


def _span(seconds: float) -> str:
    """Return a length of time, as exactly as one wants to read it."""
    if seconds < 600:
        return f"{seconds:.1f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
