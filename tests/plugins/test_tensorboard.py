"""TensorBoard's event files against the JSON lines of the same run."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import kontrast as kt
from kontrast.plugins.objectives import NTXent
from kontrast.plugins.tensorboard import TensorBoard

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


class Fails(kt.ArrayData):
    """Raises when it is asked for its n-th batch."""

    def __init__(self, inputs: Tensor, after: int) -> None:
        super().__init__(inputs)
        self.left = after

    def batch(self, indices: Tensor) -> kt.Batch:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("the disk is gone")
        return super().batch(indices)


class Killed(TensorBoard):
    """Ends as after SIGKILL: nobody closes the file."""

    def run_ended(self, error: BaseException | None) -> None:
        """Do nothing."""


class Twice(kt.Augmenter):
    def forward(self, batch: kt.Batch, draws: kt.Draws) -> list[kt.View]:
        return [kt.View.of(batch, batch.inputs), kt.View.of(batch, batch.inputs.roll(1, dims=1))]


def _run(out: Path | None, *observers: str | kt.Observer, after: int = 10**9, **options: Any) -> kt.Run:
    torch.manual_seed(0)
    method = kt.Method(nn.Linear(3, 2), sampler=kt.InBatch(), objective=NTXent())
    inputs = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    settings: dict[str, Any] = {"epochs": 5, "batch_size": 4, "device": "cpu", "out": out, "observers": observers}
    return kt.Run(method, Fails(inputs, after), augmenter=Twice(), **{**settings, **options})


def _rows(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def _check(out: Path, steps: int) -> None:
    """The event files hold every number of the JSON lines, and no other."""
    rows = _rows(out)
    assert [row["step"] for row in rows] == list(range(steps))
    events = accumulator.EventAccumulator(str(out / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    names = {name for row in rows for name in row} - {"step"}
    assert {"loss", "learning_rate", "epoch", "effective_rank"} <= names
    assert set(events.Tags()["scalars"]) == names
    for name in names:
        expected = [(row["step"], row[name]) for row in rows if name in row]
        found = events.Scalars(name)
        assert [event.step for event in found] == [step for step, _ in expected]
        assert [event.value for event in found] == pytest.approx([value for _, value in expected], rel=1e-6, abs=1e-30)


def test_a_thousand_steps_are_in_the_event_files_once_each_as_in_the_json_lines(tmp_path: Path) -> None:
    _run(tmp_path / "run", "tensorboard", epochs=200, checkpoint_every=1000, log_every=100).fit()
    _check(tmp_path / "run", 1000)


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("after", [18, 3])
def test_no_step_is_lost_or_twice_after_an_interruption(tmp_path: Path, killed: bool, after: int) -> None:
    out, observer = tmp_path / "run", Killed() if killed else TensorBoard()
    options = {"checkpoint_every": 7, "log_every": 1, "diagnose_every": 3}
    with pytest.raises(RuntimeError, match="the disk is gone"):
        _run(out, observer, after=after + 2, **options).fit()  # two looks at the data before the first step
    before = len(_rows(out))
    # Steps were written beyond the checkpoint (or before there was one), and will be again.
    assert before % 7
    assert (before > 7) == (after == 18)
    resumed = _run(out, "tensorboard", resume="auto", **options)
    assert resumed.start == (14 if after == 18 else 0)
    resumed.fit()
    assert len(list((out / "tensorboard").iterdir())) == 2
    _check(out, 25)


def test_without_a_folder_it_says_so_and_the_run_goes_on() -> None:
    with pytest.warns(
        UserWarning,
        match=r"TensorBoard failed in run_started .*: `out` must be a folder for the observer `tensorboard`, got None",
    ):
        means = _run(None, "tensorboard", epochs=1, warmup_epochs=0).fit()
    assert means["loss"] > 0


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    run = _run(None)
    observer = TensorBoard()
    observer.run_started(kt.Progress(1, 1, 2, False, tmp_path, 0, run.method, 1, run.data))
    observer.step_ended({"step": 0, "epoch": 0, "loss": 1.0})
    observer.run_ended(None)
    assert not list(tmp_path.iterdir())


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'tensorboard'", name="tensorboard")

    monkeypatch.setattr("kontrast.optional.import_module", missing)
    with pytest.raises(
        kt.MissingExtraError,
        match=r"the observer `tensorboard` needs the package `tensorboard`, .* `pip install 'kontrast\[tensorboard\]'`",
    ):
        _run(None, "tensorboard")
