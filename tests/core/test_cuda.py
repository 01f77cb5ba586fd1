"""Runs on a GPU against the same runs on the CPU. Skipped where there is none: ``pytest tests/core/test_cuda.py``."""

import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import kontrast as kt
from kontrast.cache import tile_entries
from kontrast.loader import Plan, micro_batches
from kontrast.plugins.objectives import InfoNCE

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


class Noise(kt.Augmenter):
    """Two views, each with numbers of its own."""

    def forward(self, batch: kt.Batch, draws: kt.Draws) -> list[kt.View]:
        noise = [draws.uniform(batch.ids, 3 * 64, view=v).view(-1, 3, 8, 8) for v in range(2)]
        return [kt.View.of(batch, batch.inputs + 0.2 * own) for own in noise]


def _images(count: int = 96) -> kt.ArrayData:
    return kt.ArrayData(torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0)))


def _losses(device: str, out: Path, **options: Any) -> list[float]:
    """The losses of nine steps of a convolutional network with batch norm, a momentum copy and a queue."""
    torch.manual_seed(0)
    encoder = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 16)
    )
    method = kt.Method(
        kt.as_encoder(encoder, 16),
        projector=kt.mlp(16, 32, 8),
        target=kt.Momentum(0.9),
        sampler=kt.Queue(kt.InBatch(), size=48),
        objective=InfoNCE(0.2),
    )
    settings = {"epochs": 3, "batch_size": 32, "observers": (), "optimizer": kt.SGD(0.05), "log_every": 1}
    kt.Run(method, _images(), augmenter=Noise(), device=device, out=out, **{**settings, **options}).fit()
    assert next(method.parameters()).device.type == device
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({}, 1e-3),
        ({"channels_last": True}, 1e-3),
        ({"workers": 2}, 1e-3),
        ({"compile": True}, 1e-3),
        ({"precision": "bf16"}, 3e-2),
        ({"precision": "bf16", "channels_last": True, "compile": True, "workers": 2}, 3e-2),
    ],
)
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_a_run_on_a_gpu_has_the_losses_of_one_on_the_cpu(
    tmp_path: Path, options: dict[str, Any], tolerance: float
) -> None:
    expected, found = _losses("cpu", tmp_path / "one"), _losses("cuda", tmp_path / "other", **options)
    assert len(found) == 9
    assert all(math.isclose(one, other, rel_tol=tolerance) for one, other in zip(found, expected, strict=True)), (
        found,
        expected,
    )


def test_gradient_caching_on_a_gpu_is_that_on_the_cpu(tmp_path: Path) -> None:
    options: dict[str, Any] = {"micro_batch_size": 8}
    with pytest.warns(UserWarning, match="gradient caching is not exact with batch norms"):
        expected = _losses("cpu", tmp_path / "one", **options)
    with pytest.warns(UserWarning, match="gradient caching is not exact with batch norms"):
        found = _losses("cuda", tmp_path / "other", **options)
    assert found == pytest.approx(expected, rel=1e-3)


def test_a_run_on_a_gpu_is_stopped_and_resumed(tmp_path: Path) -> None:
    alone = _losses("cuda", tmp_path / "alone")
    newest = sorted((tmp_path / "alone" / "checkpoints").iterdir())
    newest[-1].unlink()  # of the end; the one before it is of the second epoch
    (tmp_path / "alone" / "encoder.safetensors").unlink()
    assert _losses("cuda", tmp_path / "alone", resume="auto") == pytest.approx(alone, rel=1e-3)


@pytest.mark.parametrize("kernels", ["0", "1"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mirrored", [True, False])
def test_the_engine_on_a_gpu_is_that_in_float64(
    monkeypatch: pytest.MonkeyPatch, kernels: str, dtype: torch.dtype, mirrored: bool
) -> None:
    """Chunked and by kernels, in blocks as large as they are meant to be; D is no multiple of any."""
    monkeypatch.setenv("KONTRAST_TRITON", kernels)
    drawn = [torch.randn(5000, 200, generator=torch.Generator().manual_seed(n)).to(dtype) for n in range(2)]
    found = []
    for device, wide in (("cpu", torch.float64), ("cuda", dtype)):
        leaves = [rows.to(device, wide).requires_grad_() for rows in drawn]
        (pairs,) = kt.InBatch("all" if mirrored else "forward").pairs(kt.embedded(*leaves))
        rows = kt.row_statistics(pairs, temperature=0.1)
        loss = (rows.logsumexp - rows.positive_mean).mean()
        found.append((loss, *torch.autograd.grad(loss, leaves)))
    assert float(found[1][0]) == pytest.approx(float(found[0][0]), rel=1e-5)
    error = 2 * torch.finfo(dtype).eps if dtype == torch.bfloat16 else 1e-5
    for exact, ours in zip(found[0][1:], found[1][1:], strict=True):
        assert (ours.cpu().double() - exact).norm() <= error * exact.norm()


def test_tiles_are_a_quarter_of_the_cache() -> None:
    rows = torch.zeros(0, device="cuda")
    cache = torch.cuda.get_device_properties(rows.device).L2_cache_size
    assert cache > 0
    assert tile_entries(rows, {}) == max(1 << 16, cache // 16)


@pytest.mark.parametrize("kernels", ["0", "1"])
def test_how_often_the_engine_waits_for_a_gpu(monkeypatch: pytest.MonkeyPatch, kernels: str) -> None:
    """A wait is for the length of a list; there are some, and not one for every tile."""
    monkeypatch.setenv("KONTRAST_TRITON", kernels)
    leaves = [torch.randn(20000, 64, device="cuda", requires_grad=True) for _ in range(2)]

    def step() -> None:
        (pairs,) = kt.InBatch("forward").pairs(kt.embedded(*leaves))
        kt.row_statistics(pairs, temperature=0.1).logsumexp.sum().backward()

    step()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [one for one in said if "synchronizing" in str(one.message)]
    assert len(waits) <= 12, [str(one.filename) + f":{one.lineno}" for one in waits]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_that_are_copied_ahead_are_whole(workers: int) -> None:
    """Each batch is read late, by a device that is busy, while the copy of the next takes the memory that is free."""
    data = _images(2048)
    plan = Plan(2048, 4, 256, 0, 5, drop_last=True, world=1, rank=0)
    device = torch.device("cuda")
    busy = torch.rand(2048, 2048, device=device)
    sums = []
    for part, views in micro_batches(plan, data, kt.Identity(), start=0, workers=workers, device=device):
        assert all(view.inputs.device.type == "cuda" for view in views)
        for _ in range(20):
            busy = (busy @ busy).softmax(1)
        sums.append((part.indices, views[0].inputs.double().sum((1, 2, 3)) + 0 * busy[0, 0]))
        del views
    inputs = data.batch(torch.arange(2048)).inputs
    for indices, found in sums:
        assert torch.allclose(found.cpu(), inputs[indices].double().sum((1, 2, 3)))


def test_what_cannot_be_page_locked_stays_as_it_is() -> None:
    there, sparse = torch.ones(2, device="cuda"), torch.eye(2).to_sparse()
    batch = kt.Batch({"there": there, "sparse": sparse, "here": torch.ones(2)}, torch.arange(2)).pin_memory()
    assert batch.inputs["there"] is there
    assert batch.inputs["sparse"] is sparse
    assert batch.inputs["here"].is_pinned()
