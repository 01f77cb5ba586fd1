"""kNN accuracy during training: what it measures, and that training does not notice."""

import json
import random
from collections import Counter
from contextlib import nullcontext
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gloo import GlooPool
from rich.console import Console
from torch import Tensor, nn

import kontrast as kt
from kontrast.evaluate import knn
from kontrast.plugins.objectives import NTXent
from kontrast.plugins.online_knn import OnlineKNN


def _data(samples: int, seed: int = 0, classes: int = 3) -> kt.ArrayData:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (samples,), generator=generator)
    return kt.ArrayData(torch.eye(4)[labels] + 0.5 * torch.randn(samples, 4, generator=generator), labels)


TRAIN, TEST = _data(40, 0), _data(24, 1)


class Rolling(kt.Encoder):
    """Draws from every global generator, in any mode, and remembers the modes it was called in."""

    representation_size = 6

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 6)
        self.norm = nn.BatchNorm1d(6)
        self.dropout = nn.Dropout(0.2)
        self.frozen = nn.BatchNorm1d(6)

    def forward(self, inputs: Tensor) -> Tensor:
        drawn = random.random() + np.random.rand() + torch.rand(()).item()
        result: Tensor = self.frozen(self.dropout(self.norm(self.linear(inputs))))
        return result * (1 + 1e-3 * drawn)


class Noise(kt.Augmenter):
    def forward(self, batch: kt.Batch, draws: kt.Draws) -> list[kt.View]:
        return [kt.View.of(batch, batch.inputs + 0.1 * draws.uniform(batch.ids, 4, view=view)) for view in range(2)]


def _run(*observers: str | kt.Observer, data: kt.Data = TRAIN, **options: Any) -> kt.Run:
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    method = kt.Method(Rolling(), projector=nn.Linear(6, 3), sampler=kt.InBatch(), objective=NTXent())
    settings: dict[str, Any] = {"epochs": 4, "batch_size": 8, "device": "cpu", "observers": observers}
    return kt.Run(method, data, augmenter=Noise(), **{**settings, **options})


def _observer(train: kt.Data = TRAIN, test: kt.Data = TEST, **options: Any) -> tuple[OnlineKNN, StringIO]:
    text = StringIO()
    return OnlineKNN(train, test, console=Console(file=text, width=20), **options), text


def _state(run: kt.Run) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in run.method.state_dict().items()}


class Modes(kt.Observer):
    """Freezes a batch norm for the run, and looks at the modes after the observer before it."""

    def run_started(self, progress: kt.Progress) -> None:
        self.method = progress.method
        self.method.encoder.get_submodule("frozen").eval()
        self.seen: list[list[bool]] = [[part.training for part in self.method.modules()]]

    def epoch_ended(self, epoch: int, metrics: Any) -> None:
        self.seen.append([part.training for part in self.method.modules()])


def test_training_is_the_same_bit_for_bit_with_and_without_it() -> None:
    observer, _ = _observer(size=20)
    modes = Modes()
    plain, watched = _run(Modes()), _run(observer, modes)
    # The generators' state at the end shows what the weights may not.
    ends = []
    for run in (plain, watched):
        random.seed(0)
        np.random.seed(0)
        means = run.fit()
        ends.append((means, random.random(), np.random.rand(), torch.rand(3).tolist(), _state(run)))
    assert len(observer.history) == 4
    assert ends[0][:-1] == ends[1][:-1]
    for name, value in ends[0][-1].items():
        assert torch.equal(value, ends[1][-1][name]), name
    assert len({tuple(seen) for seen in modes.seen}) == 1
    assert True in modes.seen[0]
    assert False in modes.seen[0]


