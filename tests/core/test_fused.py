"""The way over Triton kernels against loops and the plain engine: on a GPU where there is one, else interpreted.

The interpreter runs a kernel's arithmetic with numpy: it knows no layouts, no shared memory and no dtypes of products.
That the kernels compile for a card is asked of the compiler, which needs none.
"""

import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import engine_oracle
import pytest
import torch
from engine_scenes import SCENES, leaves, normal, on, scene
from torch import Tensor

import kontrast as kt
from kontrast import fused

pytest.importorskip("triton", reason="Triton is not installed")
# The interpreter's numpy warns of the log of 0 and of exponentials that a card makes 0 or inf without a word.
pytestmark = pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NAMES = ("positive_count", "negative_count", "positive_mean", "positive_logsumexp", "negative_logsumexp", "logsumexp")
# Of the scenes, those that go this way: shared candidates, no scopes, rules or log-weights, few positives.
FUSED = [
    "no keys",
    "match",
    "every key but scope",
    "scope of one side",
    "views, mirrored",
    "row keys that repeat, mirrored",
    "dense alias",
    "one key in two parts",
    "a queue",
    "without positives",
    "several blocks",
    "one row",
    "one pair",
]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several programs, splits, chunks, tiles and runs even for a few rows."""
    monkeypatch.setenv("KONTRAST_TRITON", "1")
    monkeypatch.setattr(fused, "BLOCKS", {2: (16, 16, 16), 4: (16, 16, 16)})
    monkeypatch.setattr(fused, "ROWS", 32)
    monkeypatch.setattr(fused, "RUN", 5)
    monkeypatch.setattr(fused, "_columns", lambda rows: 32)


def moved(pairs: kt.Pairs, dtype: torch.dtype) -> kt.Pairs:
    """Return the pairs on the device, the embeddings in this dtype."""
    cast = {id(tensor): tensor.to(DEVICE, dtype) for tensor in leaves(pairs)}
    keys = {id(k): k.map(lambda key: key.to(DEVICE)) for b in pairs.blocks for k in (b.anchor_keys, b.candidate_keys)}
    blocks = tuple(
        replace(
            block,
            anchors=cast[id(block.anchors)],
            candidates=cast[id(block.candidates)],
            anchor_keys=keys[id(block.anchor_keys)],
            candidate_keys=keys[id(block.candidate_keys)],
            index=None if block.index is None else block.index.to(DEVICE),
            log_weights=None if block.log_weights is None else block.log_weights.to(DEVICE),
        )
        for block in pairs.blocks
    )
    return replace(pairs, blocks=blocks, similarity=pairs.similarity.to(DEVICE))


def results(pairs: kt.Pairs, temperature: float) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Return the statistics, and the gradients of embeddings and parameters for one upstream gradient."""
    tensors = [tensor.detach().clone().requires_grad_() for tensor in leaves(pairs)]
    built = on(pairs, tensors)
    found = kt.row_statistics(built, temperature=temperature)
    values = {name: getattr(found, name) for name in NAMES}
    weights = [
        normal(*value.shape, seed=n).to(value.device, value.dtype)
        for n, value in enumerate(values.values())
        if value.requires_grad
    ]
    outputs = [value for value in values.values() if value.requires_grad]
    wanted = [*tensors, *built.similarity.parameters()]
    before = [tensor.detach().clone() for tensor in tensors]
    gradients = torch.autograd.grad(outputs, wanted, weights, allow_unused=True, materialize_grads=True)
    for tensor, copy in zip(tensors, before, strict=True):  # nothing is written into what is given
        assert torch.equal(tensor.nan_to_num(), copy.nan_to_num())
    return values, list(gradients)


