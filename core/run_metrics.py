"""What the steps of a run measured: on the device until several steps are read at once, then summed over the epoch."""

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["RunMetrics"]


class RunMetrics:
    """Measures of steps, and their means over the epoch so far.

    A read waits for the device, so steps are kept and read together.
    """

    def __init__(self) -> None:
        self.totals: dict[str, list[float]] = {}  # of the epoch so far: metric -> [sum, count]
        self._waiting: list[tuple[Mapping[str, float], Mapping[str, Tensor]]] = []

    def add(self, about: Mapping[str, float], measured: Mapping[str, Tensor]) -> None:
        """Keep what is known of a step on the host, and what was measured on the device."""
        self._waiting.append((about, measured))

    def read(self) -> list[dict[str, float]]:
        """Return the steps since the last read, each with all of its numbers, which now count for the epoch."""
        flat = torch.stack([tensor.double() for _, own in self._waiting for tensor in own.values()]).tolist()
        values = iter(flat)
        rows = [{**about, **{name: next(values) for name in own}} for about, own in self._waiting]
        for (_, own), row in zip(self._waiting, rows, strict=True):
            for name in own:
                total = self.totals.setdefault(name, [0.0, 0.0])
                total[0] += row[name]
                total[1] += 1
        self._waiting = []
        return rows

    def means(self) -> dict[str, float]:
        """Return the mean of every metric over the epoch's steps that have it."""
        return {name: total / count for name, (total, count) in self.totals.items()}