class Fixed(kt.Observer):
    """Evaluates at the end of each epoch what the observer under test should have found."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def run_started(self, progress: kt.Progress) -> None:
        self.method = progress.method

    def epoch_ended(self, epoch: int, metrics: Any) -> None:
        self.found.append(knn(self.method.encoder, TRAIN, TEST, k=5))


def test_it_finds_what_evaluation_finds_and_says_it(tmp_path: Path) -> None:
    observer, text = _observer(every=2, k=5)
    oracle = Fixed()
    _run(observer, oracle, out=tmp_path / "run").fit()
    assert observer.history == [(1, oracle.found[1]), (3, oracle.found[3])]
    assert 40 < oracle.found[3] <= 100
    lines = (tmp_path / "run" / "online_knn.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"epoch": e, "knn": v} for e, v in observer.history]
    assert text.getvalue().splitlines() == [f"epoch {e + 1}/4  kNN {v:.1f} %" for e, v in observer.history]
    assert [path.name for path in tmp_path.rglob("*.part")] == []


def test_without_a_folder_it_keeps_the_history_alone() -> None:
    observer, _ = _observer(every=4)
    _run(observer).fit()
    assert [epoch for epoch, _ in observer.history] == [3]


class Counting(kt.ArrayData):
    """Counts what it is asked for; carries labels on its batches alone when told to."""

    def __init__(self, like: kt.ArrayData, *, hide: bool = False, fail_at: int | None = None) -> None:
        super().__init__(like.inputs, like.labels)
        self.asked: list[list[int]] = []
        self._hidden = self.labels
        self._fail_at = fail_at
        if hide:
            self.labels = None

    def batch(self, indices: Tensor) -> kt.Batch:
        self.asked.append(indices.tolist())
        if len(self.asked) == self._fail_at:
            raise RuntimeError("the disk is gone")
        return kt.Batch(self.inputs[indices], indices, None if self._hidden is None else self._hidden[indices])


@pytest.mark.parametrize("hide", [False, True])
def test_it_looks_at_a_fixed_balanced_part(hide: bool) -> None:
    # 90 of class 0, 20 of class 1, 2 of class 2, and some without a label.
    labels = torch.tensor([0] * 90 + [1] * 20 + [2] * 2 + [-1] * 30)
    data = kt.ArrayData(torch.randn(len(labels), 4, generator=torch.Generator().manual_seed(0)), labels)
    parts = []
    for seed in (0, 0, 1):
        train = Counting(data, hide=hide)
        observer, _ = _observer(train, TEST, size=31, k=3, seed=seed, batch_size=8)
        whole = len(train.asked)
        assert (whole > 0) == hide  # labels that are there need not be read with the samples
        _run(observer, epochs=2, warmup_epochs=0).fit()
        first, second = train.asked[whole : whole + 4], train.asked[whole + 4 :]
        assert first == second
        assert max(len(batch) for batch in first) == 8
        parts.append([index for batch in first for index in batch])
    assert parts[0] == parts[1] == sorted(parts[0])
    assert parts[0] != parts[2]
    for part in parts:
        assert len(part) == len(set(part)) == 31
        counts = Counter(labels[part].tolist())
        assert counts[2] == 2
        assert sorted((counts[0], counts[1])) == [14, 15]
        assert max(part) > 93  # not the first of each class


def test_by_name_it_judges_one_half_of_the_runs_own_data_by_the_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # 25 of each of two classes, one of a third, and some without a label.
    labels = torch.tensor([0, 1] * 25 + [2] + [-1] * 9)
    data = Counting(kt.ArrayData(_data(60).inputs, labels), hide=True)
    run = _run("online-knn", data=data, out=tmp_path, epochs=2, warmup_epochs=0, batch_size=60)
    before = len(data.asked)
    run.fit()
    assert data.asked[before] == list(range(60))  # for the labels
    first, second, *rest = [asked for asked in data.asked[before + 1 :] if len(asked) < 60]
    assert rest == [first, second]
    assert Counter(labels[first].tolist()) == {0: 13, 1: 13, 2: 1}
    assert Counter(labels[second].tolist()) == {0: 12, 1: 12}
    assert not set(first) & set(second)
    found = [json.loads(line) for line in (tmp_path / "online_knn.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in found] == [0, 1]
    assert "epoch 2/2  kNN" in capsys.readouterr().err


def test_by_name_its_memory_is_bounded() -> None:
    labels = torch.arange(3).repeat(5000)
    data = Counting(kt.ArrayData(torch.zeros(15000, 4), labels))
    _run("online-knn", data=data, epochs=1, warmup_epochs=0, batch_size=15000).fit()
    asked = [len(asked) for asked in data.asked if len(asked) < 15000]
    assert sum(asked) == 8192
    assert max(asked) == 512


def test_without_labels_it_is_left_out_with_its_reason() -> None:
    with pytest.warns(kt.KontrastWarning, match="OnlineKNN failed in run_started .* needs labels"):
        _run("online-knn", data=kt.ArrayData(TRAIN.inputs), epochs=1, warmup_epochs=0).fit()
    with pytest.raises(kt.InvalidValueError, match="must be given both or neither"):
        OnlineKNN(TRAIN)


def test_a_small_data_set_is_taken_whole() -> None:
    train, test = Counting(TRAIN), Counting(TEST)
    observer, _ = _observer(train, test)
    _run(observer, epochs=1, warmup_epochs=0).fit()
    assert (train.asked, test.asked) == ([list(range(40))], [list(range(24))])


def test_a_resumed_run_has_each_epoch_once(tmp_path: Path) -> None:
    def fit(name: str, observer: OnlineKNN, fail_at: int | None = None, **options: Any) -> str:
        run = _run(observer, data=Counting(TRAIN, fail_at=fail_at), out=tmp_path / name, checkpoint_every=7, **options)
        with nullcontext() if fail_at is None else pytest.raises(RuntimeError, match="the disk is gone"):
            run.fit()
        return (tmp_path / name / "online_knn.jsonl").read_text()

    whole, _ = _observer()
    text = fit("whole", whole)
    stopped, _ = _observer()
    # Stopped in the third epoch of 5 steps, beyond the checkpoint after step 7: the second epoch is done again.
    partly = fit("cut", stopped, fail_at=16)  # two reads are looks at the data before the first step
    assert [json.loads(line)["epoch"] for line in partly.splitlines()] == [0, 1]
    with (tmp_path / "cut" / "online_knn.jsonl").open("a") as file:
        file.write('{"epoch": 2, "kn')
    resumed, _ = _observer()
    assert fit("cut", resumed, resume="auto") == text
    assert resumed.history == whole.history
    # A run that is started anew in the folder of one without a checkpoint does not keep the other's lines.
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "online_knn.jsonl").write_text('{"epoch": 0, "knn": 1.0}\n')
    again, _ = _observer()
    assert fit("new", again) == text


def _on_two_ranks(watched: bool) -> tuple[list[tuple[int, float]], list[float], int]:
    observer, text = _observer(size=20, k=5)
    run = _run(*([observer] if watched else []))
    run.fit()
    weights = torch.cat([parameter.detach().flatten() for parameter in run.method.parameters()])
    return observer.history, weights.tolist(), len(text.getvalue().splitlines())


def test_the_first_process_alone_evaluates_and_training_does_not_notice(gloo: GlooPool) -> None:
    (history, weights, lines), (other_history, other_weights, other_lines) = gloo.run(2, _on_two_ranks, True)
    assert [epoch for epoch, _ in history] == [0, 1, 2, 3]
    assert (other_history, lines, other_lines) == ([], 4, 0)
    assert weights == other_weights
    assert [plain for _, plain, _ in gloo.run(2, _on_two_ranks, False)] == [weights, weights]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"every": 0}, "`every` must be >= 1, got 0"),
        ({"size": 0}, "`size` must be >= 1, got 0"),
        ({"k": 0}, "`k` must be >= 1, got 0"),
        ({"batch_size": 0}, "`batch_size` must be >= 1, got 0"),
        ({"size": 8, "k": 9}, r"`k` must be at most the number of training samples taken, 8, got 9; take a smaller k"),
        ({"k": 41}, r"`k` must be at most the number of training samples taken, 40, got 41"),
        ({"train": kt.ArrayData(TRAIN.inputs)}, "needs labels in training and test data, and one of them has none"),
        ({"test": kt.ArrayData(TRAIN.inputs)}, "needs labels in training and test data, and one of them has none"),
        ({"test": kt.ArrayData(torch.ones(2, 4), torch.tensor([-1, -1]))}, "a data set has none >= 0"),
    ],
)
def test_what_cannot_be_is_refused_at_construction(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(kt.KontrastError, match=sentence):
        _observer(**options)
