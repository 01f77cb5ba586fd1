"""From data to views, step by step: which samples, in which order, loaded where.

Every number here is a function of (seed, epoch, sample id, view): the views of a step are the same for any number of
loader workers and of processes, and after a resume.
"""

import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from .augmenter import Augmenter
from .data import Data
from .errors import InvalidValueError
from .random import Draws
from .sampler import PairSampler
from .values import Batch, View

__all__ = ["MicroBatch", "Plan", "arrangement", "micro_batches"]


@dataclass(frozen=True)
class MicroBatch:
    """What is encoded at once: a whole step's batch, or a part of it.

    Args:
        step: counted from 0 over the whole run.
        epoch: counted from 0.
        share: how much of the step's batch it is, over all processes.
        last: whether it is the last part of its step.
        indices: samples of this process, int64.
    """

    step: int
    epoch: int
    share: float
    last: bool
    indices: Tensor


@dataclass(frozen=True)
class Plan:
    """The order of a whole run for one process.

    Args:
        length: number of samples.
        epochs: passes over them.
        batch_size: samples per step, of all processes.
        micro_batch_size: samples encoded at once, of this process; 0: the whole batch.
        seed: of the order.
        drop_last: leave an epoch's last batch out where it is not full.
        world: number of processes.
        rank: this one's.
        arrange: an epoch's random permutation -> the order in which batches are cut from it.
        at_most: steps after which it ends, in the middle of an epoch; 0: with the last epoch.
    """

    length: int
    epochs: int
    batch_size: int
    micro_batch_size: int
    seed: int
    drop_last: bool
    world: int
    rank: int
    arrange: Callable[[Tensor], Tensor] | None = None
    at_most: int = 0

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch."""
        return self.length // self.batch_size if self.drop_last else -(-self.length // self.batch_size)

    @property
    def steps(self) -> int:
        """Number of batches in the whole run."""
        whole = self.epochs * self.steps_per_epoch
        return min(self.at_most, whole) if self.at_most else whole

    def from_step(self, start: int) -> Iterator[MicroBatch]:
        """Yield what this process encodes from step `start` to the end.

        A batch is cut into contiguous parts in rank order, so that the ranks together see what one process would; the
        parts differ by one at most where `world` does not divide the batch.
        """
        per_epoch = self.steps_per_epoch
        for epoch in range(start // max(1, per_epoch), self.epochs):
            order = torch.randperm(self.length, generator=Draws(self.seed, epoch).generator())
            order = order if self.arrange is None else self.arrange(order)
            for position, batch in enumerate(order.split(self.batch_size)[:per_epoch]):
                step = epoch * per_epoch + position
                if start <= step < self.steps:
                    yield from self._parts(step, epoch, batch)

    def _parts(self, step: int, epoch: int, batch: Tensor) -> Iterator[MicroBatch]:
        ranks = batch.tensor_split(self.world)
        # The same number of parts on every rank, or collectives would not meet.
        count = -(-len(ranks[0]) // self.micro_batch_size) if self.micro_batch_size else 1
        parts = [own.tensor_split(count) for own in ranks]
        for k in range(count):
            share = sum(len(own[k]) for own in parts) / len(batch)
            yield MicroBatch(step, epoch, share, k == count - 1, parts[self.rank][k])


def arrangement(sampler: PairSampler, data: Data, batch_size: int) -> Callable[[Tensor], Tensor]:
    """Return how a sampler orders an epoch of a data set; labels and groups are the data set's attributes, [N].

    Raises:
        InvalidValueError: when it is called, if the sampler returns anything but the same samples in another order.
    """
    labels, groups = (getattr(data, name, None) for name in ("labels", "groups"))

    def arrange(order: Tensor) -> Tensor:
        arranged = sampler.arrange(order, batch_size, labels, groups)
        if arranged is not order and not torch.equal(arranged.sort().values, order.sort().values):
            raise InvalidValueError(
                f"`arrange` of {type(sampler).__name__} must return the samples it is given in another order, "
                f"got {len(arranged)} of {len(order)}, or some of them twice"
            )
        return arranged

    return arrange


def micro_batches(
    plan: Plan, data: Data, augmenter: Augmenter, *, start: int, workers: int, device: torch.device
) -> Generator[tuple[MicroBatch, list[View]], None, None]:
    """Yield each micro-batch with its views on `device`; close it, and the loader processes end.

    Args:
        plan: the order.
        data: where samples come from.
        augmenter: makes the views: in the loader workers where there are some and it has no state, else on the device.
        start: the step to begin with.
        workers: number of loader processes; 0: this one loads.
        device: where the views are wanted.
    """
    in_worker = workers > 0 and device.type == "cpu" and not augmenter.state_dict()
    loader: DataLoader[tuple[MicroBatch, Batch | list[View]]] = DataLoader(
        _Fetch(data, augmenter if in_worker else None, plan.seed),
        batch_size=None,
        sampler=_Order(plan, start),
        num_workers=workers,
        pin_memory=device.type == "cuda",
        worker_init_fn=_deaf,
        # Without one of its own it draws from the global generator when it starts, and a resume would shift dropout.
        generator=torch.Generator().manual_seed(plan.seed * 1_000_003 + start),
    )
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None
    ahead: tuple[MicroBatch, _Copied] | None = None
    # One ahead: the copy to a GPU runs while the step before it computes.
    for part, loaded in loader:
        following = part, _copied(loaded, device, stream)
        if ahead is not None:
            yield _views(*ahead, augmenter, plan.seed)
        ahead = following
    if ahead is not None:
        yield _views(*ahead, augmenter, plan.seed)


def _deaf(worker: int) -> None:
    """Have a loader process pass over signals: a scheduler and torchrun send them to the whole job, and the run, which
    answers them, still needs its batches to come to the end of a step and save.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


