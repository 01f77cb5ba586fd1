"""A run that is stopped, whatever by, goes on as if it had not been; what is no checkpoint is refused."""

import json
import multiprocessing
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import torch
from fresh import python
from gloo import GlooPool
from torch import Tensor, nn

import kontrast as kt
from kontrast.checkpoint import VERSION, Checkpoints
from kontrast.plugins.objectives import InfoNCE
from kontrast.run_folder import CheckpointWarning, RunFolder

KILLING = Path(__file__).parent / "killing.py"


def _killed(folder: Path, world: int, kills: int, how: str = "all") -> dict[str, Any]:
    # A new process: loader workers of a forked one start slowly, and all kills would come before the first checkpoint.
    command = [sys.executable, "-P", str(KILLING), str(folder), str(world), str(kills), "0", how]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=540, env=environment)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    print(found)
    assert found["kills"] == kills
    assert max(found["reached"]) > 0, "no run had saved anything when it was killed"
    assert found["equal"], "the weights differ from those of the run that was left alone"
    assert found["steps"], "the metrics do not hold each step once"
    return dict(found)


@pytest.mark.parametrize("world", [1, 2])
def test_a_run_killed_at_random_moments_ends_bit_for_bit_as_one_left_alone(tmp_path: Path, world: int) -> None:
    _killed(tmp_path, world, 5)


def test_when_one_process_is_killed_the_other_ends_by_itself_names_it_and_the_resumed_run_is_the_same(
    tmp_path: Path,
) -> None:
    found = _killed(tmp_path, 2, 3, "one")
    assert len(found["survived"]) == 3
    assert max(found["survived"]) < 60


@pytest.mark.slow
def test_a_run_with_loader_workers_and_gradient_caching_is_killed_and_ends_the_same(tmp_path: Path) -> None:
    _killed(tmp_path, 2, 3, "loaded")


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2])
def test_a_run_killed_at_fifty_random_moments(tmp_path: Path, world: int) -> None:
    found = _killed(tmp_path, world, 50)
    assert found["torn"] > 0, "no kill fell into the writing of a checkpoint"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["one", "loaded"])
def test_a_run_of_two_processes_killed_at_twenty_random_moments(tmp_path: Path, how: str) -> None:
    _killed(tmp_path, 2, 20, how)


class Stop(kt.Observer):
    """Sends its own process a signal, or raises, after a step."""

    def __init__(self, step: int, number: int) -> None:
        self.step, self.number = step, number

    def step_ended(self, metrics: Mapping[str, float]) -> None:
        if metrics["step"] == self.step:
            os.kill(os.getpid(), self.number)


