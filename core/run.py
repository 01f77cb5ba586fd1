"""A run: a method, data, an augmenter and an optimizer, driven to the last epoch on one process or many."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .augmenter import Augmenter
from .data import Data, epoch_batches
from .distributed import join_processes, rank, world_size
from .encoder import Encoder
from .errors import IncompatibleError, InvalidValueError
from .loss import Reduced
from .method import Method
from .norm import sync_batch_norms
from .observer import Observer, Observers, Progress
from .optim import AdamW, OptimizerSettings, learning_rate_factor
from .random import Draws
from .records import ObserverRecord
from .registry import get_record
from .run_folder import RunFolder
from .values import Encoded, View

__all__ = ["NonFiniteLossError", "Run"]


class NonFiniteLossError(IncompatibleError, ArithmeticError):
    """The loss became infinite or not a number."""


class Run:
    """Train a method. The same script under `torchrun` uses every process it starts.

    Args:
        method: what is trained.
        data: what it is trained on.
        augmenter: makes the views.
        epochs: passes over the data, >= 1.
        batch_size: samples per step, of all processes together: a run does not change with their number.
        optimizer: AdamW by default.
        warmup_epochs: of linear warm-up; None: a tenth of the epochs.
        seed: of the order of samples, of augmentation and of dropout; weights are drawn before, where the method is
            made.
        out: the run's folder, which must not hold a run yet; None: nothing is written.
        device: `"auto"`, or a torch device.
        drop_last: leave an epoch's last batch out where it is not full.
        sync_batchnorm: take the statistics of batch norms over all processes.
        observers: registered names, or objects.
        log_every: steps between two reads of the metrics from the device.
        config: what was asked for, to be written to the folder as it is.

    Raises:
        InvalidValueError: if an option breaks its rule, or the batch is smaller than the method needs.
        RunFolderError: if `out` holds a run.
    """

    def __init__(
        self,
        method: Method,
        data: Data,
        *,
        augmenter: Augmenter,
        epochs: int = 100,
        batch_size: int = 256,
        optimizer: OptimizerSettings | None = None,
        warmup_epochs: float | None = None,
        seed: int = 0,
        out: str | Path | None = None,
        device: str = "auto",
        drop_last: bool = True,
        sync_batchnorm: bool = True,
        observers: Sequence[str | Observer] = ("progress",),
        log_every: int = 10,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        warmup = epochs / 10 if warmup_epochs is None else warmup_epochs
        for name, value, least in (
            ("epochs", epochs, 1),
            ("batch_size", batch_size, 1),
            ("log_every", log_every, 1),
        ):
            if value < least:
                raise InvalidValueError(f"`{name}` must be >= {least}, got {value!r}")
        if not 0 <= warmup < epochs:
            raise InvalidValueError(f"`warmup_epochs` must be >= 0 and less than epochs ({epochs}), got {warmup!r}")
        self.device = join_processes(device)
        self.method = method.to(self.device)
        self.data = data
        self.augmenter = augmenter.to(self.device)
        self.epochs, self.batch_size, self.seed, self.drop_last = epochs, batch_size, seed, drop_last
        self.log_every = log_every
        self._check_batch()
        self.steps_per_epoch = len(data) // batch_size if drop_last else -(-len(data) // batch_size)
        self.warmup_steps = round(warmup * self.steps_per_epoch)
        if sync_batchnorm and world_size() > 1:
            sync_batch_norms(self.method)
        settings = AdamW() if optimizer is None else optimizer
        if not isinstance(settings, OptimizerSettings):
            raise InvalidValueError(
                f"`optimizer` must be settings such as kontrast.AdamW(1e-3), got {settings!r}; the run builds it"
            )
        self.optimizer = settings.build(self.method)
        self.base_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.folder = RunFolder.create(out, dict(config or {}) or self._described(settings, warmup))
        made = [get_record(ObserverRecord, one).load()() if isinstance(one, str) else one for one in observers]
        self._observers = Observers(made)

    @property
    def encoder(self) -> Encoder:
        """The encoder alone, for use after training; with several towers ask `method.encoder(name)`."""
        return self.method.encoder()

    def fit(self) -> dict[str, float]:
        """Train to the last epoch, save the encoders, and return the means of the last epoch's metrics."""
        torch.manual_seed(self.seed * 1_000_003 + rank())  # dropout alone; each rank has its own
        self.method.train()
        step: nn.Module = _Step(self.method)
        if world_size() > 1:
            # Buffers are not broadcast: batch norms agree by their own means, and a queue is large.
            step = DistributedDataParallel(step, broadcast_buffers=False)
        main = rank() == 0
        progress = Progress(self.epochs, self.steps_per_epoch, world_size(), main, self.folder.path)
        error: BaseException | None = None
        means: dict[str, float] = {}
        self._observers.call("run_started", progress)
        try:
            for epoch in range(self.epochs):
                means = self._epoch(step, epoch)
                self._observers.call("epoch_ended", epoch, means)
            self.method.eval()
            self.folder.save_encoders(self.method)
        except BaseException as raised:
            error = raised
            raise
        finally:
            self.folder.close()
            self._observers.call("run_ended", error)
        return means

    def _epoch(self, step: nn.Module, epoch: int) -> dict[str, float]:
        draws = Draws(self.seed, epoch)
        number = epoch * self.steps_per_epoch
        waiting: list[tuple[dict[str, float], dict[str, Tensor]]] = []
        seen: list[dict[str, float]] = []
        batches = epoch_batches(
            len(self.data),
            self.batch_size,
            seed=self.seed,
            epoch=epoch,
            drop_last=self.drop_last,
            world=world_size(),
            rank=rank(),
        )
        for indices in batches:
            batch = self.data.batch(indices).to(self.device)
            reduced, learning_rate = self._step(step, self.augmenter(batch, draws), number)
            about = {"step": number, "epoch": epoch, "learning_rate": learning_rate}
            waiting.append((about, {"loss": reduced.value, **reduced.terms}))
            number += 1
            if len(waiting) == self.log_every or number % self.steps_per_epoch == 0:
                seen += self._flush(waiting)
                waiting = []
        numbers = [name for name in seen[-1] if name not in ("step", "epoch", "learning_rate")]
        return {name: sum(row[name] for row in seen) / len(seen) for name in numbers}

    def _step(self, step: nn.Module, views: list[View], number: int) -> tuple[Reduced, float]:
        total = self.epochs * self.steps_per_epoch
        factor = learning_rate_factor(number, total, self.warmup_steps)
        for group, base in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = base * factor
        self.optimizer.zero_grad(set_to_none=True)
        reduced, encoded = step(views)
        reduced.backward.backward()
        self.optimizer.step()
        self.method.after_step([view.detach() for view in encoded], (number + 1) / total)
        return reduced, self.base_rates[0] * factor

    def _flush(self, waiting: list[tuple[dict[str, float], dict[str, Tensor]]]) -> list[dict[str, float]]:
        """Read waiting metrics from the device at once, write them and tell the observers."""
        names = [list(tensors) for _, tensors in waiting]
        flat = torch.stack([tensor.double() for _, tensors in waiting for tensor in tensors.values()]).tolist()
        rows, start = [], 0
        for (about, _), own in zip(waiting, names, strict=True):
            row = {**about, **dict(zip(own, flat[start : start + len(own)], strict=True))}
            start += len(own)
            rows.append(row)
            self.folder.log(row)
            self._observers.call("step_ended", row)
            if not torch.isfinite(torch.tensor(row["loss"])):
                raise NonFiniteLossError(
                    f"the loss must be finite, got {row['loss']} in step {int(about['step'])}; "
                    "lower the learning rate, raise the temperature, or look for such values in the data"
                )
        return rows

    def _check_batch(self) -> None:
        least = self.method.min_batch
        if self.batch_size < least:
            raise InvalidValueError(
                f"`batch_size` must be >= {least} for this method, got {self.batch_size}; "
                "it compares the samples of a batch with each other"
            )
        if self.batch_size < world_size():
            raise InvalidValueError(
                f"`batch_size` counts the samples of all processes and must be >= their number ({world_size()}), "
                f"got {self.batch_size}"
            )
        rest = len(self.data) % self.batch_size
        if len(self.data) < self.batch_size and self.drop_last:
            raise InvalidValueError(
                f"`batch_size` must not exceed the number of samples ({len(self.data)}), got {self.batch_size}; "
                "make it smaller or set drop_last=False"
            )
        if not self.drop_last and 0 < rest < max(least, world_size()):
            raise InvalidValueError(
                f"the last batch would hold {rest} of {len(self.data)} samples, fewer than the method and the "
                f"{world_size()} processes need; set drop_last=True or another batch_size"
            )
        alone = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.method.modules())
        if alone and (self.batch_size == 1 or (not self.drop_last and rest == 1)):
            raise InvalidValueError(
                "this method has batch norms, which need 2 samples in a batch, and a batch would hold 1; "
                "use a larger batch_size, and drop_last=True"
            )

    def _described(self, settings: OptimizerSettings, warmup: float) -> dict[str, Any]:
        """Say what this run is, for its folder, where nobody wrote a configuration."""
        return {
            "method": repr(self.method),
            "augmenter": repr(self.augmenter),
            "optimizer": repr(settings),
            "samples": len(self.data),
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "warmup_epochs": warmup,
            "seed": self.seed,
            "drop_last": self.drop_last,
        }


class _Step(nn.Module):
    """Encode, sample, score: what DDP wraps, so that every parameter's gradient passes its hooks once."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, views: list[View]) -> tuple[Reduced, list[Encoded]]:
        loss, encoded = self.method(views)
        return loss.reduced(), encoded
