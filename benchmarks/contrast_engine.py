"""The contrast engine against the dense way: time as ratios of one run, extra memory beyond inputs and gradients.

"Dense" is what one writes by hand: the whole matrix of logits, masked, and cross entropy. Both ways start from the same
unit-length embeddings that want a gradient; trials alternate, the fastest of several counts.

`python benchmarks/contrast_engine.py` prints the whole table, some ten minutes on two cores; name parts to run some:
``time floor memory scaling one-way labels queue hard scopes cuda``. `--threads 1` for one thread. `cuda` runs where
there is a GPU.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from contrast_cuda import show_cuda
from torch import Tensor
from torch.nn import functional as F

import kontrast as kt
from kontrast.plugins.objectives import DCL, InfoNCE, NTXent, SupCon

D, TEMPERATURE = 128, 0.5
Way = Callable[[], None]


def unit(rows: int, seed: int = 0, size: int = D) -> Tensor:
    """Return rows of length 1."""
    return F.normalize(torch.randn(rows, size, generator=torch.Generator().manual_seed(seed)), dim=1)


def fastest(ways: dict[str, Way], trials: int) -> dict[str, float]:
    """Return the seconds of the fastest of several interleaved trials, after one that does not count."""
    best = dict.fromkeys(ways, float("inf"))
    for trial in range(trials + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if trial:
                best[name] = min(best[name], time.perf_counter() - started)
    return best


def nt_xent(n: int, sampler: kt.PairSampler | None = None) -> Way:
    """Return the engine's NT-Xent of n pairs, forward and backward."""
    rows = unit(2 * n)
    sampler = kt.InBatch() if sampler is None else sampler
    objective = NTXent(TEMPERATURE)

    def way() -> None:
        first, second = rows[:n].clone().requires_grad_(), rows[n:].clone().requires_grad_()
        (pairs,) = sampler.pairs(kt.embedded(first, second))
        objective(pairs).reduced().backward.backward()

    return way


def dense_nt_xent(n: int) -> Way:
    """Return NT-Xent as cross entropy over the masked 2n x 2n matrix."""
    rows = unit(2 * n)
    target = (torch.arange(2 * n) + n) % (2 * n)

    def way() -> None:
        first, second = rows[:n].clone().requires_grad_(), rows[n:].clone().requires_grad_()
        z = F.normalize(torch.cat([first, second]))
        logits = z @ z.T / TEMPERATURE
        logits = logits.masked_fill(torch.eye(2 * n, dtype=torch.bool), -torch.inf)
        F.cross_entropy(logits, target).backward()

    return way


def with_labels(n: int, objective: kt.Objective, classes: int = 10) -> Way:
    """Return an objective's step on n pairs with labels, by the engine."""
    rows, labels, sampler = unit(2 * n), torch.arange(n) % classes, kt.InBatch(match="labels")

    def step() -> None:
        first, second = rows[:n].clone().requires_grad_(), rows[n:].clone().requires_grad_()
        (pairs,) = sampler.pairs(kt.embedded(first, second, labels=labels))
        objective(pairs).reduced().backward.backward()

    return step


def dense_with_labels(n: int, *, told_apart: bool, classes: int = 10) -> Way:
    """Return the step over the masked 2n x 2n matrix: SupCon (L_out), or InfoNCE against negatives alone."""
    rows, labels = unit(2 * n), torch.arange(n) % classes

    def step() -> None:
        first, second = rows[:n].clone().requires_grad_(), rows[n:].clone().requires_grad_()
        z = F.normalize(torch.cat([first, second]))
        own, equal = torch.eye(2 * n, dtype=torch.bool), labels.repeat(2)[:, None] == labels.repeat(2)
        logits, positive = z @ z.T / TEMPERATURE, equal & ~own
        against = logits.masked_fill(equal if told_apart else own, -torch.inf).logsumexp(1, keepdim=True)
        losses = F.softplus(against - logits) if told_apart else against - logits
        (torch.where(positive, losses, 0.0).sum(1) / positive.sum(1)).mean().backward()

    return step


