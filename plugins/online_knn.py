"""kNN accuracy of the encoder while it trains, on a bounded part of the data.

Shapes: N samples of a data set.
"""

import json
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

import kontrast as kt
from kontrast.evaluate import embed, knn
from kontrast.plugins.progress import stderr_console

__all__ = ["OnlineKNN"]


class OnlineKNN(kt.Observer):
    """Classify test samples by their neighbours at the end of epochs, to see whether training gets anywhere.

    ``kt.Run(..., observers=("progress", OnlineKNN(data.train, data.test, every=5)))``

    By name, ``--observers progress,online-knn``, it takes the run's own data, if they have labels: one half of what it
    draws votes, the other is judged. Training has seen both, without their labels; judge a trained encoder on a test
    part.

    The accuracy is `kontrast.evaluate.knn` on a part of each data set, drawn once: classes as even as they can be,
    samples without a label (-1) left out. So time and memory do not grow with the data, and the number is lower than
    that on all of it. Training is the same, bit for bit, with and without this observer: modes of modules and the
    generators of torch, numpy and Python are left as they were. The first process alone evaluates and the others wait.

    Each result is a line on standard error, a line ``{"epoch": 4, "knn": 93.5}`` in online_knn.jsonl in the run's
    folder (epochs counted from 0, as in metrics.jsonl), and an entry of `history`, (epoch, percent); a resumed run
    keeps those of the epochs it does not repeat.

    Args:
        train: labelled samples that vote; None, as is `test` then: of the run's own data.
        test: labelled samples that are judged.
        every: epochs between two evaluations, >= 1.
        size: at most so many samples of each, >= 1.
        k: neighbours that vote, >= 1, at most the number of training samples taken.
        seed: of the choice of samples.
        batch_size: samples per forward pass.
        tower: which of the method's encoders, where it has several.
        console: where the lines go; standard error by default, above the progress bar.

    Raises:
        InvalidValueError: if an argument breaks its rule.
        IncompatibleError: if a data set has no labels.
    """

    def __init__(
        self,
        train: kt.Data | None = None,
        test: kt.Data | None = None,
        every: int = 1,
        size: int = 4096,
        k: int = 20,
        *,
        seed: int = 0,
        batch_size: int = 512,
        tower: str = "",
        console: Console | None = None,
    ) -> None:
        for name, value in (("every", every), ("size", size), ("k", k), ("batch_size", batch_size)):
            if value < 1:
                raise kt.InvalidValueError(f"`{name}` must be >= 1, got {value!r}")
        if (train is None) != (test is None):
            raise kt.InvalidValueError("`train` and `test` must be given both or neither, got one of them")
        self.every, self.k, self.tower = every, k, tower
        self._size, self._seed = size, seed
        self._parts: tuple[_Part, _Part] | None = None
        if train is not None and test is not None:
            drawn = (_Part(data, _balanced(_labels(data), size, seed)) for data in (train, test))
            self._parts = self._checked(*drawn)
        self.history: list[tuple[int, float]] = []
        self._batch_size = batch_size
        self._console = stderr_console() if console is None else console
        self._progress: kt.Progress | None = None

    def run_started(self, progress: kt.Progress) -> None:
        """Draw what is judged, if that is of the run's own data, and take up the results of epochs before a resume."""
        self.history = []
        self._progress = progress if progress.main else None
        if not progress.main:
            return
        if self._parts is None:
            labels = _labels(progress.data)
            halves = _halves(labels, _balanced(labels, 2 * self._size, self._seed))
            self._parts = self._checked(*(_Part(progress.data, half) for half in halves))
        if progress.out is None:
            return
        file = _file(progress.out)
        for line in file.read_text(encoding="utf-8").splitlines() if file.exists() and progress.start else ():
            if not line.endswith("}"):
                break  # cut off in mid-word
            row = json.loads(line)
            if (row["epoch"] + 1) * progress.steps_per_epoch > progress.start:
                break
            self.history.append((row["epoch"], row["knn"]))
        aside = file.with_suffix(".part")
        aside.write_text("".join(_line(*one) for one in self.history), encoding="utf-8")
        aside.replace(file)

    def epoch_ended(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Evaluate, if it is this epoch's turn."""
        progress = self._progress
        if progress is None or self._parts is None or (epoch + 1) % self.every:
            return
        encoder = progress.method.encoders[self.tower] if self.tower else progress.method.encoder
        with _generators_kept():
            bank, queries = (embed(encoder, part, batch_size=self._batch_size) for part in self._parts)
            accuracy = knn((bank, queries), k=self.k)
        self.history.append((epoch, accuracy))
        if progress.out is not None:
            with _file(progress.out).open("a", encoding="utf-8") as file:
                file.write(_line(epoch, accuracy))
        self._console.print(
            f"epoch {epoch + 1}/{progress.epochs}  kNN {accuracy:.1f} %", highlight=False, soft_wrap=True
        )

    def _checked(self, train: "_Part", test: "_Part") -> "tuple[_Part, _Part]":
        if self.k > len(train):
            raise kt.InvalidValueError(
                f"`k` must be at most the number of training samples taken, {len(train)}, got {self.k!r}; "
                "take a smaller k or a larger size"
            )
        return train, test


class _Part:
    """Some samples of a data set."""

    def __init__(self, data: kt.Data, indices: Tensor) -> None:
        self._data = data
        self._indices = indices.sort().values

    def __len__(self) -> int:
        return len(self._indices)

    def batch(self, indices: Tensor) -> kt.Batch:
        return self._data.batch(self._indices[indices])


def _balanced(labels: Tensor, size: int, seed: int) -> Tensor:
    """Return the indices of at most `size` labelled samples, at random: a class lacks only what it does not have."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    order = order[labels[order] >= 0]
    if not len(order):
        raise kt.IncompatibleError("online kNN needs samples with a label, and a data set has none >= 0")
    order, turns = _turns(labels, order)
    # The first of every class, then the second of every class; who has the last turns is drawn.
    drawn = torch.randperm(len(order), generator=generator)
    chosen = drawn[turns[drawn].argsort(stable=True)][:size]
    return order[chosen]


def _halves(labels: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Return one half of each class, and the other, which may have one less."""
    order, turns = _turns(labels, chosen)
    halves = order[turns % 2 == 0], order[turns % 2 == 1]
    if not len(halves[1]):
        raise kt.IncompatibleError("online kNN needs two samples of a class, and the run's data have one of each")
    return halves


def _turns(labels: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """Return samples class by class, in their order within each, and which of its class each is: 0, 1, ..."""
    order = order[labels[order].argsort(stable=True)]
    _, counts = labels[order].unique_consecutive(return_counts=True)
    return order, torch.cat([torch.arange(int(count)) for count in counts])


def _labels(data: kt.Data) -> Tensor:
    """Return all labels: the data set's `labels`, or else what its batches carry, read once."""
    own = getattr(data, "labels", None)
    if isinstance(own, Tensor) and own.shape == (len(data),):
        return own.cpu()
    found = []
    with _generators_kept():
        for indices in torch.arange(len(data)).split(256):
            labels = data.batch(indices).labels
            if labels is None:
                raise kt.IncompatibleError(
                    "online kNN needs labels in training and test data, and one of them has none"
                )
            found.append(labels.cpu())
    return torch.cat(found)


@contextmanager
def _generators_kept() -> Iterator[None]:
    """Put the global generators of Python, numpy and torch, on the CPU and on GPUs in use, back as they were."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() and torch.cuda.is_initialized() else ()
    python, legacy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(list(devices)):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)


def _file(out: Path) -> Path:
    return out / "online_knn.jsonl"


def _line(epoch: int, accuracy: float) -> str:
    return json.dumps({"epoch": epoch, "knn": accuracy}) + "\n"