class Stateful(kt.Augmenter):
    """Remembers how often it was called, and draws from every generator there is."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, batch: kt.Batch, draws: kt.Draws) -> list[kt.View]:
        import random

        import numpy as np

        self.calls += 1
        shift = float(self.calls) * 0.01 + random.random() * 0.1 + float(np.random.rand()) * 0.1
        return [kt.View.of(batch, batch.inputs + shift * torch.rand_like(batch.inputs)) for _ in range(2)]


def _run(out: Path | None = None, **options: Any) -> kt.Run:
    torch.manual_seed(0)
    method = kt.Method(
        kt.as_encoder(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.1)), 8),
        target=kt.Momentum(0.9),
        sampler=kt.Queue(kt.InBatch(), size=20),
        objective=InfoNCE(),
    )
    data = kt.ArrayData(torch.randn(24, 4, generator=torch.Generator().manual_seed(0)))
    settings: dict[str, Any] = {"epochs": 4, "batch_size": 8, "device": "cpu", "observers": (), "resume": "auto"}
    return kt.Run(method, data, augmenter=Stateful(), out=out, **{**settings, **options})


def _weights(run: kt.Run) -> Tensor:
    state = run.method.state_dict()
    return torch.cat([value.double().flatten() for value in state.values() if isinstance(value, Tensor)])


def _seed_everything() -> None:
    import random

    import numpy as np

    random.seed(3)
    np.random.seed(3)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("step", [1, 3])  # amid an epoch, and after the first step of one
def test_a_signal_saves_and_leaves_and_the_resumed_run_ends_the_same(
    tmp_path: Path, number: signal.Signals, step: int, capsys: pytest.CaptureFixture[str]
) -> None:
    _seed_everything()
    alone = _run(tmp_path / "alone")
    means = alone.fit()
    _seed_everything()
    with pytest.raises(SystemExit) as left:
        _run(tmp_path / "stopped", log_every=1, observers=(Stop(step - 1, number),)).fit()
    assert left.value.code == 128 + number
    assert f"{number.name} after step {step + 1}; saved in {tmp_path / 'stopped'}" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert not (tmp_path / "stopped" / "encoder.safetensors").exists()
    resumed = _run(tmp_path / "stopped")
    assert resumed.start == step + 1
    assert resumed.fit() == means
    assert torch.equal(_weights(resumed), _weights(alone))
    logs = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("alone", "stopped")]
    assert logs[0] == logs[1]
    assert (tmp_path / "stopped" / "encoder.safetensors").exists()


def test_the_newest_checkpoints_are_kept_and_a_finished_run_resumes_to_its_end(tmp_path: Path) -> None:
    _run(tmp_path, keep_checkpoints=3).fit()
    names = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    assert sorted(names) == [f"step-{step:09d}.pt" for step in (6, 9, 12)]
    before = (tmp_path / "metrics.jsonl").read_text()
    again = _run(tmp_path)
    assert again.start == 12
    assert again.fit()["loss"] > 0
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_every_start_is_written_down(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        _run(tmp_path, log_every=1, observers=(Stop(4, signal.SIGTERM),)).fit()
    _run(tmp_path)  # one that takes no step is none
    _run(tmp_path).fit()
    starts = [json.loads(line) for line in (tmp_path / "environment.jsonl").read_text().splitlines()]
    assert [(start["step"], start["processes"]) for start in starts] == [(0, 1), (6, 1)]
    assert starts[0]["time"] <= starts[1]["time"]
    assert starts[1]["versions"]["torch"] == version("torch")


def test_metrics_cut_off_in_mid_line_are_taken_up(tmp_path: Path) -> None:
    _run(tmp_path / "alone").fit()
    with pytest.raises(SystemExit):
        _run(tmp_path / "cut", log_every=1, observers=(Stop(4, signal.SIGTERM),)).fit()
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as log:
        log.write('{"step": 5, "epoch": 1, "learning_rate": 0.00')
    _run(tmp_path / "cut").fit()
    rows = [json.loads(line) for line in (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(12))


def test_a_run_without_resume_leaves_the_folder_alone(tmp_path: Path) -> None:
    _run(tmp_path).fit()
    with pytest.raises(kt.RunFolderError, match=r"holds one; choose another, remove it, or resume it"):
        _run(tmp_path, resume="never")


def test_fitting_again_does_nothing_and_after_a_stop_goes_on(tmp_path: Path) -> None:
    run = _run(tmp_path, log_every=1, observers=(Stop(3, signal.SIGINT),))
    with pytest.raises(SystemExit):
        run.fit()
    means = run.fit()
    weights = _weights(run)
    assert run.fit() == means
    assert torch.equal(_weights(run), weights)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(12))


class Odd(nn.Module):
    """Keeps a state that only running code could restore."""

    def forward(self, rows: Tensor) -> Tensor:
        return rows

    def get_extra_state(self) -> object:
        return Fraction(1, 2)

    def set_extra_state(self, state: object) -> None:
        pass


def test_state_that_could_not_be_loaded_is_refused_when_it_is_first_saved(tmp_path: Path) -> None:
    method = kt.Method(nn.Sequential(nn.Linear(4, 3), Odd()), sampler=kt.InBatch(), objective=InfoNCE())
    data = kt.ArrayData(torch.randn(24, 4))
    run = kt.Run(method, data, augmenter=Stateful(), epochs=2, batch_size=8, out=tmp_path, device="cpu", observers=())
    with pytest.raises(kt.CheckpointError, match="the state of every part must be tensors and plain values"):
        run.fit()
    assert not list((tmp_path / "checkpoints").iterdir())


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    _run(tmp_path).fit()
    newest = _newest(tmp_path)
    with ZipFile(newest) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
        content = archive.read(largest)
    damaged = bytearray(newest.read_bytes())
    damaged[damaged.index(content) + len(content) // 2] ^= 64
    newest.write_bytes(bytes(damaged))
    with pytest.raises(kt.CheckpointError, match="is truncated or damaged"):
        _run(tmp_path)


class StopJob(Stop):
    """Has another process signal the loader processes, as a scheduler does, and steps later its own.

    In between the run needs more batches than are loaded ahead.
    """

    def run_started(self, progress: kt.Progress) -> None:
        self.others = set(multiprocessing.active_children())

    def step_ended(self, metrics: Mapping[str, float]) -> None:
        if metrics["step"] == self.step - 9:
            loaders = set(multiprocessing.active_children()) - self.others
            assert len(loaders) == 2
            # Not by `os.kill` from here: torch's loader processes take a SIGTERM of their parent for a friendly end.
            send = f"import os; [os.kill(pid, {int(self.number)}) for pid in {[child.pid for child in loaders]}]"
            subprocess.run([sys.executable, "-S", "-c", send], check=True)
        super().step_ended(metrics)


@pytest.fixture
def start_method(request: pytest.FixtureRequest) -> Iterator[str]:
    """How processes are started: a forked one has the run's handlers of signals, one of a fork server has not."""
    multiprocessing.set_start_method(request.param, force=True)
    yield request.param
    multiprocessing.set_start_method(None, force=True)


