"""A run: what it writes, what it repeats, what it refuses."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from gloo import GlooPool
from torch import Tensor, nn

import kontrast as kt
from kontrast.plugins.objectives import InfoNCE, NTXent, VICReg


class Jitter(kt.Augmenter):
    """Adds numbers drawn for each sample and view."""

    def forward(self, batch: kt.Batch, draws: kt.Draws) -> list[kt.View]:
        size = batch.inputs.shape[1]
        return [kt.View.of(batch, batch.inputs + 0.1 * draws.uniform(batch.ids, size, view=v)) for v in range(2)]


def _data(samples: int = 21) -> kt.ArrayData:
    return kt.ArrayData(torch.randn(samples, 4, generator=torch.Generator().manual_seed(0)))


def _method(objective: kt.Objective | None = None) -> kt.Method:
    torch.manual_seed(0)
    encoder = kt.as_encoder(nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.1), nn.ReLU()), representation_size=8)
    return kt.Method(encoder, projector=nn.Linear(8, 3), sampler=kt.InBatch(), objective=objective or NTXent())


def _run(**options: object) -> kt.Run:
    settings: dict[str, object] = {"epochs": 3, "batch_size": 8, "device": "cpu", "observers": ()}
    return kt.Run(_method(), _data(), augmenter=Jitter(), **{**settings, **options})  # type: ignore[arg-type]


def test_a_run_writes_one_folder_with_every_step_once(tmp_path: Path) -> None:
    out = tmp_path / "runs" / "mine"
    run = _run(out=out, log_every=4, drop_last=False, warmup_epochs=1)
    means = run.fit()
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(9))
    assert [row["epoch"] for row in rows] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert means["loss"] == pytest.approx(sum(row["loss"] for row in rows[-3:]) / 3)
    assert [row["learning_rate"] for row in rows[:3]] == pytest.approx([1e-3 / 3, 2e-3 / 3, 1e-3])
    assert rows[-1]["learning_rate"] < rows[3]["learning_rate"]
    assert json.loads((out / "config.json").read_text())["batch_size"] == 8
    assert json.loads((out / "environment.jsonl").read_text())["processes"] == 1
    fresh = kt.as_encoder(nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.1), nn.ReLU()), representation_size=8)
    kt.load_encoder(fresh, out)
    inputs = _data().inputs
    assert torch.equal(fresh(inputs), run.encoder(inputs))


def test_a_run_of_so_many_steps_ends_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    ended: list[tuple[int, list[float]]] = []

    class Recorder(kt.Observer):
        """Keeps the epochs that ended."""

        def run_started(self, progress: kt.Progress) -> None:
            assert (progress.steps, progress.epochs) == (5, 3)

        def epoch_ended(self, epoch: int, metrics: Mapping[str, float]) -> None:
            ended.append((epoch, [metrics["loss"]]))

    means = _run(out=tmp_path, epochs=1, steps=5, observers=(Recorder(),)).fit()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["epoch"]) for row in rows] == [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2)]
    assert [epoch for epoch, _ in ended] == [0, 1, 2]
    assert means["loss"] == rows[-1]["loss"]
    # A tenth of its length in epochs, 0.25 of 2 steps, is no step; the cosine falls to nothing over five.
    rates = [row["learning_rate"] for row in rows]
    assert rates == pytest.approx([5e-4 * (1 + math.cos(math.pi * step / 5)) for step in range(5)])
    assert [path.name for path in (tmp_path / "checkpoints").iterdir() if path.suffix == ".pt"][-1:]
    assert _run(out=tmp_path, steps=5, resume="auto").start == 5
    with pytest.raises(kt.CheckpointError, match="steps was 5 and is 6"):
        _run(out=tmp_path, steps=6, resume="auto")


def test_what_a_run_writes_may_be_read_by_those_whom_the_umask_lets(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        _run(out=tmp_path / "run", epochs=1, warmup_epochs=0).fit()
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert "encoder.safetensors" in modes
    assert set(modes.values()) == {0o640}


def test_the_same_run_gives_the_same_weights_and_another_seed_others() -> None:
    def weights(seed: int) -> Tensor:
        run = _run(seed=seed)
        run.fit()
        return torch.cat([parameter.detach().flatten() for parameter in run.method.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_an_existing_run_folder_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(
        kt.RunFolderError, match=r"`out` must be a folder without a run, and .* holds one; choose another"
    ):
        _run(out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_weights_of_another_encoder_are_refused(tmp_path: Path) -> None:
    _run(out=tmp_path / "run").fit()
    with pytest.raises(kt.IncompatibleError, match=r"holds another encoder than Linear: .* differ"):
        kt.load_encoder(nn.Linear(4, 8), tmp_path / "run")


class Watcher(kt.Observer):
    """Writes down its turns, and raises when told to."""

    def __init__(self, raises_in: str = "") -> None:
        self.turns: list[str] = []
        self.raises_in = raises_in

    def _turn(self, name: str) -> None:
        self.turns.append(name)
        if name == self.raises_in:
            raise RuntimeError("the disk of the plotting service is full")

    def run_started(self, progress: kt.Progress) -> None:
        self._turn("run_started")

    def step_ended(self, metrics: Mapping[str, float]) -> None:
        self._turn("step_ended")

    def epoch_ended(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self._turn("epoch_ended")

    def checkpoint_saved(self, step: int, path: Path) -> None:
        assert torch.load(path, weights_only=True)["step"] == step  # it is whole
        self._turn(f"checkpoint_saved {path.name}")

    def run_ended(self, error: BaseException | None) -> None:
        self._turn(f"run_ended {type(error).__name__}")


def test_observers_hear_every_turn_and_a_raising_one_is_left_out_by_name() -> None:
    good, bad = Watcher(), Watcher(raises_in="step_ended")
    with pytest.warns(UserWarning, match=r"the observer Watcher failed in step_ended and is left out .* RuntimeError"):
        _run(epochs=2, warmup_epochs=0, observers=(bad, good)).fit()
    assert good.turns == ["run_started", *(["step_ended"] * 2 + ["epoch_ended"]) * 2, "run_ended NoneType"]
    assert bad.turns == ["run_started", "step_ended"]


class Greedy(kt.Observer):
    """Changes what it is given."""

    def step_ended(self, metrics: Any) -> None:
        metrics.clear()


class Reader(kt.Observer):
    def __init__(self) -> None:
        self.read: list[set[str]] = []

    def step_ended(self, metrics: Mapping[str, float]) -> None:
        self.read.append(set(metrics))


def test_an_observer_cannot_change_what_the_run_and_others_read() -> None:
    reader = Reader()
    means = _run(epochs=1, warmup_epochs=0, observers=(Greedy(), reader)).fit()
    assert "loss" in means
    assert len(reader.read) == 2
    assert all({"loss", "step"} <= read for read in reader.read)


@pytest.mark.parametrize(
    "observers", [[Watcher], [object()], Watcher(), "progress"], ids=["class", "any", "one", "word"]
)
def test_what_observes_nothing_is_refused(observers: Any) -> None:
    with pytest.raises(
        kt.InvalidValueError, match=r"`observers` must be a (list of names|name or a kontrast\.Observer)"
    ):
        _run(observers=observers)


def test_observers_hear_of_each_checkpoint_and_a_raising_one_is_left_out(tmp_path: Path) -> None:
    good, bad = Watcher(), Watcher(raises_in="checkpoint_saved step-000000002.pt")
    with pytest.warns(UserWarning, match=r"the observer Watcher failed in checkpoint_saved and is left out"):
        _run(out=tmp_path, epochs=2, warmup_epochs=0, log_every=1, observers=(bad, good)).fit()
    epoch = ["step_ended"] * 2 + ["epoch_ended"]
    saved = [f"checkpoint_saved step-00000000{step}.pt" for step in (2, 4)]
    assert good.turns == ["run_started", *epoch, saved[0], *epoch, saved[1], "run_ended NoneType"]
    assert bad.turns == ["run_started", *epoch, saved[0]]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2


def test_a_loss_that_is_not_finite_ends_the_run_with_its_step() -> None:
    data = _data()
    data.inputs[5] = torch.nan
    watcher = Watcher()
    run = kt.Run(
        _method(),
        data,
        augmenter=Jitter(),
        epochs=1,
        warmup_epochs=0,
        batch_size=21,
        device="cpu",
        observers=(watcher,),
    )
    with pytest.raises(
        kt.NonFiniteLossError,
        match=r"got nan or inf in \d+ of 42 anchors, .* in step 0; no checkpoint was written before it; lower the",
    ):
        run.fit()
    assert watcher.turns[-1] == "run_ended NonFiniteLossError"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"epochs": 0}, "`epochs` must be an integer >= 1, got 0"),
        ({"steps": -1}, "`steps` must be an integer >= 0, got -1"),
        ({"steps": 3, "warmup_epochs": 1.5}, r"`warmup_epochs` must be >= 0 and less than epochs \(1.5\), got 1.5"),
        ({"batch_size": 0}, "`batch_size` must be an integer >= 1, got 0"),
        ({"batch_size": 1}, "`batch_size` must be >= 2 for this method, got 1"),
        ({"batch_size": 22}, r"`batch_size` must not exceed the number of samples \(21\), got 22"),
        ({"batch_size": 10, "drop_last": False}, "the last batch would hold 1 of 21 samples, fewer than the method"),
        ({"warmup_epochs": 3}, r"`warmup_epochs` must be >= 0 and less than epochs \(3\), got 3"),
        ({"observers": ("progres",)}, "no observer `progres`; did you mean `progress`"),
        ({"optimizer": kt.AdamW}, "`optimizer` must be settings such as kontrast.AdamW"),
    ],
)
def test_options_that_break_a_rule_are_named(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(kt.KontrastError, match=sentence):
        _run(**options)


class TwoTerms(kt.Objective):
    """A loss whose second term outweighs the first, and may be NaN."""

    def __init__(self, second: float) -> None:
        super().__init__()
        self.second = second

    def forward(self, pairs: kt.Pairs) -> kt.Loss:
        first = NTXent()(pairs)
        return kt.Loss((*first.terms, kt.Term("second", pairs.anchors.sum() * 0 + self.second, 1.0, 10.0)))


def test_the_logged_loss_is_the_whole_loss(tmp_path: Path) -> None:
    method = _method(TwoTerms(5.0))
    kt.Run(
        method, _data(), augmenter=Jitter(), epochs=1, warmup_epochs=0, batch_size=8, out=tmp_path, observers=()
    ).fit()
    row = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert row["second"] == 5
    assert 50 < row["loss"] < 60
    with pytest.raises(kt.NonFiniteLossError, match="got nan in step 0"):
        kt.Run(
            _method(TwoTerms(math.nan)),
            _data(),
            augmenter=Jitter(),
            epochs=1,
            warmup_epochs=0,
            batch_size=8,
            observers=(),
        ).fit()


def test_a_run_that_compares_nothing_says_so() -> None:
    data = kt.ArrayData(_data().inputs, labels=torch.full((21,), -1))
    method = kt.Method(nn.Linear(4, 3), sampler=kt.InBatch(match="labels"), objective=NTXent())
    run = kt.Run(method, data, augmenter=Jitter(), epochs=1, warmup_epochs=0, batch_size=8, observers=())
    with pytest.raises(kt.IncompatibleError, match="must compare something, and in step 0 no row had a positive"):
        run.fit()


class Spare(nn.Module):
    """Has a layer that it does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.spare = nn.Linear(4, 3), nn.Linear(3, 3)

    def forward(self, rows: Tensor) -> Tensor:
        output: Tensor = self.used(rows)
        return output


