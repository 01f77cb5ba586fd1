import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kontrast import Draws
from kontrast.random import leading_by_numpy, leading_by_torch, mix, mix_by_numpy, mix_by_torch

N = 100_000
WORD = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix_in_python(z: int) -> int:
    """splitmix64's finaliser on unbounded integers."""
    z &= WORD
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
    return z ^ (z >> 31)


def signed(z: int) -> int:
    return z - (1 << 64) if z >> 63 else z


def correlation(x: Tensor, y: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([x.double(), y.double()]))[0, 1])


# Five standard errors of the correlation of independent columns. All here are fixed functions: no chance in a rerun.
BOUND = 5 / math.sqrt(N)
IDS = torch.arange(N)


@pytest.mark.parametrize("z", [0, 1, 2, GOLDEN, 1 << 31, 1 << 62, 1 << 63, WORD, WORD - 1, 0x0123456789ABCDEF])
def test_mix_is_splitmix64s_finaliser(z: int) -> None:
    assert int(mix(torch.tensor(signed(z)))) == signed(mix_in_python(z))


def test_mix_is_the_same_on_a_gpus_way_whatever_shape() -> None:
    drawn = torch.randint(-(2**63), 2**63 - 1, (7, 5), generator=torch.Generator().manual_seed(0))
    for z in (drawn, drawn.T, drawn[:, 1], drawn[0, 0], drawn[:0]):
        before = z.clone()
        assert torch.equal(mix_by_torch(z), mix_by_numpy(z))
        assert torch.equal(z, before)


@pytest.mark.parametrize("bits", [1, 24, 40, 63])
def test_leading_bits_are_those_of_the_hash_on_the_cpu_as_on_a_gpu(bits: int) -> None:
    samples = torch.randint(-(2**63), 2**63 - 1, (6,), generator=torch.Generator().manual_seed(1))
    number = torch.tensor([0, 1, 17, 1 << 40, 1 << 62, 3])
    none = samples[:0]
    for own, place in ((samples, number), (samples[:, None], number[:3]), (samples[::2], number[1::2]), (none, none)):
        pairs = zip(*(part.flatten().tolist() for part in torch.broadcast_tensors(own, place)), strict=True)
        expected = [mix_in_python(sample + GOLDEN * (n + 1)) >> (64 - bits) for sample, n in pairs]
        for way in (leading_by_numpy, leading_by_torch):
            assert way(own, place, bits).flatten().tolist() == expected


def test_mix_gives_the_published_sequence() -> None:
    # The first outputs of splitmix64 for the seed 1234567, as its reference implementation prints them.
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    states = torch.tensor([signed((1234567 + GOLDEN * i) & WORD) for i in range(1, 6)])
    assert [int(z) & WORD for z in mix(states)] == published


@pytest.mark.parametrize(("seed", "epoch", "view"), [(0, 0, 0), (7, 3, 1), (-1, 0, 0), (2**62, 10**6, 5)])
def test_draws_are_their_hash(seed: int, epoch: int, view: int) -> None:
    ids = [0, 1, 17, 1 << 40, (1 << 63) - 1, -5]
    state = 0
    for part in (seed, epoch, view):
        state = mix_in_python(state + GOLDEN + part)
    expected = [
        [(mix_in_python(mix_in_python(state + sample) + GOLDEN * column) >> 40) / 2**24 for column in (1, 2, 3)]
        for sample in ids
    ]
    drawn = Draws(seed, epoch).uniform(torch.tensor(ids), 3, view=view)
    assert drawn.dtype == torch.float32
    assert drawn.tolist() == expected


def test_a_samples_numbers_do_not_depend_on_its_batch() -> None:
    draws = Draws(3, 5)
    whole = draws.uniform(IDS[:1000], 7, view=1)
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(draws.uniform(order, 7, view=1), whole[order])
    assert torch.equal(draws.uniform(IDS[41:42], 7, view=1), whole[41:42])
    assert torch.equal(draws.uniform(torch.tensor([5, 5]), 7, view=1), whole[[5, 5]])
    # Nor on how many are asked for, so that a new parameter leaves the old ones as they were.
    assert torch.equal(draws.uniform(IDS[:1000], 3, view=1), whole[:, :3])
    assert draws.uniform(IDS[:0], 2).shape == (0, 2)


UNLIKE: dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]] = {
    "seed": (lambda: Draws(0).uniform(IDS, 1), lambda: Draws(1).uniform(IDS, 1)),
    "epoch": (lambda: Draws(0, 0).uniform(IDS, 1), lambda: Draws(0, 1).uniform(IDS, 1)),
    "later epoch": (lambda: Draws(0, 41).uniform(IDS, 1), lambda: Draws(0, 42).uniform(IDS, 1)),
    "view": (lambda: Draws(0).uniform(IDS, 1, view=0), lambda: Draws(0).uniform(IDS, 1, view=1)),
    "column": (lambda: Draws(0).uniform(IDS, 2)[:, :1], lambda: Draws(0).uniform(IDS, 2)[:, 1:]),
    "last column": (lambda: Draws(0).uniform(IDS, 9)[:, 7:8], lambda: Draws(0).uniform(IDS, 9)[:, 8:]),
    "id": (lambda: Draws(0).uniform(IDS, 1), lambda: Draws(0).uniform(IDS + 1, 1)),
    "far id": (lambda: Draws(0).uniform(IDS, 1), lambda: Draws(0).uniform(IDS + (1 << 40), 1)),
    "seed against epoch": (lambda: Draws(1, 0).uniform(IDS, 1), lambda: Draws(0, 1).uniform(IDS, 1)),
    "epoch against view": (lambda: Draws(0, 1).uniform(IDS, 1), lambda: Draws(0, 0).uniform(IDS, 1, view=1)),
    "id against column": (lambda: Draws(0).uniform(IDS + 1, 1), lambda: Draws(0).uniform(IDS, 2)[:, 1:]),
}


