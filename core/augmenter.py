"""The interface of augmenters, and the ones that change nothing."""

from abc import ABC, abstractmethod
from dataclasses import replace

from .errors import InvalidValueError
from .part import Part
from .random import Draws
from .values import Batch, View

__all__ = ["Augmenter", "Identity", "ToTowers"]


class Augmenter(Part, ABC):
    """Batch -> one View per augmented copy: the whole batch at once, each sample with its own random parameters.

    Randomness comes from `draws`, a function of (seed, epoch, sample id, view), so that the copies are the same for any
    number of loader workers and ranks, and on any device. State, if there is any, is in the state dict.
    """

    @abstractmethod
    def forward(self, batch: Batch, draws: Draws) -> list[View]:
        """Return the views of a batch, on the device of its inputs."""


class Identity(Augmenter):
    """Unchanged copies: for methods whose augmentation is the dropout inside the encoder (SimCSE).

    Args:
        num_views: how many.
    """

    def __init__(self, num_views: int = 2) -> None:
        super().__init__()
        if num_views < 1:
            raise InvalidValueError(f"`num_views` must be >= 1, got {num_views!r}")
        self.num_views = num_views

    def forward(self, batch: Batch, draws: Draws) -> list[View]:
        """Return the batch `num_views` times."""
        return [View.of(batch, batch.inputs) for _ in range(self.num_views)]


class ToTowers(Augmenter):
    """Send the views of another augmenter to named towers: view i to the i-th name.

    Args:
        augmenter: makes as many views as there are names.
        towers: the names under which the method was given its encoders.
    """

    def __init__(self, augmenter: Augmenter, *towers: str) -> None:
        super().__init__()
        self.augmenter = augmenter
        self.towers = towers

    def forward(self, batch: Batch, draws: Draws) -> list[View]:
        """Return the inner augmenter's views, each with its tower."""
        views = self.augmenter(batch, draws)
        if len(views) != len(self.towers):
            raise InvalidValueError(
                f"ToTowers must name one tower per view, got {len(self.towers)} towers and {len(views)} views"
            )
        return [replace(view, tower=tower) for view, tower in zip(views, self.towers, strict=True)]