def _spare(frozen: bool) -> float:
    method = kt.Method(Spare(), sampler=kt.InBatch(), objective=NTXent())
    method.encoder.module.spare.requires_grad_(not frozen)  # type: ignore[union-attr]
    options: dict[str, Any] = {"epochs": 1, "batch_size": 8, "warmup_epochs": 0, "device": "cpu", "observers": ()}
    return kt.Run(method, _data(), augmenter=Jitter(), **options).fit()["loss"]


def test_weights_that_take_no_part_in_the_loss_are_named_where_processes_share_the_work(gloo: GlooPool) -> None:
    assert _spare(False) > 0
    first, second = gloo.run(2, _spare, True)
    assert first == second > 0
    with pytest.raises(AssertionError, match=r"encoder\.module\.spare\.weight, .*spare\.bias took none; freeze them"):
        gloo.run(2, _spare, False)


def test_a_run_that_fails_before_its_first_step_leaves_no_run(tmp_path: Path) -> None:
    broken = kt.Run(
        _method(), kt.ArrayData(torch.randn(9, 5)), augmenter=Jitter(), batch_size=8, out=tmp_path, observers=()
    )
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        broken.fit()
    assert not list(tmp_path.iterdir())
    _run(out=tmp_path).fit()


def test_training_mode_is_what_a_run_trains_in() -> None:
    run = _run()
    run.method.eval()
    seen: list[bool] = []
    run.method.register_forward_pre_hook(lambda module, _: seen.append(module.training))
    run.fit()
    assert seen
    assert all(seen)
    assert not run.method.training


