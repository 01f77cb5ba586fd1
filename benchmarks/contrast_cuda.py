"""The contrast engine on a card: `python benchmarks/contrast_engine.py cuda`.

Three ways: "chunked", the engine as it is; "triton", the same with ``KONTRAST_TRITON=1``; "dense", the whole matrix of
logits and cross entropy, in the embeddings' dtype. Trials alternate, the fastest of several counts; extra memory is the
peak less what was there and less the gradients that are handed back. Shares are of the rate of `torch.mm` on
[8192, 8192] of that dtype, for the 6 B C D operations that forward and both gradients are at least.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F

import kontrast as kt
from kontrast.plugins.objectives import InfoNCE, NTXent

__all__ = ["show_cuda"]

Way = Callable[[], None]


@contextmanager
def triton(on: bool) -> Iterator[None]:
    """Switch the kernels on or off within."""
    before = os.environ.get("KONTRAST_TRITON", "0")
    os.environ["KONTRAST_TRITON"] = "1" if on else "0"
    try:
        yield
    finally:
        os.environ["KONTRAST_TRITON"] = before


def seconds(way: Way) -> float:
    """Return the time of one call on the card."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    way()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3


def fastest(ways: dict[str, Way], trials: int) -> dict[str, float]:
    """Return the seconds of the fastest of several interleaved trials, after one that does not count."""
    best = dict.fromkeys(ways, float("inf"))
    for trial in range(trials + 1):
        for name, way in ways.items():
            spent = seconds(way)
            if trial:
                best[name] = min(best[name], spent)
    return best


