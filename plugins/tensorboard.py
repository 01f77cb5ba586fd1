"""TensorBoard: a run's metrics as event files."""

from collections.abc import Mapping
from typing import Any

import kontrast as kt

__all__ = ["TensorBoard"]


class TensorBoard(kt.Observer):
    """Write every step's metrics into `tensorboard` in the run's folder; look with ``tensorboard --logdir runs``.

    The numbers and names are those of metrics.jsonl, as float32. The first process alone writes. After a resume the
    steps that the interrupted run wrote beyond its checkpoint are taken back, so that none appears twice. What was
    trained without this observer is not there.

    Raises:
        MissingExtraError: if the package `tensorboard` is not installed.
        InvalidValueError: when a run without a folder starts; the run reports it and goes on without this observer.
    """

    def __init__(self) -> None:
        self._module = kt.optional_import(
            "torch.utils.tensorboard", extra="kontrast[tensorboard]", purpose="the observer `tensorboard`"
        )
        self._writer: Any = None

    def run_started(self, progress: kt.Progress) -> None:
        """Open an event file."""
        if not progress.main:
            return
        if progress.out is None:
            raise kt.InvalidValueError(
                "`out` must be a folder for the observer `tensorboard`, got None; "
                "give the run one (out='runs/mine', --out runs/mine), or leave the observer out"
            )
        # From step 0 too: a run that was killed before its first checkpoint leaves events behind.
        self._writer = self._module.SummaryWriter(str(progress.out / "tensorboard"), purge_step=progress.start)

    def step_ended(self, metrics: Mapping[str, float]) -> None:
        """Write one step."""
        if self._writer is None:
            return
        step = int(metrics["step"])
        for name, value in metrics.items():
            if name != "step":
                self._writer.add_scalar(name, value, step)
        # A run calls this before it saves: what a checkpoint counts on must not wait in memory.
        self._writer.flush()

    def run_ended(self, error: BaseException | None) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
