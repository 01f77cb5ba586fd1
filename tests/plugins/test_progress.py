"""The progress bar in a terminal and elsewhere, from the start and after a resume."""

import re
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

import kontrast as kt
from kontrast.plugins import progress
from kontrast.plugins.objectives import NTXent
from kontrast.plugins.progress import ProgressBar, stderr_console


class Same(kt.Augmenter):
    def forward(self, batch: kt.Batch, draws: kt.Draws) -> list[kt.View]:
        return [kt.View.of(batch, batch.inputs), kt.View.of(batch, 2 * batch.inputs)]


def _method() -> kt.Method:
    torch.manual_seed(0)
    return kt.Method(nn.Linear(3, 2), sampler=kt.InBatch(), objective=NTXent())


def _console(terminal: bool, width: int = 100) -> tuple[Console, StringIO]:
    text = StringIO()
    return Console(file=text, force_terminal=terminal, width=width, color_system=None, legacy_windows=False), text


def _progress(epochs: int, *, start: int = 0, main: bool = True) -> kt.Progress:
    return kt.Progress(epochs, 4, 1, main, None, start, _method(), 4 * epochs, kt.ArrayData(torch.ones(4, 3)))


def _drive(bar: ProgressBar, progress: kt.Progress, until: int, error: BaseException | None = None) -> None:
    """Call the turns as a run does, up to step `until`."""
    bar.run_started(progress)
    for step in range(progress.start, until):
        bar.step_ended({"step": step, "epoch": step // 4, "loss": 1 / (step + 1)})
        if step % 4 == 3:
            bar.epoch_ended(step // 4, {"loss": 1 / (step + 1)})
    bar.run_ended(error)


def _last_bar(text: StringIO) -> str:
    """The bar as it stands at the end, without control sequences."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.getvalue())
    return [line for line in re.split(r"[\r\n]", plain) if "loss" in line][-1]


def test_in_a_terminal_the_bar_shows_epoch_steps_and_loss() -> None:
    console, text = _console(terminal=True)
    _drive(ProgressBar(console), _progress(3), 12)
    assert re.fullmatch(r"epoch 3 .*12/12 \S+ loss 0\.0833\s*", _last_bar(text))
    assert text.getvalue().count("epoch 1/3") == 0  # no lines beside the bar


def test_after_a_resume_the_bar_goes_on_where_it_was() -> None:
    console, text = _console(terminal=True)
    _drive(ProgressBar(console), _progress(3, start=6), 6)
    assert re.fullmatch(r"epoch 2 .* 6/12 \S+ loss -\s*", _last_bar(text))
    console, text = _console(terminal=True)
    _drive(ProgressBar(console), _progress(3, start=6), 9, RuntimeError("lost"))
    assert re.fullmatch(r"epoch 3 .* 9/12 \S+ loss 0\.1111\s*", _last_bar(text))
    assert text.getvalue().endswith("\x1b[?25h")  # the cursor is back, also after an error


def test_a_run_that_was_done_is_resumed_to_a_full_bar() -> None:
    console, text = _console(terminal=True)
    _drive(ProgressBar(console), _progress(3, start=12), 12)
    assert re.fullmatch(r"epoch 3 .*12/12 \S+ loss -\s*", _last_bar(text))


def test_elsewhere_there_is_a_plain_line_per_epoch() -> None:
    console, text = _console(terminal=False, width=20)
    _drive(ProgressBar(console), _progress(3), 12)
    lines = text.getvalue().splitlines()
    assert [re.sub(r"\d+\.\d s$", "T", line) for line in lines] == [
        "epoch 1/3  loss 0.2500  T",
        "epoch 2/3  loss 0.1250  T",
        "epoch 3/3  loss 0.0833  T",
    ]
    assert "\x1b" not in text.getvalue()


def test_elsewhere_a_resumed_run_says_where_it_is() -> None:
    console, text = _console(terminal=False)
    _drive(ProgressBar(console), _progress(3, start=6), 12)
    first, *others = text.getvalue().splitlines()
    assert first == "resumed after step 6 of 12"
    assert [line.split("  ")[0] for line in others] == ["epoch 2/3", "epoch 3/3"]


@pytest.mark.parametrize(("epochs", "lines"), [(1, 1), (20, 20), (21, 11), (39, 20), (100, 20), (999, 20)])
def test_many_epochs_are_at_most_twenty_lines_the_last_among_them(epochs: int, lines: int) -> None:
    console, text = _console(terminal=False)
    _drive(ProgressBar(console), _progress(epochs), 4 * epochs)
    shown = text.getvalue().splitlines()
    assert len(shown) == lines
    assert shown[-1].startswith(f"epoch {epochs}/{epochs}  ")


def test_elsewhere_no_minute_passes_without_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("kontrast.plugins.progress.time.monotonic", lambda: now[0])
    console, text = _console(terminal=False)
    bar = ProgressBar(console)
    bar.run_started(kt.Progress(1, 1000, 1, True, None, 100, _method(), 1000, kt.ArrayData(torch.ones(4, 3))))
    for step in range(100, 1000):
        now[0] += 25.0  # a step
        bar.step_ended({"step": step, "epoch": 0, "loss": 0.5})
    bar.epoch_ended(0, {"loss": 0.5})
    first, *lines, last = text.getvalue().splitlines()
    assert first == "resumed after step 100 of 1000"
    assert len(lines) == 300  # of three steps each
    assert lines[0] == "step 103/1000  loss 0.5000  75.0 s, 6 h 14 min left"
    assert lines[1] == "step 106/1000  loss 0.5000  150.0 s, 6 h 12 min left"
    assert lines[-1] == "step 1000/1000  loss 0.5000  6 h 15 min, 0.0 s left"
    assert last == "epoch 1/1  loss 0.5000  6 h 15 min"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (599.9, "599.9 s"), (601, "10 min"), (3599, "1 h 00 min")]
)
def test_lengths_of_time(seconds: float, text: str) -> None:
    assert progress._span(seconds) == text


@pytest.mark.parametrize("terminal", [True, False])
def test_other_processes_are_silent(terminal: bool) -> None:
    console, text = _console(terminal)
    _drive(ProgressBar(console), _progress(3, start=2, main=False), 12)
    assert text.getvalue() == ""


@pytest.mark.parametrize("terminal", [True, False])
def test_a_real_run_and_its_resume(tmp_path: Path, terminal: bool) -> None:
    def run(epochs: int, **options: Any) -> str:
        console, text = _console(terminal)
        data = kt.ArrayData(torch.randn(8, 3, generator=torch.Generator().manual_seed(0)))
        kt.Run(
            _method(),
            data,
            augmenter=Same(),
            epochs=epochs,
            batch_size=4,
            device="cpu",
            out=tmp_path / "run",
            observers=(ProgressBar(console),),
            **options,
        ).fit()
        return _last_bar(text)

    end = r"epoch 2 .*4/4 \S+ loss 0\.\d{4}\s*" if terminal else r"epoch 2/2  loss \d\.\d{4}  \d+\.\d s"
    assert re.fullmatch(end, run(2))
    _, newest = sorted((tmp_path / "run" / "checkpoints").iterdir())
    newest.unlink()
    assert re.fullmatch(end, run(2, resume="auto"))


def test_by_default_it_prints_on_the_console_that_observers_share(capsys: pytest.CaptureFixture[str]) -> None:
    assert stderr_console() is stderr_console()
    _drive(ProgressBar(), _progress(1), 4)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "epoch 1/1  loss 0.2500" in captured.err