def one_way(n: int, *, dense: bool) -> Way:
    """Return InfoNCE in one direction, n anchors against n candidates, both with gradient."""
    a, c = unit(n), unit(n, 1)
    objective, sampler = InfoNCE(TEMPERATURE), kt.InBatch("forward")

    def ours() -> None:
        first, second = a.clone().requires_grad_(), c.clone().requires_grad_()
        (pairs,) = sampler.pairs(kt.embedded(first, second))
        objective(pairs).reduced().backward.backward()

    def by_hand() -> None:
        first, second = a.clone().requires_grad_(), c.clone().requires_grad_()
        logits = F.normalize(first) @ F.normalize(second).T / TEMPERATURE
        F.cross_entropy(logits, torch.arange(n)).backward()

    return by_hand if dense else ours


def moco(*, dense: bool, n: int = 256, size: int = 65536) -> Way:
    """Return MoCo's loss: n queries against their keys and a queue."""
    queries, keys, old = unit(n), unit(n, 1), unit(size, 2)
    objective = InfoNCE(0.2)
    queue = kt.Queue(kt.Positives("forward"), size=size)
    with_target = kt.embedded(torch.zeros(size, D), old, ids=torch.arange(size) + (1 << 20))
    queue.commit(with_target)

    def ours() -> None:
        (pairs,) = queue.pairs(kt.embedded(queries.clone().requires_grad_(), keys))
        objective(pairs).reduced().backward.backward()

    def by_hand() -> None:
        q = F.normalize(queries.clone().requires_grad_())
        positive = (q * F.normalize(keys)).sum(1, keepdim=True)
        logits = torch.cat([positive, q @ old.T], dim=1) / 0.2
        F.cross_entropy(logits, torch.zeros(n, dtype=torch.int64)).backward()

    return by_hand if dense else ours


def scoped(*, dense: bool, scopes: int = 1000, rows: int = 16, size: int = D) -> Way:
    """Return a loss inside each of many small groups: candidates of another group are not compared."""
    a, c = unit(scopes * rows, 0, size), unit(scopes * rows, 1, size)
    groups = torch.arange(scopes).repeat_interleave(rows)
    objective = InfoNCE(TEMPERATURE)

    def ours() -> None:
        views = kt.embedded(a.clone().requires_grad_(), c.clone().requires_grad_(), groups=groups)
        objective(kt.Pairs.between(views[0], views[1], scope="groups")).reduced().backward.backward()

    def by_hand() -> None:
        first = F.normalize(a.clone().requires_grad_()).view(scopes, rows, size)
        second = F.normalize(c.clone().requires_grad_()).view(scopes, rows, size)
        logits = torch.bmm(first, second.transpose(1, 2)) / TEMPERATURE
        F.cross_entropy(logits.flatten(0, 1), torch.arange(rows).repeat(scopes)).backward()

    return by_hand if dense else ours


def multiply_rate(side: int = 512) -> float:
    """Return the operations per second of products of the engine's tiles, [512, D] by [D, 512]."""
    a, b, out = unit(side), unit(side, 1), torch.empty(side, side)

    def products() -> None:
        for _ in range(40):
            torch.mm(a, b.t(), out=out)

    return 40 * 2 * side * side * D / fastest({"": products}, 5)[""]


def line(what: str, value: str, goal: str) -> None:
    """Print one row of the table."""
    print(f"{what:64s} {value:>22s}   {goal}", flush=True)


def show_time() -> None:
    """NT-Xent against dense."""
    for n, trials, goal in ((512, 20, 0.95), (2048, 8, 0.4), (8192, 3, 0.25)):
        best = fastest({"dense": dense_nt_xent(n), "ours": nt_xent(n)}, trials)
        line(f"NT-Xent / dense, N = {n}", f"{best['ours'] / best['dense']:.3f}", f"<= {goal}")


def show_floor() -> None:
    """NT-Xent against its own products."""
    m = 2 * 8192
    rate = multiply_rate()
    seconds = fastest({"": nt_xent(8192)}, 3)[""]
    rate = max(rate, multiply_rate())
    line("NT-Xent / 4 M^2 D operations, N = 8192", f"{seconds * rate / (4 * m * m * D):.2f}", "<= 1.5")
    print(f"    {rate / 1e9:.0f} GFLOP/s in products of tiles, {seconds:.2f} s")


def show_scaling() -> None:
    """Time per product from N = 4k to 32k."""
    per = {n: fastest({"": nt_xent(n)}, 2)[""] / (4 * n * n * D) for n in (4096, 8192, 16384, 32768)}
    spread = max(per.values()) / min(per.values())
    line("time per (M x M x D), N = 4k to 32k, largest / smallest", f"{spread:.3f}", "<= 1.2")
    print("    picoseconds: " + ", ".join(f"{n}: {1e12 * value:.1f}" for n, value in per.items()))