@pytest.mark.parametrize(
    ("number", "start_method"),
    [(signal.SIGTERM, "fork"), (signal.SIGINT, "forkserver")],
    indirect=["start_method"],
)
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.usefixtures("start_method")
def test_a_signal_to_the_whole_job_does_not_take_the_loader_from_the_run(
    tmp_path: Path, number: signal.Signals
) -> None:
    stop = StopJob(12, number)
    with pytest.raises(SystemExit) as left:
        _run(tmp_path, log_every=1, workers=2, epochs=20, observers=(stop,)).fit()
    assert left.value.code == 128 + number
    assert _newest(tmp_path).name == "step-000000014.pt"
    assert set(multiprocessing.active_children()) == stop.others


@pytest.mark.parametrize("rest", [b"\0" * 40, b"\0\xff}\n", b'{"step": 5}', b"[]\n", b'{"step": 5, "lo\n'])
def test_what_a_power_cut_left_of_the_metrics_is_cut_off(tmp_path: Path, rest: bytes) -> None:
    file = tmp_path / "metrics.jsonl"
    lines = b"".join(b'{"step": %d}\n' % step for step in range(5))
    file.write_bytes(lines + rest + b'{"step": 6}\n')
    RunFolder(tmp_path, {}).reopen(5)
    assert file.read_bytes() == lines
    RunFolder(tmp_path, {}).reopen(3)
    assert file.read_bytes() == lines[: 3 * len(lines) // 5]
    with pytest.warns(CheckpointWarning, match="holds 3 of the 4 steps that are done"):
        RunFolder(tmp_path, {}).reopen(4)


def test_no_checkpoint_without_the_metrics_before_it(tmp_path: Path) -> None:
    """A folder stands where metrics go: they cannot be written, while a checkpoint could."""
    folder, checkpoints = RunFolder(tmp_path, {}), Checkpoints(tmp_path / "checkpoints")
    folder.claim()
    file = tmp_path / "metrics.jsonl"
    for step in (0, 2):  # it is said each time, not once in a run of weeks
        folder.log({"step": step})
        before = file.read_text()
        file.unlink()
        file.mkdir()
        with pytest.warns(CheckpointWarning, match="metrics could not be written"):
            folder.log({"step": step + 1})
        with pytest.warns(CheckpointWarning, match=f"no checkpoint could be written after step {step + 2}"):
            assert not folder.save_checkpoint(checkpoints, step + 2, {})
        assert not list(tmp_path.glob("checkpoints/*"))
        file.rmdir()
        file.write_text(before)
    assert folder.save_checkpoint(checkpoints, 4, {})
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == list(range(4))


@pytest.mark.filterwarnings("ignore:no checkpoint could be written:UserWarning")
def test_a_full_disk_keeps_metrics_and_says_what_was_not_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    run = _run(tmp_path, log_every=1, checkpoint_every=100, observers=(Stop(5, signal.SIGTERM),))
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (600, limit[1]))
        with (
            pytest.warns(UserWarning, match=r"metrics could not be written .*; they are kept"),
            pytest.raises(SystemExit),
        ):
            run.fit()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert "nothing could be saved" in capsys.readouterr().err
    run.fit()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(12))


