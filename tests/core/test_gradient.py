"""Gradient caching is exact, accumulation is what it says, on one process and on two."""

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import pytest
import torch
from gloo import GlooPool
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import kontrast as kt
from kontrast.gradient import LargeBatch, StepModule, backward, random_state, set_random_state
from kontrast.loader import MicroBatch
from kontrast.plugins.objectives import CosineRegression, InfoNCE, NTXent

SIZE = 6


def _encoder() -> kt.Encoder:
    layers = nn.Sequential(nn.Linear(SIZE, 16), nn.LayerNorm(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 8))
    return kt.as_encoder(layers, 8)


def _shared() -> kt.Method:
    """Dropout, a shared tower and a learned temperature, whose gradient comes from the loss alone."""
    return kt.Method(
        _encoder(),
        projector=nn.Linear(8, 5),
        sampler=kt.InBatch(),
        objective=NTXent(1.0),
        similarity=kt.LearnedTemperature(),
    )


def _predictor() -> kt.Method:
    """Candidates that pass a gradient on and are not the anchors."""
    return kt.Method(_encoder(), predictor=nn.Linear(8, 8), sampler=kt.InBatch("cross"), objective=InfoNCE())


def _momentum() -> kt.Method:
    """A target without gradient, one view for each side."""
    sampler = kt.Queue(kt.InBatch("forward"), size=16)
    return kt.Method(_encoder(), target=kt.Momentum(0.9), sampler=sampler, objective=InfoNCE())


def _stopped() -> kt.Method:
    return kt.Method(
        _encoder(),
        predictor=nn.Linear(8, 8),
        target=kt.StopGradient(),
        sampler=kt.Positives(),
        objective=CosineRegression(),
    )


METHODS: dict[str, Callable[[], kt.Method]] = {
    "shared": _shared,
    "predictor": _predictor,
    "momentum": _momentum,
    "stopped": _stopped,
}