def extra(way: Way, handed_back: int) -> float:
    """Return the MB by which a call passes what was there before and the gradients it hands back."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    way()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before - handed_back) / 1e6


def rows(count: int, size: int, dtype: torch.dtype, seed: int) -> Tensor:
    """Return random rows that want a gradient."""
    generator = torch.Generator("cuda").manual_seed(seed)
    return torch.randn(count, size, device="cuda", generator=generator).to(dtype).requires_grad_()


def engine(make: Callable[[], kt.Pairs], objective: kt.Objective, leaves: list[Tensor], *, kernels: bool) -> Way:
    """Return a pass, forward and backward, of the engine."""

    def way() -> None:
        with triton(kernels):
            loss = objective(make()).reduced().backward
            torch.autograd.grad(loss, leaves)

    return way


def info_nce(count: int, size: int, dtype: torch.dtype) -> dict[str, Way]:
    """Return InfoNCE in one direction."""
    leaves = [rows(count, size, dtype, seed) for seed in (0, 1)]
    ids = torch.arange(count, device="cuda")

    def pairs() -> kt.Pairs:
        (found,) = kt.InBatch("forward").pairs(kt.embedded(*leaves, ids=ids))
        return found

    def dense() -> None:
        first, second = (F.normalize(leaf, dim=1) for leaf in leaves)
        torch.autograd.grad(F.cross_entropy(first @ second.T / 0.1, ids), leaves)

    ours = {name: engine(pairs, InfoNCE(0.1), leaves, kernels=name == "triton") for name in ("chunked", "triton")}
    return {**ours, "dense": dense}


def nt_xent(count: int, size: int) -> dict[str, Way]:
    """Return NT-Xent of so many pairs."""
    leaves = [rows(count, size, torch.bfloat16, seed) for seed in (0, 1)]
    ids = torch.arange(count, device="cuda")
    target = (torch.arange(2 * count, device="cuda") + count) % (2 * count)

    def pairs() -> kt.Pairs:
        (found,) = kt.InBatch().pairs(kt.embedded(*leaves, ids=ids))
        return found

    def dense() -> None:
        z = F.normalize(torch.cat(leaves), dim=1)
        logits = (z @ z.T / 0.5).fill_diagonal_(-torch.inf)
        torch.autograd.grad(F.cross_entropy(logits, target), leaves)

    ours = {name: engine(pairs, NTXent(0.5), leaves, kernels=name == "triton") for name in ("chunked", "triton")}
    return {**ours, "dense": dense}


def moco(count: int, queue_size: int, size: int) -> dict[str, Way]:
    """Return InfoNCE of queries against their keys and a queue."""
    queries, keys, old = (rows(n, size, torch.bfloat16, seed) for seed, n in enumerate((count, count, queue_size)))
    keys, old = keys.detach(), old.detach()
    ids = torch.arange(count, device="cuda")
    queue = kt.Queue(kt.Positives("forward"), size=queue_size).cuda()
    queue.commit(kt.embedded(old, old, ids=torch.arange(queue_size, device="cuda") + (1 << 20)))

    def pairs() -> kt.Pairs:
        (found,) = queue.pairs(kt.embedded(queries, keys, ids=ids))
        return found

    def dense() -> None:
        q, k, others = (F.normalize(part, dim=1) for part in (queries, keys, old))
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ others.T], dim=1) / 0.2
        torch.autograd.grad(F.cross_entropy(logits, torch.zeros_like(ids)), queries)

    ours = {name: engine(pairs, InfoNCE(0.2), [queries], kernels=name == "triton") for name in ("chunked", "triton")}
    return {**ours, "dense": dense}


def multiply_rate(dtype: torch.dtype) -> float:
    """Return the operations per second of one large product."""
    side = 8192
    a, b = (torch.randn(side, side, device="cuda").to(dtype) for _ in range(2))

    def product() -> None:
        torch.mm(a, b)

    return 2 * side**3 / fastest({"": product}, 5)[""]


def show_cuda() -> None:
    """The engine on a card: time against dense, extra memory, share of the peak."""
    if not torch.cuda.is_available():
        print("cuda: there is no GPU here, so nothing of this part was run")
        return
    torch.set_float32_matmul_precision("highest")
    rates = {dtype: multiply_rate(dtype) for dtype in (torch.bfloat16, torch.float32)}
    print(f"{torch.cuda.get_device_name()}: " + ", ".join(f"{d}: {r / 1e12:.0f} TFLOP/s" for d, r in rates.items()))
    for dtype in (torch.bfloat16, torch.float32):
        _show(
            f"InfoNCE, B = 32,768, D = 768, {dtype}", info_nce(32768, 768, dtype), 3, (32768, 32768, 768), rates, dtype
        )
        torch.cuda.empty_cache()
    large = {name: way for name, way in info_nce(262144, 768, torch.bfloat16).items() if name != "dense"}
    _show("InfoNCE, B = 262,144, D = 768, bf16", large, 1, (262144, 262144, 768), rates, torch.bfloat16)
    torch.cuda.empty_cache()
    _show("NT-Xent, N = 8,192, D = 128, bf16", nt_xent(8192, 128), 5, (16384, 16384, 128), rates, torch.bfloat16)
    _show(
        "MoCo, 256 against 65,536, D = 128, bf16", moco(256, 65536, 128), 20, (256, 65536, 128), rates, torch.bfloat16
    )


def _show(
    what: str,
    ways: dict[str, Way],
    trials: int,
    shape: tuple[int, int, int],
    rates: dict[torch.dtype, float],
    dtype: torch.dtype,
) -> None:
    a, c, d = shape
    sides = a if what.startswith(("NT-Xent", "MoCo")) else a + c
    best = fastest(ways, trials)
    dense = best.get("dense")
    for name, way in ways.items():
        against = "" if dense is None or name == "dense" else f"{best[name] / dense:7.2f} of dense (goal <= 1.1)"
        memory = extra(way, sides * d * dtype.itemsize)
        share = 6 * a * c * d / best[name] / rates[dtype]
        print(
            f"{what:44s} {name:8s} {1e3 * best[name]:9.2f} ms {memory:8.0f} MB extra {share:6.1%} {against}", flush=True
        )
    print("    goals of extra memory: 150 MB at B = 32,768, 1,000 MB at B = 262,144")