_Copied = tuple[Batch | list[View], torch.cuda.Event | None]


def _copied(loaded: Batch | list[View], device: torch.device, stream: torch.cuda.Stream | None) -> _Copied:
    """Begin to copy to the device, on a stream of its own where there is one; return the event of the copies' end."""
    if stream is not None:
        # The memory of an earlier batch may be taken again for this one: not before the steps that read it are done.
        # `record_stream` would say so too, but not to tensors inside a third party's inputs.
        stream.wait_stream(torch.cuda.current_stream(device))
    with nullcontext() if stream is None else torch.cuda.stream(stream):
        moved = loaded.to(device) if isinstance(loaded, Batch) else [view.to(device) for view in loaded]
    if stream is None:
        return moved, None
    copied = torch.cuda.Event()
    copied.record(stream)
    return moved, copied


def _views(part: MicroBatch, copied: _Copied, augmenter: Augmenter, seed: int) -> tuple[MicroBatch, list[View]]:
    loaded, event = copied
    if event is not None:
        torch.cuda.current_stream().wait_event(event)
    return part, augmenter(loaded, Draws(seed, part.epoch, part.step)) if isinstance(loaded, Batch) else loaded


class _Order(Sampler[MicroBatch]):
    def __init__(self, plan: Plan, start: int) -> None:
        self.plan, self.start = plan, start

    def __iter__(self) -> Iterator[MicroBatch]:
        return self.plan.from_step(self.start)


class _Fetch(Dataset[tuple[MicroBatch, Batch | list[View]]]):
    def __init__(self, data: Data, augmenter: Augmenter | None, seed: int) -> None:
        self.data, self.augmenter, self.seed = data, augmenter, seed

    def __getitem__(self, part: MicroBatch) -> tuple[MicroBatch, Batch | list[View]]:
        batch = self.data.batch(part.indices)
        return part, batch if self.augmenter is None else self.augmenter(batch, Draws(self.seed, part.epoch, part.step))
