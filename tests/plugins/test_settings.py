"""A run is known by what its parts show of themselves: every option is there, and nothing that training changes."""

import inspect
import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

import kontrast as kt
from kontrast.adapters import graph, timeseries, vision
from kontrast.cli import main
from kontrast.option_types import is_value, parameters
from kontrast.plugins.byol import byol
from kontrast.plugins.cpc import cpc
from kontrast.plugins.graphcl import graphcl
from kontrast.plugins.moco_v2 import moco_v2
from kontrast.plugins.simclr import simclr
from kontrast.plugins.ts2vec import ts2vec

# What has no default, and values that are not found by the default's type.
NEEDED: dict[str, Any] = {"in_channels": 3, "guide": torch.ones(3, 2)}
OTHERS = {"contrast": 2.0, "size": 6, "least_score": 0.1, "match": "labels", "scale": 2.0, "choices": 3}


def _another(entry: inspect.Parameter) -> Any:
    """Return a value that an option may have, and has not by default."""
    default: Any = NEEDED.get(entry.name, entry.default)
    if entry.name in OTHERS:
        return OTHERS[entry.name]
    if choices := get_args(entry.annotation):
        return next(choice for choice in choices if choice != default)
    if isinstance(default, bool):
        return not default
    if isinstance(default, int):
        return default * 2 + (default == 0)
    return default / 2 if default else 0.25


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (kind, name)
        for kind in (kt.AugmenterRecord, kt.EncoderRecord, kt.ObjectiveRecord, kt.SamplerRecord)
        for name in kt.get_records(kind)
    ],
)
def test_every_option_of_what_we_register_is_shown(kind: type[Any], name: str) -> None:
    make = kt.get_record(kind, name).load()
    entries = parameters(make)
    given = {needed: value for needed, value in NEEDED.items() if needed in entries}
    given |= {"inner": kt.InBatch()} if "inner" in entries else {}
    shown = repr(make(**given))
    assert repr(make(**given)) == shown
    for option, entry in entries.items():
        if is_value(entry.annotation):
            assert repr(make(**{**given, option: _another(entry)})) != shown, f"`{option}` is not shown: {shown}"


def test_training_changes_nothing_that_is_shown() -> None:
    """A method that was trained a little goes on as what it was, in a notebook for instance."""
    series = kt.ArrayData(torch.randn(8, 40, 1))
    methods = [
        (
            moco_v2(vision.SmallCNN(1, 2), projection_size=4, queue_size=20),
            vision.load("digits").train,
            vision.AffineViews(),
        ),
        (
            byol(vision.SmallCNN(1, 2), hidden_size=4, projection_size=4),
            vision.load("digits").train,
            vision.AffineViews(),
        ),
        (ts2vec(timeseries.DilatedCNN(1, 8, 4, 2)), series, timeseries.OverlappingCrops()),
        (cpc(timeseries.DilatedCNN(1, 8, 4, 1), hidden_size=4, steps=2), series, kt.Identity(1)),
    ]
    for method, data, augmenter in methods:
        before = repr(method), repr(augmenter)
        kt.Run(method, data, augmenter=augmenter, steps=2, batch_size=8, observers=()).fit()
        assert (repr(method), repr(augmenter)) == before


class Shift(kt.Augmenter):
    """A third party's, which says nothing of itself."""

    def __init__(self, width: float = 0.1, views: tuple[int, ...] = (0, 1)) -> None:
        super().__init__()
        self.width, self.views = width, views
        self._calls = 0

    def forward(self, batch: kt.Batch, draws: kt.Draws) -> list[kt.View]:
        self._calls += 1
        return [kt.View.of(batch, batch.inputs + self.width * view) for view in self.views]


class Pull(kt.Objective):
    """A third party's too."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, pairs: kt.Pairs) -> kt.Loss:
        rows = kt.row_statistics(pairs)
        return kt.Loss.over_rows(-rows.positive_mean, rows.positive_count > 0, weight=self.weight)


def _graphs(ratio: float, out: Path) -> kt.Run:
    return kt.Run(
        graphcl(graph.GIN(1, 4, 2)),
        graph.load("ba2motifs").train,
        augmenter=graph.NodeDropping(ratio),
        **_settings(out),
    )


def _series(std: float, out: Path) -> kt.Run:
    method = simclr(timeseries.DilatedCNN(1, 8, 4, 2), hidden_size=4, projection_size=4)
    data = kt.ArrayData(torch.randn(8, 20, 1, generator=torch.Generator().manual_seed(0)))
    return kt.Run(method, data, augmenter=timeseries.Jitter(std), **_settings(out))


def _rows(width: float, out: Path) -> kt.Run:
    return _third(Shift(width), Pull(), out)


def _weighed(weight: float, out: Path) -> kt.Run:
    return _third(Shift(), Pull(weight), out)


def _third(augmenter: kt.Augmenter, objective: kt.Objective, out: Path) -> kt.Run:
    method = kt.Method(torch.nn.Linear(4, 3), sampler=kt.InBatch(), objective=objective)
    data = kt.ArrayData(torch.randn(8, 4, generator=torch.Generator().manual_seed(0)))
    return kt.Run(method, data, augmenter=augmenter, **_settings(out))


def _settings(out: Path) -> dict[str, Any]:
    return {"steps": 1, "batch_size": 8, "observers": (), "out": out, "resume": "auto", "device": "cpu"}


@pytest.mark.parametrize(
    ("make", "part", "shown"),
    [
        (_graphs, "augmenter", "NodeDropping(num_views=2, ratio={})"),
        (_series, "augmenter", "Jitter(num_views=2, std={})"),
        (_rows, "augmenter", "Shift(width={}, views=(0, 1))"),
        (_weighed, "method", "Pull(weight={})"),
    ],
)
def test_a_run_is_resumed_with_the_settings_it_began_with(make: Any, part: str, shown: str, tmp_path: Path) -> None:
    make(0.1, tmp_path).fit()
    assert shown.format(0.1) in json.loads((tmp_path / "config.json").read_text())[part]
    assert make(0.1, tmp_path).start == 1
    was, now = (re.escape(shown.format(value)) for value in (0.1, 0.5))
    with pytest.raises(kt.CheckpointError, match=rf"differs in {part} was .*{was} and is .*{now}; resume with the"):
        make(0.5, tmp_path)


def test_other_options_of_a_resumed_command_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "graphcl", "--batch_size=500", "--steps=1", "--encoder.hidden_size=4", "--encoder.num_layers=1"]
    command += ["--augmenter", "node-dropping", "--observers=", f"--out={tmp_path / 'run'}", "--resume=auto"]
    assert main([*command, "--augmenter.ratio=0.2"]) == 0
    assert main([*command, "--augmenter.ratio=0.5"]) == 2
    sentence = "augmenter was NodeDropping(num_views=2, ratio=0.2) and is NodeDropping(num_views=2, ratio=0.5)"
    assert sentence in capsys.readouterr().err