def test_plain_modules_and_tied_weights_are_saved_as_their_own_state(tmp_path: Path) -> None:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    module = nn.Sequential(first, second)
    method = kt.Method(module, sampler=kt.InBatch(), objective=NTXent())
    kt.Run(
        method, _data(), augmenter=Jitter(), epochs=1, warmup_epochs=0, batch_size=8, out=tmp_path, observers=()
    ).fit()
    loaded = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    kt.load_encoder(loaded, tmp_path)
    assert torch.equal(loaded(_data().inputs), module(_data().inputs))
    with pytest.raises(kt.InvalidValueError, match="`path` must be a finished run's folder, its safetensors file"):
        kt.load_encoder(loaded, tmp_path / "nowhere")
    (tmp_path / "junk.safetensors").write_text("junk")
    with pytest.raises(kt.InvalidValueError, match=r"junk.safetensors must hold weights, got: "):
        kt.load_encoder(loaded, tmp_path / "junk.safetensors")
    with pytest.raises(kt.InvalidValueError, match=r"`encoder` must be a torch\.nn\.Module, .*the path comes second"):
        kt.load_encoder(tmp_path, loaded)  # type: ignore[arg-type]  # as a hurried reader writes it


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"method": nn.Linear(2, 2)}, "`method` must be a kontrast.Method, got Linear"),
        ({"data": kt.Splits(_data())}, "`data` must be one part of a data set, got Splits; write data.train"),
        ({"data": torch.ones(3)}, "`data` must have __len__ and batch"),
        ({"augmenter": Jitter}, "`augmenter` must be a kontrast.Augmenter, an object, got <class"),
        ({"observers": "progress"}, "`observers` must be a list of names or objects, got the string 'progress'"),
        ({"epochs": 1.5}, "`epochs` must be an integer >= 1, got 1.5"),
        ({"seed": 1 << 50}, "`seed` must be an integer in 0"),
        ({"device": "cudda"}, "`device` must be auto, cpu or cuda, got 'cudda'"),
        ({"out": "/proc/xx"}, "`out` must be a folder that can be made, got /proc/xx"),
    ],
)
def test_parts_of_another_kind_are_named(options: dict[str, object], sentence: str) -> None:
    settings = {
        "method": _method(),
        "data": _data(),
        "augmenter": Jitter(),
        "batch_size": 8,
        "observers": (),
        **options,
    }
    with pytest.raises(kt.KontrastError, match=sentence):
        kt.Run(**settings)  # type: ignore[arg-type]


