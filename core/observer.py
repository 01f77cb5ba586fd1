"""What watches a run: called at its turns, unable to break it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import KontrastWarning

if TYPE_CHECKING:
    from .data import Data
    from .method import Method

__all__ = ["Observer", "ObserverWarning", "Progress"]


class ObserverWarning(KontrastWarning):
    """An observer raised and is not called again; the run goes on."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Args:
        epochs: how many there are.
        steps_per_epoch: how many batches each has.
        world: number of processes.
        main: whether this is the process that speaks and writes.
        out: the run's folder.
        start: the step it begins with; not 0 after a resume.
        method: what is trained, to be looked at and not changed.
        steps: how many batches there are in all.
        data: what it is trained on.
    """

    epochs: int
    steps_per_epoch: int
    world: int
    main: bool
    out: Path | None
    start: int
    method: "Method"
    steps: int
    data: "Data"


class Observer:
    """Watches a run by overriding what it wants to hear of. It runs on every rank; speak where `progress.main`."""

    def run_started(self, progress: Progress) -> None:
        """Called before the first step."""

    def step_ended(self, metrics: Mapping[str, float]) -> None:
        """Called for every step, in order, some steps late (metrics leave the device in groups)."""

    def epoch_ended(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Called after the last step of an epoch with the means of its metrics."""

    def checkpoint_saved(self, step: int, path: Path) -> None:
        """Called on the first process, which writes them, when the checkpoint after `step` steps is whole on disk."""

    def run_ended(self, error: BaseException | None) -> None:
        """Called last, with what ended the run early if something did."""