def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which every launch of a kernel's adds its name."""
    launched: list[str] = []

    def counted(name: str) -> None:
        inner = getattr(fused, name)

        def call(*arguments: Any) -> Any:
            launched.append(name)
            return inner(*arguments)

        monkeypatch.setattr(fused, name, call)

    counted("_row_sums")
    counted("_slope_rows")
    return launched


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("hardness", [0.0, 0.5])
def test_statistics_are_those_of_the_loops(monkeypatch: pytest.MonkeyPatch, name: str, hardness: float) -> None:
    launched = taken(monkeypatch)
    pairs = replace(scene(name), hardness=hardness)
    rounded = on(pairs, [tensor.float().double() for tensor in leaves(pairs)])
    expected = engine_oracle.statistics(rounded, 0.4)
    values, _ = results(moved(rounded, torch.float32), 0.4)
    assert launched
    for field in NAMES:
        assert values[field].tolist() == pytest.approx(expected[field], rel=2e-6, abs=2e-6), field


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "similarity",
    [kt.Cosine(), kt.Dot(), kt.LearnedTemperature(initial=0.6), kt.LearnedTemperature(bias=-1.0), kt.Bilinear(3)],
    ids=lambda similarity: type(similarity).__name__,
)
def test_gradients_are_those_of_the_engine_in_float64(
    monkeypatch: pytest.MonkeyPatch, name: str, dtype: torch.dtype, similarity: kt.Similarity
) -> None:
    """Against the rounded rows in float64, by the plain engine, which has held to the loops."""
    launched = taken(monkeypatch)
    hardness = 0.5 if dtype == torch.float32 else 0.0
    pairs = replace(scene(name, similarity), hardness=hardness)
    rounded = on(pairs, [tensor.to(dtype).double() for tensor in leaves(pairs)])
    values, gradients = results(moved(rounded, dtype), 0.4)
    assert "_row_sums" in launched
    assert "_slope_rows" in launched
    launched.clear()
    expected, slopes = results(rounded, 0.4)
    assert not launched  # float64 goes the plain way
    for field in NAMES:
        torch.testing.assert_close(values[field].cpu().double(), expected[field].double(), rtol=2e-5, atol=2e-5)
    for ours, theirs in zip(gradients, slopes, strict=True):
        # Rounded once at the end, or for each block; bfloat16's slopes have 16 bits, which a parameter's sum shows.
        whole = 1e-4 if dtype == torch.bfloat16 else 2e-5
        error = 4 * torch.finfo(ours.dtype).eps if ours.dtype != torch.float32 else whole
        assert (ours.cpu().double() - theirs).abs().max() <= error * (1e-3 + theirs.abs().max())