def test_batch_norms_need_two_samples() -> None:
    method = kt.Method(nn.BatchNorm1d(4), sampler=kt.Queue(kt.Positives("forward"), size=4), objective=InfoNCE())
    with pytest.raises(kt.InvalidValueError, match="this method has batch norms, which need 2 samples in a batch"):
        kt.Run(method, _data(), augmenter=Jitter(), batch_size=1, device="cpu", observers=())


def test_vicreg_needs_two_samples() -> None:
    method = kt.Method(nn.Linear(4, 3), sampler=kt.Positives("forward"), objective=VICReg())
    with pytest.raises(kt.InvalidValueError, match="`batch_size` must be >= 2 for this method, got 1"):
        kt.Run(method, _data(), augmenter=Jitter(), batch_size=1, device="cpu", observers=())


class Looks(NTXent):
    """Refuses embeddings that are not finite, as an objective may."""

    def forward(self, pairs: kt.Pairs) -> kt.Loss:
        wrong = ~pairs.anchors.isfinite().all(1)
        if wrong.any():
            raise kt.NonFiniteLossError(f"embeddings must be finite, got {int(wrong.sum())} of {len(wrong)} anchors")
        return super().forward(pairs)


@pytest.mark.parametrize("micro_batch_size", [0, 4])
def test_what_an_objective_finds_in_its_embeddings_gets_its_step_and_the_last_checkpoint(
    tmp_path: Path, micro_batch_size: int
) -> None:
    class Spoiled(Jitter):
        """Puts a NaN into one sample of the fourth batch on."""

        calls = 0

        def forward(self, batch: kt.Batch, draws: kt.Draws) -> list[kt.View]:
            self.calls += 1
            if self.calls == 4 * (2 if micro_batch_size else 1):
                batch.inputs[0] = torch.nan
            return super().forward(batch, draws)

    watcher = Watcher()
    run = kt.Run(
        _method(Looks()),
        _data(),
        augmenter=Spoiled(),
        epochs=3,
        batch_size=8,
        micro_batch_size=micro_batch_size,
        out=tmp_path,
        device="cpu",
        observers=(watcher,),
    )
    with pytest.raises(
        kt.NonFiniteLossError,
        match=r"^embeddings must be finite, got 2 of 16 anchors, in step 3; the last good checkpoint is "
        r".*step-000000002\.pt; lower the learning rate, raise the temperature, or look for such values in the data$",
    ) as caught:
        run.fit()
    assert isinstance(caught.value.__cause__, kt.NonFiniteLossError)
    assert all(parameter.isfinite().all() for parameter in run.method.parameters())
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-000000002.pt"]
    assert not (tmp_path / "encoder.safetensors").exists()
    assert watcher.turns[-1] == "run_ended NonFiniteLossError"


def test_an_unknown_observer_is_refused_before_there_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(kt.UnknownNameError, match="no observer `progres`; did you mean `progress`"):
        kt.Run(
            _method(Looks()), _data(), augmenter=Jitter(), batch_size=8, out=tmp_path / "run", observers=("progres",)
        )
    assert not (tmp_path / "run").exists()