@pytest.mark.parametrize(("first", "second"), UNLIKE.values(), ids=UNLIKE)
def test_draws_that_differ_in_one_thing_are_unrelated(
    first: Callable[[], Tensor], second: Callable[[], Tensor]
) -> None:
    x, y = first()[:, 0], second()[:, 0]
    # Two of 2**24 values meet by chance in about one of the 100,000 rows.
    assert int((x == y).sum()) < 10
    assert abs(correlation(x, y)) < BOUND
    assert abs(correlation((x - 0.5).square(), (y - 0.5).square())) < BOUND
    # The joint distribution is flat too: chi-square over 10 x 10 cells.
    cells = torch.bincount((x * 10).long() * 10 + (y * 10).long(), minlength=100)
    assert float(((cells - N / 100) ** 2 / (N / 100)).sum()) < 99 + 5 * math.sqrt(2 * 99)


@pytest.mark.parametrize("ids", [IDS, IDS * 1024, -IDS], ids=["consecutive", "strided", "negative"])
@pytest.mark.parametrize(("seed", "epoch", "view"), [(0, 0, 0), (1, 2, 3), (2**40, 999, 0)])
def test_draws_are_uniform(ids: Tensor, seed: int, epoch: int, view: int) -> None:
    drawn = Draws(seed, epoch).uniform(ids, 2, view=view).double()
    assert drawn.min() >= 0
    assert drawn.max() < 1
    for column in drawn.unbind(1):
        assert abs(float(column.mean()) - 1 / 2) < 5 * math.sqrt(1 / 12 / N)
        assert abs(float(column.var()) - 1 / 12) < 5 * math.sqrt((1 / 80 - 1 / 144) / N)
        counts = torch.bincount((column * 100).long(), minlength=100)
        assert float(((counts - N / 100) ** 2 / (N / 100)).sum()) < 99 + 5 * math.sqrt(2 * 99)
        # The Kolmogorov-Smirnov distance exceeds 2.2 / sqrt(N) once in 8,000 independent samples.
        grid = (torch.arange(N, dtype=torch.float64) + 0.5) / N
        assert float((column.sort().values - grid).abs().max()) < 2.2 / math.sqrt(N)


def test_draws_take_the_device_of_the_ids() -> None:
    assert Draws(0).uniform(IDS[:2].to("meta"), 3).device.type == "meta"


def test_a_generator_is_a_function_of_seed_epoch_and_stream() -> None:
    def first(seed: int, epoch: int, stream: int = 0) -> tuple[float, ...]:
        generator = Draws(seed, epoch).generator(stream=stream)
        return tuple(torch.rand(4, generator=generator).tolist())

    assert first(3, 2, 1) == first(3, 2, 1)
    settings = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1), (-1, 0, 0)]
    assert len({first(*setting) for setting in settings}) == len(settings)
    # It is a generator of its own: the global one is neither read nor moved.
    before = torch.random.get_rng_state()
    first(0, 0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_bits_of_elements_are_columns_of_the_uniform_numbers_whatever_else_is_in_the_batch() -> None:
    ids, draws = torch.tensor([7, 3, 1 << 40]), Draws(5, 2)
    owner, number = torch.tensor([2, 0, 1, 0, 2]), torch.tensor([0, 4, 1, 0, 3])
    bits = draws.bits(ids, owner, number, view=1, stream=9)
    uniform = draws.uniform(ids, 5, view=1, stream=9)[owner, number]
    assert torch.equal((bits >> 16).double() * 2.0**-24, uniform.double())
    assert torch.equal(bits[1:2], draws.bits(ids[:1], torch.tensor([0]), number[1:2], view=1, stream=9))


class OnAnotherDevice(Tensor):
    """A tensor that says it is not on the CPU."""

    is_cpu = False


def test_draws_are_the_same_on_a_gpus_way() -> None:
    ids, draws = torch.tensor([7, 3, 1 << 40, -5]), Draws(5, 2)
    owner, number = torch.tensor([2, 0, 1, 0, 3]), torch.tensor([0, 4, 1, 1 << 50, 3])
    there = ids.as_subclass(OnAnotherDevice)
    uniform, bits = draws.uniform(there, 6, view=1, stream=9), draws.bits(there, owner, number, view=1, stream=9)
    assert type(uniform) is type(bits) is OnAnotherDevice
    assert uniform.tolist() == draws.uniform(ids, 6, view=1, stream=9).tolist()
    assert bits.tolist() == draws.bits(ids, owner, number, view=1, stream=9).tolist()


def test_all_forty_bits_are_fair() -> None:
    bits = Draws(0).bits(torch.arange(100), torch.arange(100).repeat_interleave(1000), torch.arange(1000).repeat(100))
    shares = torch.stack([(bits >> place & 1).double().mean() for place in range(40)])
    assert (shares - 0.5).abs().max() < 5 * 0.5 / math.sqrt(N)
    assert int(bits.min()) >= 0
    assert int(bits.max()) < 1 << 40