def show_one_way() -> None:
    """InfoNCE in one direction."""
    for n, trials, goal in ((8192, 3, 0.6), (1024, 20, 1.1)):
        best = fastest({"dense": one_way(n, dense=True), "ours": one_way(n, dense=False)}, trials)
        line(f"InfoNCE one direction / dense, N = {n}", f"{best['ours'] / best['dense']:.3f}", f"<= {goal}")


def show_labels() -> None:
    """Ten classes: every tenth pair is a positive."""
    dense = {"SupCon": dense_with_labels(2048, told_apart=False), "InfoNCE": dense_with_labels(2048, told_apart=True)}
    objectives = {
        "L_out": (SupCon(TEMPERATURE), "SupCon"),
        "L_in": (SupCon(TEMPERATURE, "in"), "SupCon"),
        "InfoNCE": (InfoNCE(TEMPERATURE), "InfoNCE"),
        "DCL": (DCL(TEMPERATURE), "InfoNCE"),
    }
    ours = {name: with_labels(2048, objective) for name, (objective, _) in objectives.items()}
    best = fastest({**{f"dense {name}": way for name, way in dense.items()}, **ours}, 4)
    for name, (_, peer) in objectives.items():
        ratio = best[name] / best[f"dense {peer}"]
        line(f"{name}, ten classes / dense {peer}, N = 2048", f"{ratio:.3f}", "")


def show_queue() -> None:
    """MoCo against a queue."""
    best = fastest({"dense": moco(dense=True), "ours": moco(dense=False)}, 8)
    line("MoCo, 256 against 65,536 / dense", f"{best['ours'] / best['dense']:.3f}", "<= 0.5")


def show_hard() -> None:
    """Hard and debiased NT-Xent against plain."""
    for hardness, goal in ((1.0, 1.5), (0.5, 1.8)):
        sampler = kt.Debiased(kt.HardNegatives(kt.InBatch(), hardness), 0.1)
        best = fastest({"plain": nt_xent(2048), "hard": nt_xent(2048, sampler)}, 8)
        ratio = best["hard"] / best["plain"]
        line(f"hard + debiased / plain NT-Xent, hardness {hardness}", f"{ratio:.3f}", f"<= {goal}")


def show_scopes() -> None:
    """Many small scopes against a batched product."""
    best = fastest({"dense": scoped(dense=True), "ours": scoped(dense=False)}, 20)
    line("1,000 scopes of 16 / batched [1000, 16, D] loss", f"{best['ours'] / best['dense']:.3f}", "<= 2")


def show_memory() -> None:
    """Extra peak memory, each in a process of its own."""
    for n, way, goal in ((8192, "ours", "<= 64"), (32768, "ours", "<= 200"), (8192, "dense", "(3,200)")):
        command = [sys.executable, __file__, "--peak", way, str(n)]
        extra = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        line(f"extra peak memory of NT-Xent in MB, {way}, N = {n}", f"{extra:.0f}", goal)


def peak(way: str, n: int) -> float:
    """Return the MB by which one pass raises this process's peak, less the embeddings' copies and gradients."""
    make = nt_xent if way == "ours" else dense_nt_xent
    make(64)()  # libraries load and threads start
    run = make(n)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak so far
    before = _status("VmRSS")
    run()
    # Inputs (cloned in the pass, as an encoder's output would be) and their gradients: 2 x M x D float32.
    return (_status("VmHWM") - before) / 1e3 - 2 * 2 * n * D * 4 / 1e6


def _status(field: str) -> float:
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return float(next(row for row in text.splitlines() if row.startswith(field)).split()[1]) * 1.024


PARTS = {
    "time": show_time,
    "floor": show_floor,
    "memory": show_memory,
    "scaling": show_scaling,
    "one-way": show_one_way,
    "labels": show_labels,
    "queue": show_queue,
    "hard": show_hard,
    "scopes": show_scopes,
    "cuda": show_cuda,
}


def main() -> None:
    """Print the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], default=[], help="default: all")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--peak", nargs=2, metavar=("WAY", "N"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak:
        print(peak(options.peak[0], int(options.peak[1])))
        return
    print(f"torch {torch.__version__}, {options.threads} threads, D = {D}, N pairs, M = 2 N rows, forward and backward")
    for name in options.parts or PARTS:
        PARTS[name]()


if __name__ == "__main__":
    main()