def _parts(batch: int, micro: int, world: int, rank: int) -> list[tuple[MicroBatch, list[kt.View]]]:
    rows = torch.randn(2, batch, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    own = torch.arange(batch).tensor_split(world)[rank]
    parts = own.split(micro)
    return [
        (
            MicroBatch(0, 0, len(ids) / len(own), k == len(parts) - 1, ids),
            [kt.View(view[ids], ids) for view in rows],
        )
        for k, ids in enumerate(parts)
    ]


def _direct(method: kt.Method, parts: list[tuple[MicroBatch, list[kt.View]]]) -> dict[str, Tensor]:
    """The same loss with every graph kept: micro-batches encoded in turn, so that dropout draws the same masks."""
    chunks = [method.encode(views) for _, views in parts]
    joined = []
    start = kt.rank() << 40
    for view in zip(*chunks, strict=True):
        copies = torch.arange(start, start + sum(len(part.ids) for part in view))
        start += len(copies)

        def join(encodings: list[kt.Encoded], copies: Tensor = copies) -> kt.Encoded:
            rows = None if encodings[0].rows is None else torch.cat([e.rows for e in encodings if e.rows is not None])
            streams = {n: join([e.streams[n] for e in encodings], copies) for n in encodings[0].streams}
            return kt.Encoded(rows, torch.cat([e.ids for e in encodings]), copies, streams=streams)

        joined.append(join(list(view)))
    method.score(joined).reduced().backward.backward()
    return _gradients(method)


def _gradients(method: kt.Method, *, average: bool = True) -> dict[str, Tensor]:
    found = {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
    return {name: kt.all_sum(g) / kt.world_size() if average else g for name, g in found.items()}


def _both(name: str, batch: int, micro: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    results = []
    for way in ("direct", "cache"):
        torch.manual_seed(5)
        method = METHODS[name]().double().train()
        parts = _parts(batch, micro, kt.world_size(), kt.rank())
        torch.manual_seed(7 + kt.rank())
        if way == "direct":
            results.append(_direct(method, parts))
            continue
        step: nn.Module = StepModule(method)
        if kt.world_size() > 1:
            step = DistributedDataParallel(step)
        backward(step, method, parts, "cache")
        results.append(_gradients(method, average=False))  # DDP has averaged
    return results[0], results[1]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("micro", [1, 4, 5, 12])
def test_cached_gradients_are_those_of_the_whole_batch(name: str, micro: int) -> None:
    direct, cached = _both(name, 12, micro)
    assert direct.keys() == cached.keys()
    for key, gradient in cached.items():
        torch.testing.assert_close(gradient, direct[key], rtol=1e-9, atol=1e-12, msg=key)


@pytest.mark.parametrize("name", METHODS)
def test_cached_gradients_on_two_processes(gloo: GlooPool, name: str) -> None:
    for direct, cached in gloo.run(2, _both, name, 13, 3):  # 7 and 6 samples, 3 and 2 micro-batches
        assert direct.keys() == cached.keys()
        for key, gradient in cached.items():
            torch.testing.assert_close(gradient, direct[key], rtol=1e-9, atol=1e-12, msg=key)


@pytest.mark.slow
def test_a_batch_of_4096_in_micro_batches_of_64_on_two_processes(gloo: GlooPool) -> None:
    for direct, cached in gloo.run(2, _both, "shared", 4096, 64):
        for key, gradient in cached.items():
            torch.testing.assert_close(gradient, direct[key], rtol=1e-6, atol=1e-9, msg=key)


def test_caching_draws_what_one_pass_draws_and_counts_batch_norms_once() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(SIZE)
    method = kt.Method(nn.Sequential(norm, nn.Dropout(0.5)), sampler=kt.InBatch(), objective=NTXent()).double().train()
    parts = _parts(8, 4, 1, 0)
    before = random_state()
    reduced, encoded = backward(StepModule(method), method, parts, "cache")
    after = torch.rand(1)
    assert norm.num_batches_tracked == 4  # two views of two micro-batches
    set_random_state(before)
    for _, views in parts:
        method.encode(views)
    assert torch.equal(torch.rand(1), after)
    assert not reduced.backward.requires_grad
    assert [view.ids.tolist() for view in encoded] == [list(range(8))] * 2
    assert len(torch.cat([view.copies for view in encoded]).unique()) == 16


def test_accumulated_gradients_are_the_mean_over_micro_batches_of_their_own_losses() -> None:
    torch.manual_seed(0)
    method = _shared().double().eval()
    parts = _parts(10, 4, 1, 0)  # 4, 4 and 2 samples
    reduced, _ = backward(StepModule(method), method, parts, "accumulate")
    accumulated = _gradients(method)
    method.zero_grad()
    losses = [method(views)[0].reduced().value for _, views in parts]
    total = sum(
        share * method(views)[0].reduced().backward for (part, views) in parts for share in [len(part.indices) / 10]
    )
    assert isinstance(total, Tensor)
    total.backward()
    for key, gradient in _gradients(method).items():
        torch.testing.assert_close(accumulated[key], gradient, msg=key)
    assert float(reduced.value) == pytest.approx(
        sum(float(loss) * share for loss, share in zip(losses, (0.4, 0.4, 0.2), strict=True))
    )


def _run(micro: int, large_batch: LargeBatch) -> list[float]:
    losses: list[float] = []

    class Recorder(kt.Observer):
        """Keeps every step's loss."""

        def step_ended(self, metrics: Any) -> None:
            losses.append(metrics["loss"])

    torch.manual_seed(0)
    kt.Run(
        _shared().eval(),
        kt.ArrayData(torch.randn(33, SIZE, generator=torch.Generator().manual_seed(1))),
        augmenter=kt.Identity(),
        epochs=2,
        batch_size=12,
        micro_batch_size=micro,
        large_batch=large_batch,
        drop_last=False,
        device="cpu",
        observers=(Recorder(),),
    ).fit()
    return losses


def test_a_run_without_dropout_is_the_same_cached_and_another_one_accumulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.Dropout, "forward", lambda self, rows: rows)
    whole = _run(0, "cache")
    assert _run(5, "cache") == pytest.approx(whole, rel=1e-5)
    assert _run(5, "accumulate") != pytest.approx(whole, rel=1e-2)


def test_caching_with_batch_norms_says_that_it_is_not_exact() -> None:
    method = kt.Method(nn.BatchNorm1d(SIZE), sampler=kt.InBatch(), objective=NTXent())
    data = kt.ArrayData(torch.randn(8, SIZE))
    with pytest.warns(UserWarning, match="gradient caching is not exact with batch norms: they see micro-batches of 2"):
        kt.Run(
            method,
            data,
            augmenter=kt.Identity(),
            epochs=1,
            batch_size=4,
            micro_batch_size=2,
            warmup_epochs=0,
            observers=(),
        )


WIDTH, LAYERS = 256, 5


def _peak(method: kt.Method, batch: int, micro: int) -> int:
    """Bytes of tensors at the fullest moment of a step, beside weights and data."""
    parts = _parts(batch, micro, 1, 0)
    step = StepModule(method)
    backward(step, method, _parts(64, 32, 1, 0), "cache")  # what is made once
    method.zero_grad(set_to_none=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        backward(step, method, parts, "cache")
    profiler: Any = profile.profiler  # torch does not say all of its type
    events = profiler.kineto_results.events()
    changes: list[int] = [event.nbytes() for event in events if event.name() == "[memory]"]
    return max(accumulate(changes))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "objective"),
    [(kt.Positives(), CosineRegression()), (kt.InBatch(), NTXent())],
    ids=["regression", "nt-xent"],
)
def test_the_memory_of_a_cached_batch_is_that_of_a_micro_batch_and_some_copies_of_its_embeddings(
    sampler: kt.PairSampler, objective: kt.Objective
) -> None:
    layers = [nn.Linear(SIZE, WIDTH), *(layer for _ in range(LAYERS) for layer in (nn.ReLU(), nn.Linear(WIDTH, WIDTH)))]
    encoder = kt.as_encoder(nn.Sequential(*layers, nn.Linear(WIDTH, 16)), 16)
    method = kt.Method(encoder, sampler=sampler, objective=objective).double()
    small, cached, whole = (_peak(method, *sizes) for sizes in ((64, 64), (4096, 64), (4096, 4096)))
    gradients = sum(8 * parameter.numel() for parameter in method.parameters())  # a second micro-batch adds to them
    embeddings = 2 * 4096 * 16 * 8
    copies = (cached - small - gradients) / embeddings
    mib = [round(part / 2**20, 1) for part in (small, cached, whole)]
    print(f"MiB: batch 64 {mib[0]}, 4096 in 64s {mib[1]} ({copies:.1f} copies of the embeddings), at once {mib[2]}")
    assert copies < 6
    assert whole > 20 * small


def test_micro_batches_too_small_for_their_purpose_are_refused() -> None:
    data = kt.ArrayData(torch.randn(8, SIZE))
    with pytest.raises(kt.InvalidValueError, match="must leave 2 samples to compare when gradients are accumulated"):
        kt.Run(_shared(), data, augmenter=kt.Identity(), batch_size=4, micro_batch_size=1, large_batch="accumulate")
    norms = kt.Method(nn.BatchNorm1d(SIZE), sampler=kt.InBatch(), objective=NTXent())
    with (
        pytest.warns(UserWarning, match="not exact"),
        pytest.raises(kt.InvalidValueError, match="must leave 2 samples to the batch norms"),
    ):
        kt.Run(norms, data, augmenter=kt.Identity(), batch_size=4, micro_batch_size=1)


def test_caching_with_a_frozen_encoder_trains_the_rest() -> None:
    method = _shared().double()
    method.towers.requires_grad_(False)
    backward(StepModule(method), method, _parts(8, 4, 1, 0), "cache")
    assert list(_gradients(method)) == ["similarity.log_inverse_temperature"]