@pytest.mark.parametrize("mirrored", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bounded", [True, False])
def test_more_rows_than_a_chunk_and_sizes_that_divide_nothing(
    mirrored: bool, dtype: torch.dtype, bounded: bool
) -> None:
    rows = normal(75, 37, seed=1).to(dtype).double()
    others = rows if mirrored else normal(101, 37, seed=2).to(dtype).double()
    ours = kt.Keys(row=torch.arange(75), match=torch.arange(75) % 38)
    theirs = ours if mirrored else kt.Keys(row=torch.arange(101) + 1000, match=torch.arange(101) // 2)
    block = kt.Block(rows, others, ours, theirs)
    # The bound of a learned temperature is not asked of a device: exponentials are then shifted.
    similarity = kt.Cosine() if bounded else kt.LearnedTemperature(initial=1.0)
    pairs = kt.Pairs((block,), similarity, hardness=1.0)
    values, gradients = results(moved(pairs, dtype), 0.1)
    expected, slopes = results(pairs, 0.1)
    for field in NAMES:
        torch.testing.assert_close(values[field].cpu().double(), expected[field].double(), rtol=1e-5, atol=1e-5)
    for value, slope in zip(gradients, slopes, strict=True):
        error = torch.finfo(dtype).eps if value.dtype == dtype == torch.bfloat16 else 2e-5
        assert (value.cpu().double() - slope).abs().max() <= error * slope.abs().max()


@pytest.mark.parametrize("frozen", [(True, False), (False, True)])
def test_only_the_gradients_that_are_wanted_are_made(
    monkeypatch: pytest.MonkeyPatch, frozen: tuple[bool, bool]
) -> None:
    launched = taken(monkeypatch)
    pairs = moved(scene("a queue"), torch.float32)
    tensors = [t.requires_grad_(not still) for t, still in zip(leaves(pairs), frozen, strict=True)]
    kt.row_statistics(pairs, temperature=0.2).negative_logsumexp.sum().backward()
    assert launched == ["_row_sums", "_slope_rows"]
    assert [t.grad is None for t in tensors] == list(frozen)


def test_huge_logits_and_rows_of_nothing() -> None:
    """Logits of 1e6, rows of length 0, and an anchor all of whose candidates are excepted."""
    rows = normal(20, 3, seed=1).abs() * 50
    others = normal(23, 3, seed=2).abs() * 50
    rows[4] = 0
    match = torch.arange(20)
    match[2] = 77
    keys = kt.Keys(match=match), kt.Keys(alias=torch.zeros(23, dtype=torch.int64), match=torch.arange(23))
    ours = replace(keys[0], alias=torch.where(torch.arange(20) == 2, 0, 5))
    for similarity, temperature in ((kt.Dot(), 0.01), (kt.Cosine(), 0.01)):
        pairs = kt.Pairs((kt.Block(rows, others, ours, keys[1]),), similarity)
        values, gradients = results(moved(pairs, torch.float32), temperature)
        expected, slopes = results(on(pairs, [t.float().double() for t in leaves(pairs)]), temperature)
        assert values["negative_logsumexp"][2] == -torch.inf
        assert values["negative_count"][2] == 0
        for field in NAMES:
            torch.testing.assert_close(values[field].cpu().double(), expected[field].double(), rtol=1e-5, atol=1e-4)
        for value, slope in zip(gradients, slopes, strict=True):
            assert value.isfinite().all()
            assert (value.cpu().double() - slope).norm() <= 1e-2 * slope.norm()
        if isinstance(similarity, kt.Cosine):
            assert not gradients[0][4].any()


def test_what_is_not_a_number_stays_visible() -> None:
    """On the CPU it is refused where it is compared; the kernels must pass it on for that."""
    rows = normal(20, 3, seed=1, dtype=torch.float32)
    rows[7, 1] = torch.nan
    block = kt.Block(rows, normal(9, 3, seed=2, dtype=torch.float32), kt.Keys(), kt.Keys())
    pairs = moved(kt.Pairs((block,), kt.Dot()), torch.float32)
    if DEVICE == "cpu":
        with pytest.raises(kt.NonFiniteLossError, match="1 of 20 anchors, the first in row 7"):
            kt.row_statistics(pairs)
    else:
        assert kt.row_statistics(pairs).negative_logsumexp.isnan().tolist() == [n == 7 for n in range(20)]


def test_a_similarity_with_a_preparation_of_its_own_is_prepared() -> None:
    class Shifted(kt.Cosine):
        def prepare(self, rows: Tensor) -> Tensor:
            return super().prepare(rows + 1)

    assert kt.Cosine().scaling() is not None
    assert Shifted().scaling() is None
    pairs = scene("match", Shifted())
    rounded = on(pairs, [tensor.float().double() for tensor in leaves(pairs)])
    for ours, theirs in zip(results(moved(rounded, torch.float32), 0.4)[1], results(rounded, 0.4)[1], strict=True):
        assert (ours.cpu().double() - theirs).abs().max() < 1e-5


def test_what_goes_the_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    launched = taken(monkeypatch)
    for name in sorted(SCENES.keys() - set(FUSED)):
        kt.row_statistics(moved(scene(name), torch.float32), temperature=0.4)
        assert not launched, name
    monkeypatch.setenv("KONTRAST_TRITON", "0")
    kt.row_statistics(moved(scene("match"), torch.float32), temperature=0.4)
    assert not launched
    monkeypatch.setenv("KONTRAST_TRITON", "yes")
    with pytest.raises(kt.InvalidValueError, match="`KONTRAST_TRITON` must be 0 or 1, got 'yes'"):
        kt.row_statistics(moved(scene("match"), torch.float32), temperature=0.4)


def test_the_kernels_compile_for_a_card_and_fit_it() -> None:
    """For sm_90, without one: by the compiler that Triton brings; shared memory of a block is at most 227 KiB there."""
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    program = [sys.executable, __file__.replace("test_fused", "compiled")]
    found = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr[-2000:]
    rows = [line.split() for line in found.stdout.splitlines()]
    assert {row[0] for row in rows} == {"row_sums", "slopes", "slope_rows"}
    for name, dtype, shared, registers, spilled in rows:
        assert int(shared) <= 227 << 10, name
        assert 0 < int(registers) <= 255, name
        assert int(spilled) <= 512, (name, dtype, spilled)
