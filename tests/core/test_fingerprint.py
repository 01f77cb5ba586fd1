"""Other data of the same length are not taken for those a run was started with."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gloo import GlooPool
from torch import Tensor, nn
from torch_geometric.data import Data as Graph

import kontrast as kt
from kontrast.adapters.graph import graphs
from kontrast.adapters.timeseries import series
from kontrast.checkpoint import Checkpoints
from kontrast.fingerprint import compare_fingerprints, fingerprint
from kontrast.plugins.objectives import InfoNCE


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


_IMAGES = torch.zeros(300, 1, 16, 16)
_IMAGES[:, :, 4:12, 4:12] = _random(300, 1, 8, 8).abs()


def _arrays(change: Callable[[Tensor], Tensor] = lambda x: x, labels: Any = None, groups: Any = None) -> kt.ArrayData:
    return kt.ArrayData(change(_random(50, 3, 5)), torch.arange(50) % 4 if labels is None else labels, groups)


def _graphs(seed: int = 0, hub: int = 0) -> kt.Data:
    def ring(size: int, number: int) -> Graph:
        places = torch.arange(size)
        edges = torch.stack([places, (places + 1) % size])
        if number == 0 and hub:
            edges[0, 0] = hub
        return Graph(x=_random(size, 2, seed=seed + number), edge_index=torch.cat([edges, edges.flip(0)], 1))

    return graphs([ring(4 + number % 3, number) for number in range(30)])


def _series(seed: int = 0, gap: int = 0) -> kt.Data:
    values = _random(20, 30, 2, seed=seed)
    values[:, gap : gap + 2] = torch.nan
    return series(values)


def _same(first: kt.Data, second: kt.Data) -> str:
    return compare_fingerprints(fingerprint(first), fingerprint(second))


@pytest.mark.parametrize("make", [_arrays, _graphs, _series])
def test_the_same_data_made_again_are_the_same(make: Callable[[], kt.Data]) -> None:
    assert _same(make(), make()) == ""
    assert any(isinstance(part, Tensor) for part in fingerprint(make()).values())


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        (_arrays(), _arrays(lambda x: x * 1.01), "`inputs` has other values"),
        (_arrays(), _arrays(lambda x: x.flip(0)), "`inputs` has other values"),
        (_arrays(), _arrays(lambda x: x.flip(2)), "`inputs` has other values"),
        (kt.ArrayData(_IMAGES), kt.ArrayData(_IMAGES.flip(3)), "`inputs` has other values"),
        (_arrays(), _arrays(lambda x: x[:, :2]), r"`inputs.shape` is 'torch.float32 \[16, 3, 5\]' and .*\[16, 2, 5\]'"),
        (_arrays(), _arrays(lambda x: x.double()), "`inputs.shape` is 'torch.float32"),
        (_arrays(), _arrays(labels=torch.arange(50) // 13), "`labels` has other values"),
        (_arrays(), _arrays(labels=torch.where(torch.arange(50) == 1, 3, torch.arange(50) % 4)), "`data.labels` has"),
        (_arrays(), _arrays(groups=torch.arange(50)), "`groups.* there once and once not|`groups` is None and"),
        (_graphs(), _graphs(seed=1), r"`inputs.*x.* has other values"),
        (_graphs(), _graphs(hub=2), r"`inputs.*edge_index.* has other values"),
        (_series(), _series(seed=1), "`inputs` has other values"),
        (_series(), _series(gap=5), "`inputs` has other values"),
    ],
)
def test_other_data_are_told_apart(first: kt.Data, second: kt.Data, found: str) -> None:
    import re

    assert re.search(found, _same(first, second)), _same(first, second)


def test_rounding_of_another_processor_makes_no_other_data() -> None:
    assert _same(_arrays(), _arrays(lambda x: x * (1 + 2e-7) + 1e-8)) == ""


class Odd:
    """Its inputs are what `make` returns."""

    def __init__(self, make: Callable[[Tensor], Any]) -> None:
        self.make = make

    def __len__(self) -> int:
        return 40

    def batch(self, indices: Tensor) -> kt.Batch:
        return kt.Batch(self.make(indices), indices)


def test_inputs_of_all_sorts() -> None:
    def named(place: str, words: str = "some") -> Odd:
        return Odd(lambda ids: [{"file": f"{place}/{n}.wav", "text": f"{words} {n}", "n": n} for n in ids.tolist()])

    assert _same(named("/scratch/job-1"), named("/scratch/job-2")) == ""  # staged anew for every job
    assert _same(named("/scratch"), named("/scratch", "other")) == "`inputs[0]['text']` has other values"
    drawn = Odd(lambda ids: {"noise": torch.rand(len(ids)), "clean": ids.float()})
    assert {path for path in fingerprint(drawn) if "noise" in path} == {
        "inputs['noise'].shape",
        "inputs['noise'].missing",
    }
    assert _same(drawn, drawn) == ""
    bits = Odd(
        lambda ids: (
            ids > 3,
            ids.bfloat16(),
            ids.to(torch.complex64),
            torch.eye(len(ids)).to_sparse(),
            torch.zeros(16, 0),
        )
    )
    assert _same(bits, bits) == ""
    assert _same(bits, Odd(lambda ids: (ids > 9, *bits.make(ids)[1:]))) == "`inputs[0]` has other values"


def test_what_is_kept_is_small_however_large_a_sample_is() -> None:
    large = fingerprint(Odd(lambda ids: torch.ones(3_000_000)))
    assert sum(part.numel() for part in large.values() if isinstance(part, Tensor)) < 200


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 3])
def test_files_are_opened_where_the_run_opens_them(workers: int, tmp_path: Path) -> None:
    def note(ids: Tensor) -> Tensor:
        (tmp_path / str(os.getpid())).touch()
        return ids.float()

    before = torch.get_rng_state()
    fingerprint(Odd(note), workers=workers)
    assert torch.equal(torch.get_rng_state(), before)
    assert [int(path.name) == os.getpid() for path in tmp_path.iterdir()] == [not workers]


def _run(out: Path, data: kt.Data, **options: Any) -> kt.Run:
    torch.manual_seed(0)
    method = kt.Method(nn.Sequential(nn.Flatten(), nn.Linear(15, 4)), sampler=kt.InBatch(), objective=InfoNCE())
    settings: dict[str, Any] = {"epochs": 1, "batch_size": 10, "device": "cpu", "observers": (), "resume": "auto"}
    return kt.Run(method, data, augmenter=kt.Identity(), out=out, **{**settings, **options})


def test_a_run_does_not_go_on_with_other_data(tmp_path: Path) -> None:
    _run(tmp_path, _arrays()).fit()
    assert _run(tmp_path, _arrays()).start == 5
    with pytest.raises(
        kt.CheckpointError,
        match=r"step-000000005.pt must be resumed with the data it was started with, and in those given `inputs` has "
        "other values; give it the same data, or start another run",
    ):
        _run(tmp_path, _arrays(lambda x: -x))
    assert not any(name.startswith("inputs") for name in _run(tmp_path, _arrays()).folder._config)


def test_a_checkpoint_that_says_nothing_of_the_data_is_resumed(tmp_path: Path) -> None:
    _run(tmp_path, _arrays()).fit()
    newest = Checkpoints(tmp_path / "checkpoints").paths()[-1]
    state = torch.load(newest, weights_only=True)
    del state["data"]
    torch.save(state, newest)
    assert _run(tmp_path, _arrays(lambda x: -x)).start == 5


def _other_on_one(out: str) -> str:
    data = _arrays((lambda x: -x) if kt.rank() == 1 else (lambda x: x))
    with pytest.raises(kt.CheckpointError, match="data it was started with") as caught:
        _run(Path(out), data, any_world=True)
    return str(caught.value)


@pytest.mark.filterwarnings("ignore:resuming a run of 1 processes")
def test_all_processes_leave_where_one_has_other_data(tmp_path: Path, gloo: GlooPool) -> None:
    _run(tmp_path, _arrays()).fit()
    said = gloo.run(2, _other_on_one, str(tmp_path))
    assert said[0] == said[1]
