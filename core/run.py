"""A run: a method, data, an augmenter and an optimizer, driven to the last epoch on one process or many."""

import math
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .augmenter import Augmenter
from .checkpoint import Checkpoints
from .data import Data
from .diagnostics import CollapseWatch, diagnose
from .distributed import broadcast_object, join_processes, rank, world_size
from .encoder import Encoder
from .errors import IncompatibleError, InvalidValueError, NonFiniteLossError
from .fingerprint import fingerprint
from .gradient import LargeBatch, StepModule, averaged, backward
from .heartbeat import Heartbeat
from .loader import MicroBatch, Plan, arrangement, micro_batches
from .method import Method
from .norm import sync_batch_norms
from .observer import Observer, Progress
from .observers import Observers
from .optim import AdamW, OptimizerSettings, Schedule, learning_rate_factor
from .run_checks import (
    check_batch,
    check_choices,
    check_counts,
    check_gradients,
    check_micro_batches,
    check_parts,
    check_seed,
    warn_of_inexact_caching,
)
from .run_folder import RunFolder
from .run_metrics import RunMetrics
from .run_state import collect_state, restore_state, seed_generators
from .same_plugins import check_same_plugins
from .stopping import StopRequest
from .values import View

__all__ = ["Run"]


class Run:
    """Train a method. The same script under `torchrun` uses every process it starts.

    Args:
        method: what is trained.
        data: what it is trained on.
        augmenter: makes the views.
        epochs: passes over the data, >= 1.
        steps: train for so many steps instead, over as many epochs as they need; 0: for whole epochs.
        batch_size: samples per step, of all processes together: a run does not change with their number.
        micro_batch_size: samples of one process encoded at once; 0: the whole batch.
        large_batch: what to do with several micro-batches. `"cache"`: gradients are cached, the negatives are the whole
            batch's, exactly, for one more forward pass (not exact with batch norms, which see micro-batches).
            `"accumulate"`: gradients are added up, and the negatives are those of the micro-batch alone.
        optimizer: AdamW by default.
        warmup_epochs: of linear warm-up; None: a tenth of the epochs.
        schedule: of the learning rate after the warm-up: `"cosine"` falls to 0, `"constant"` stays.
        seed: of the order of samples, of augmentation and of dropout; weights are drawn before, where the method is
            made.
        out: the run's folder; None: nothing is written, and the run cannot be resumed.
        resume: `"auto"`: go on from the newest checkpoint in `out`, or begin where there is none; `"never"`: `out` must
            not hold a run.
        checkpoint_every: steps between checkpoints; 0: one at the end of each epoch. SIGTERM and SIGINT save one too.
        keep_checkpoints: how many of the newest stay, >= 1.
        any_world: resume with another number of processes than the checkpoint's; dropout then differs.
        device: `"auto"`, or a torch device.
        precision: `"bf16"` runs the encoders under autocast; losses stay in float32.
        channels_last: memory format of convolutions, faster on GPUs.
        compile: compile the encoders with `torch.compile`.
        workers: loader processes; 0: this one loads.
        drop_last: leave an epoch's last batch out where it is not full.
        sync_batchnorm: take the statistics of batch norms over all processes.
        observers: registered names, or objects.
        log_every: steps between two reads of the metrics from the device, and between two looks for a signal.
        diagnose_every: steps between two looks at the embeddings for collapse; 0: never.
        config: what was asked for, to be written to the folder as it is.

    Raises:
        InvalidValueError: if an option breaks its rule, or the batch is smaller than the method needs.
        RunFolderError: if `out` holds a run, and `resume` does not say to go on with it.
        CheckpointError: if the checkpoint to resume from is damaged, of another run, or of other data.
        IncompatibleError: if the processes have different plugins; says which.
    """

    def __init__(
        self,
        method: Method,
        data: Data,
        *,
        augmenter: Augmenter,
        epochs: int = 100,
        steps: int = 0,
        batch_size: int = 256,
        micro_batch_size: int = 0,
        large_batch: LargeBatch = "cache",
        optimizer: OptimizerSettings | None = None,
        warmup_epochs: float | None = None,
        schedule: Schedule = "cosine",
        seed: int = 0,
        out: str | Path | None = None,
        resume: Literal["never", "auto"] = "never",
        checkpoint_every: int = 0,
        keep_checkpoints: int = 2,
        any_world: bool = False,
        device: str = "auto",
        precision: Literal["float32", "bf16"] = "float32",
        channels_last: bool = False,
        compile: bool = False,
        workers: int = 0,
        drop_last: bool = True,
        sync_batchnorm: bool = True,
        observers: Sequence[str | Observer] = ("progress",),
        log_every: int = 10,
        diagnose_every: int = 50,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        check_parts(method, data, augmenter, observers)
        check_counts(
            ("epochs", epochs, 1),
            ("steps", steps, 0),
            ("batch_size", batch_size, 1),
            ("micro_batch_size", micro_batch_size, 0),
            ("checkpoint_every", checkpoint_every, 0),
            ("keep_checkpoints", keep_checkpoints, 1),
            ("workers", workers, 0),
            ("log_every", log_every, 1),
            ("diagnose_every", diagnose_every, 0),
        )
        check_seed(seed)
        check_choices(
            ("large_batch", large_batch, ("accumulate", "cache")),
            ("precision", precision, ("float32", "bf16")),
            ("resume", resume, ("never", "auto")),
            ("schedule", schedule, ("cosine", "constant")),
        )
        settings = AdamW() if optimizer is None else optimizer
        if not isinstance(settings, OptimizerSettings):
            raise InvalidValueError(
                f"`optimizer` must be settings such as kontrast.AdamW(1e-3), got {settings!r}; the run builds it"
            )
        self.device = join_processes(device)
        check_same_plugins()
        self.method = method.to(self.device)
        if channels_last:
            self.method.to(memory_format=torch.channels_last)
        self.data = data
        self.augmenter = augmenter.to(self.device)
        self.large_batch: LargeBatch = large_batch
        self.precision, self.compile, self.workers = precision, compile, workers
        self.sync_batchnorm = sync_batchnorm
        self.log_every, self.diagnose_every, self.checkpoint_every = log_every, diagnose_every, checkpoint_every
        self.plan = Plan(
            len(data),
            epochs,
            batch_size,
            micro_batch_size,
            seed,
            drop_last,
            world=world_size(),
            rank=rank(),
            arrange=arrangement(method.sampler, data, batch_size),
        )
        check_batch(self.method, self.plan)
        length: float = epochs
        if steps:
            length = steps / self.plan.steps_per_epoch
            self.plan = replace(self.plan, epochs=math.ceil(length), at_most=steps)
        warmup = length / 10 if warmup_epochs is None else warmup_epochs
        if not 0 <= warmup < length:
            raise InvalidValueError(f"`warmup_epochs` must be >= 0 and less than epochs ({length:g}), got {warmup!r}")
        if micro_batch_size and large_batch == "cache":
            warn_of_inexact_caching(self.method, micro_batch_size)
        check_micro_batches(self.method, self.plan, large_batch)
        self.schedule: Schedule = schedule
        self.warmup_steps = round(warmup * self.plan.steps_per_epoch)
        described = self._described(settings, warmup)  # before batch norms change their class with the world
        if sync_batchnorm and world_size() > 1:
            sync_batch_norms(self.method)
        self.optimizer = settings.build(self.method)
        self.base_rates = [group["lr"] for group in self.optimizer.param_groups]
        self._observers = Observers(observers)  # refused before there is a folder
        self.folder = RunFolder(out, described if config is None else dict(config))
        self.checkpoints = None if out is None else Checkpoints(Path(out) / "checkpoints", keep_checkpoints)
        self._metrics = RunMetrics()
        self._identity = described
        self._fingerprint = {} if out is None else fingerprint(data, workers=workers)
        self.start = self._open(resume=resume == "auto", any_world=any_world)

    @property
    def encoder(self) -> Encoder:
        """The encoder alone, for use after training; with several towers there are `method.encoders`."""
        return self.method.encoder

    def fit(self) -> dict[str, float]:
        """Train to the last epoch, save the encoders, and return the means of the last epoch's metrics.

        SIGTERM and SIGINT save a checkpoint and leave with status 128 + signal.

        Raises:
            LostRankError: if another process died or failed; says which.
            NonFiniteLossError: if the loss or the weights are not finite.
        """
        if not self.start:
            seed_generators(self.plan.seed * 1_000_003 + rank())  # dropout, mostly; each rank has its own
        self.method.train()
        progress = Progress(
            self.plan.epochs,
            self.plan.steps_per_epoch,
            world_size(),
            rank() == 0,
            self.folder.path,
            self.start,
            self.method,
            self.plan.steps,
            self.data,
        )
        error: BaseException | None = None
        try:
            with StopRequest() as stop, Heartbeat(self._last_checkpoint), closing(self._loaded()) as loaded:
                self._observers.call("run_started", progress)
                self._steps(self._distributed(), stop, loaded)
                self.method.eval()
                self.folder.save_encoders(self.method)
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._observers.call("run_ended", error)
        return self._metrics.means()

    def _loaded(self) -> Generator[tuple[MicroBatch, list[View]], None, None]:
        return micro_batches(
            self.plan, self.data, self.augmenter, start=self.start, workers=self.workers, device=self.device
        )

    def _distributed(self) -> nn.Module:
        """Return the step as one module, compiled and in agreement between processes as far as was asked for."""
        step = StepModule(self.method)
        if self.compile:
            for towers in (self.method.towers, self.method.target_towers):
                for tower in () if towers is None else towers.values():
                    tower.compile()
        return averaged(step) if world_size() > 1 else step

    def _steps(self, step: nn.Module, stop: StopRequest, loaded: Iterable[tuple[MicroBatch, list[View]]]) -> None:
        per_epoch, total = self.plan.steps_per_epoch, self.plan.steps
        watch = CollapseWatch(total)
        parts: list[tuple[MicroBatch, list[View]]] = []
        for part, views in loaded:
            parts.append((part, views))
            if not part.last:
                continue
            if part.step % per_epoch == 0:
                self._metrics.totals = {}
            about, measured = self._step(step, parts, part.step, total)
            self._metrics.add({"step": part.step, "epoch": part.epoch, **about}, measured)
            parts = []
            done = part.step + 1
            ends_epoch = done % per_epoch == 0 or done == total
            signal = stop.agreed(done, at_most=self.log_every, device=self.device)
            if not (signal or ends_epoch or done % self.log_every == 0 or self._is_due(done)):
                continue
            watch.look(self._read())
            if ends_epoch:
                self._observers.call("epoch_ended", part.epoch, self._metrics.means())
            saved = True
            if self._is_due(done) or (ends_epoch and not self.checkpoint_every) or signal or done == total:
                saved = self._save(done)
            self.start = done
            if signal:
                stop.leave(signal, done, self.folder.path if saved else None)

    def _is_due(self, done: int) -> bool:
        return bool(self.checkpoint_every) and done % self.checkpoint_every == 0

    def _step(
        self, step: nn.Module, parts: list[tuple[MicroBatch, list[View]]], number: int, total: int
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Take one step; return what is known on the host, and metrics that are still on the device."""
        factor = learning_rate_factor(number, total, self.warmup_steps, self.schedule)
        for group, base in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = base * factor
        self.optimizer.zero_grad(set_to_none=True)
        try:
            reduced, encoded = backward(step, self.method, parts, self.large_batch, self._precision)
        except NonFiniteLossError as error:  # an objective looked at its embeddings before they reached the weights
            raise NonFiniteLossError(f"{error}, in step {number}; {self._last_checkpoint()}; {_REMEDY}") from error
        if number == self.start and world_size() > 1:
            check_gradients(self.method)
        self.optimizer.step()
        metrics = {**reduced.terms, "loss": reduced.value, "rows": reduced.rows}  # a term may be called `loss` too
        if self.diagnose_every and number % self.diagnose_every == 0:
            metrics |= diagnose(self.method, encoded, taken=(*metrics, "step", "epoch", "learning_rate"))
        self.method.after_step(encoded, (number + 1) / total)
        return {"learning_rate": self.base_rates[0] * factor}, metrics

    def _precision(self) -> AbstractContextManager[Any]:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def _read(self) -> list[dict[str, float]]:
        """Read what was measured since the last time, write it and tell the observers."""
        rows = self._metrics.read()
        for row in rows:
            self.folder.log(row)
            self._observers.call("step_ended", row)
            if not row["rows"]:
                raise IncompatibleError(
                    f"a step must compare something, and in step {int(row['step'])} no row had a positive; "
                    "look at the key that matches them (labels of -1 equal nothing), or at the number of views"
                )
            if not math.isfinite(row["loss"]):
                raise NonFiniteLossError(
                    f"the loss must be finite, got {row['loss']} in step {int(row['step'])}; "
                    f"{self._last_checkpoint()}; {_REMEDY}"
                )
        return rows

    def _last_checkpoint(self) -> str:
        saved = self.checkpoints.paths()[-1:] if self.checkpoints is not None else []
        return f"the last good checkpoint is {saved[0]}" if saved else "no checkpoint was written before it"

    def _save(self, done: int) -> bool:
        """Save a checkpoint; return whether there is one now."""
        weights = [parameter.isfinite().all() for parameter in self.method.parameters()]
        if not torch.stack(weights).all():
            raise NonFiniteLossError(
                f"weights must be finite to be saved, and after step {done} some are not; the checkpoints before it "
                "are whole; lower the learning rate, or look for such values in the data"
            )
        if self.checkpoints is None:
            return False
        state = collect_state(
            self.method, self.optimizer, self.augmenter, self._identity, self._fingerprint, done, self._metrics.totals
        )
        if rank() != 0:
            return True
        saved = self.folder.save_checkpoint(self.checkpoints, done, state)
        if saved:
            self._observers.call("checkpoint_saved", done, self.checkpoints.paths()[-1])
        return saved

    def _open(self, *, resume: bool, any_world: bool) -> int:
        """Make or reopen the folder; return the step to begin with."""
        newest: str | None = None
        if resume and self.checkpoints is not None:
            saved = self.checkpoints.paths()
            # The first process says which: another may see the folder a moment earlier or later.
            newest = broadcast_object(saved[-1].name if saved else None)
        if newest is None or self.checkpoints is None:
            self.folder.claim(replace_unstarted=resume)
            return 0
        path = self.checkpoints.folder / newest
        state = self.checkpoints.load(path)
        start, self._metrics.totals = restore_state(
            state,
            path,
            self.method,
            self.optimizer,
            self.augmenter,
            self._identity,
            self._fingerprint,
            any_world=any_world,
        )
        self.folder.reopen(start)
        return start

    def _described(self, settings: OptimizerSettings, warmup: float) -> dict[str, Any]:
        """Say what this run is: what a checkpoint must agree with, and the folder's config where nobody wrote one."""
        return {
            "method": repr(self.method),
            "augmenter": repr(self.augmenter),
            "optimizer": repr(settings),
            "samples": self.plan.length,
            "epochs": self.plan.epochs,
            "steps": self.plan.at_most,
            "batch_size": self.plan.batch_size,
            "micro_batch_size": self.plan.micro_batch_size,
            "large_batch": self.large_batch,
            "warmup_epochs": warmup,
            "schedule": self.schedule,
            "seed": self.plan.seed,
            "drop_last": self.plan.drop_last,
            "precision": self.precision,
            "sync_batchnorm": self.sync_batchnorm,
        }


_REMEDY = "lower the learning rate, raise the temperature, or look for such values in the data"