class Payload:
    """Would write a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.path, "executed"))


def _newest(folder: Path) -> Path:
    return Checkpoints(folder / "checkpoints").paths()[-1]


def test_what_is_no_checkpoint_is_refused_with_what_to_do(tmp_path: Path) -> None:
    _run(tmp_path).fit()
    newest = _newest(tmp_path)
    whole = newest.read_bytes()

    def refused(sentence: str) -> None:
        before = sorted(path.name for path in tmp_path.rglob("*"))
        with pytest.raises(kt.CheckpointError, match=sentence):
            _run(tmp_path)
        assert sorted(path.name for path in tmp_path.rglob("*")) == before

    for length in (0, 100, len(whole) // 2, len(whole) - 10):
        newest.write_bytes(whole[:length])
        refused("must be a whole checkpoint, and is truncated or damaged; remove it to resume from step-000000009.pt")
    torch.save({"state_dict": {"weight": torch.ones(2)}}, newest)
    refused("must be a checkpoint of kontrast, and was written by something else")
    torch.save({"format": "kontrast-checkpoint", "version": VERSION - 1}, newest)
    refused(
        f"must be a checkpoint of version {VERSION}, got version {VERSION - 1}; resume with the kontrast that wrote"
    )
    for save in (lambda value: torch.save(value, newest), lambda value: newest.write_bytes(pickle.dumps(value))):
        save({"format": "kontrast-checkpoint", "version": VERSION, "trap": Payload(tmp_path / "trap")})
        refused("holds objects that only running code could restore, which is refused|truncated or damaged")
    assert not (tmp_path / "trap").exists()
    newest.unlink()
    assert _run(tmp_path).start == 9


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batch_size": 12}, "differs in batch_size was 8 and is 12; resume with the settings it was started with"),
        ({"seed": 4}, "differs in seed was 0 and is 4"),
        ({"optimizer": kt.SGD(0.1)}, r"differs in optimizer was AdamW\(.* and is SGD\("),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, options: dict[str, Any], sentence: str) -> None:
    _run(tmp_path).fit()
    with pytest.raises(kt.CheckpointError, match=sentence):
        _run(tmp_path, **options)


def test_a_full_disk_leaves_the_checkpoint_before_it_and_is_said(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        _run(tmp_path, log_every=1, observers=(Stop(2, signal.SIGTERM),)).fit()
    before = _newest(tmp_path).read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        # No file may grow beyond this: a checkpoint's writing fails as on a full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limit[1]))
        with pytest.warns(UserWarning, match=r"no checkpoint could be written .*; the newest is still step-000000004"):
            _run(tmp_path).fit()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-000000003.pt", "step-000000004.pt"]
    assert _newest(tmp_path).read_bytes() == before
    assert _run(tmp_path).start == 4


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    class Spoil(kt.Observer):
        """Ruins a weight after the fourth step."""

        def run_started(self, progress: kt.Progress) -> None:
            self.method = progress.method

        def step_ended(self, metrics: Mapping[str, float]) -> None:
            if metrics["step"] == 3:
                with torch.no_grad():
                    next(self.method.parameters()).fill_(torch.inf)

    with pytest.raises(kt.NonFiniteLossError, match="weights must be finite to be saved, and after step 4 some"):
        _run(tmp_path, log_every=1, checkpoint_every=1, observers=(Spoil(),)).fit()
    assert [path.name for path in Checkpoints(tmp_path / "checkpoints").paths()][-1] == "step-000000003.pt"
    assert not (tmp_path / "encoder.safetensors").exists()


class StopRank(Stop):
    """Sends the signal to one rank alone."""

    def step_ended(self, metrics: Mapping[str, float]) -> None:
        if kt.rank() == 1:
            super().step_ended(metrics)


def _signalled(out: str) -> tuple[int, Any]:
    with pytest.raises(SystemExit) as left:
        _run(Path(out), log_every=1, observers=(StopRank(3, signal.SIGINT),)).fit()
    resumed = _run(Path(out))
    start = resumed.start
    resumed.fit()
    return start, left.value.code


def test_all_ranks_leave_after_the_same_step_when_one_is_asked_to(tmp_path: Path, gloo: GlooPool) -> None:
    assert gloo.run(2, _signalled, str(tmp_path)) == [(5, 130)] * 2
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(12))


class Slow(kt.Encoder):
    """Takes its time, and asks its own process to stop in the fourth step if that is rank 1."""

    representation_size = 8

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.calls = nn.Linear(4, 8), 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == 4 and kt.rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.3)
        rows: Tensor = self.layer(inputs)
        return rows


def _slow(out: str) -> tuple[int, Any]:
    method = kt.Method(Slow(), sampler=kt.InBatch(), objective=InfoNCE(), joint_forward=True)
    data = kt.ArrayData(torch.randn(24, 4, generator=torch.Generator().manual_seed(0)))
    run = kt.Run(
        method, data, augmenter=Stateful(), epochs=20, batch_size=8, log_every=100, out=out, device="cpu", observers=()
    )
    with pytest.raises(SystemExit) as left:
        run.fit()
    return run.start, left.value.code


def test_ranks_with_slow_steps_stop_within_a_few_of_them(tmp_path: Path, gloo: GlooPool) -> None:
    (start, code), other = gloo.run(2, _slow, str(tmp_path))
    assert other == (start, code)
    assert code == 128 + signal.SIGTERM
    assert 4 <= start <= 8  # they ask each other about once a second: every third step
    assert Checkpoints(tmp_path / "checkpoints").paths()[-1].name == f"step-{start:09d}.pt"
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == start


def _resumed(out: str, any_world: bool) -> int:
    run = _run(Path(out), any_world=any_world)
    start = run.start
    run.fit()
    return start


def test_another_number_of_processes_is_taken_only_on_request(tmp_path: Path, gloo: GlooPool) -> None:
    with pytest.raises(SystemExit):
        _run(tmp_path, log_every=1, observers=(Stop(3, signal.SIGTERM),)).fit()
    with pytest.raises(AssertionError, match="must be resumed by 1 processes, got 2; start as many, or allow another"):
        gloo.run(2, _resumed, str(tmp_path), False)
    assert gloo.run(2, _resumed, str(tmp_path), True) == [5, 5]


RANK = """
import os, signal, sys, torch
sys.path.insert(0, sys.argv[2])
from test_resume import _run
import kontrast as kt
from pathlib import Path

class Die(kt.Observer):
    def step_ended(self, metrics):
        if metrics["step"] == 5 and kt.rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)

_run(Path(sys.argv[1]), log_every=1, epochs=2000, warmup_epochs=1, observers=(Die(),)).fit()
"""


def test_a_rank_that_dies_ends_the_others_and_is_named(tmp_path: Path) -> None:
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    torchrun = ("-m", "torch.distributed.run", "--nproc-per-node", "2")
    here = Path(__file__).parent
    environment = {"PYTHONPATH": str(here.parent)}
    started = time.monotonic()
    result = python(*torchrun, str(script), str(tmp_path / "out"), str(here), environment=environment, timeout=120)
    assert result.returncode != 0
    assert time.monotonic() - started < 60
    assert "rank      : 1 (local_rank: 1)" in result.stderr  # torchrun's own summary of the first failure
    assert Checkpoints(tmp_path / "out" / "checkpoints").paths()
