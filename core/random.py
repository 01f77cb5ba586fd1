"""Random numbers that belong to a sample, not to the moment they are drawn.

An augmentation drawn from a stream (`torch.rand`) changes with the number of loader workers, of ranks, and with a
resume. `Draws` computes each number from (seed, epoch, sample id, view, column) instead, by a hash that is good enough
for augmentation and the same on every device.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Draws", "leading_by_numpy", "leading_by_torch", "mix", "mix_by_numpy", "mix_by_torch"]


def _int64(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


# splitmix64's constants (Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195), as wrapped int64.
_GOLDEN = _int64(0x9E3779B97F4A7C15)
_MIX_1 = _int64(0xBF58476D1CE4E5B9)
_MIX_2 = _int64(0x94D049BB133111EB)
_ALL = (1 << 64) - 1
_SHIFT_1, _SHIFT_2, _SHIFT_3 = np.uint64(30), np.uint64(27), np.uint64(31)
_STEP, _FACTOR_1, _FACTOR_2 = (np.uint64(value & _ALL) for value in (_GOLDEN, _MIX_1, _MIX_2))


def mix(value: Tensor) -> Tensor:
    """Apply splitmix64's finaliser to int64; its arithmetic wraps."""
    return mix_by_numpy(value) if value.is_cpu else mix_by_torch(value)


def mix_by_numpy(value: Tensor) -> Tensor:
    """Return `mix` on the CPU: numpy has unsigned integers, and costs a third of torch where tensors are small."""
    return torch.from_numpy(_mixed(_unsigned(value)).view(np.int64))


def _unsigned(value: Tensor) -> NDArray[np.uint64]:
    return value.numpy().view(np.uint64)


def _mixed(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mixed = np.asarray(bits >> _SHIFT_1)
    mixed ^= bits
    mixed *= _FACTOR_1
    shifted = np.asarray(mixed >> _SHIFT_2)
    shifted ^= mixed
    shifted *= _FACTOR_2
    np.right_shift(shifted, _SHIFT_3, out=mixed)
    mixed ^= shifted
    return mixed


def mix_by_torch(value: Tensor) -> Tensor:
    """Return `mix` on any device; masks make the shifts those of unsigned integers."""
    for shift, factor in ((30, _MIX_1), (27, _MIX_2), (31, None)):
        shifted = value >> shift
        shifted &= (1 << (64 - shift)) - 1
        shifted ^= value
        value = shifted if factor is None else shifted.mul_(factor)
    return value


def leading_by_numpy(samples: Tensor, number: Tensor, bits: int) -> Tensor:
    """Return the leading bits of a number of each sample, int64 >= 0, in the shape that both are broadcast to.

    Args:
        samples: `mix` of ids, int64, on the CPU.
        number: which of the sample's numbers, int64, from 0.
        bits: how many, < 64.
    """
    return torch.from_numpy(_leading(_unsigned(samples), _unsigned(number), bits))


def _leading(samples: NDArray[np.uint64], number: NDArray[np.uint64], bits: int) -> NDArray[np.int64]:
    states = number * _STEP
    states += _STEP
    mixed = _mixed(states + samples)
    mixed >>= np.uint64(64 - bits)
    return mixed.view(np.int64)


def leading_by_torch(samples: Tensor, number: Tensor, bits: int) -> Tensor:
    """Return the same on any device."""
    mixed = mix_by_torch(samples + (number * _GOLDEN).add_(_GOLDEN)) >> (64 - bits)
    return mixed.bitwise_and_((1 << bits) - 1)


def _mix(value: int) -> int:
    """Return `mix` of one number."""
    value &= _ALL
    value = ((value ^ (value >> 30)) * _MIX_1) & _ALL
    value = ((value ^ (value >> 27)) * _MIX_2) & _ALL
    return value ^ (value >> 31)


@lru_cache
def _state(seed: int, epoch: int, view: int, stream: int) -> int:
    state = 0
    for part in (seed, epoch, view, *([stream] if stream else [])):
        state = _mix(state + _GOLDEN + part)
    return state


@dataclass(frozen=True)
class Draws:
    """Random numbers as a function of (seed, epoch, sample id, view).

    Args:
        seed: the run's seed.
        epoch: the epoch, so that each one augments anew.
        step: the run's step, for what `generator` draws anew with every batch.
    """

    seed: int
    epoch: int = 0
    step: int = 0

    def uniform(self, ids: Tensor, count: int, *, view: int = 0, stream: int = 0) -> Tensor:
        """Return numbers in [0, 1), float32 [B, count] on the device of `ids`.

        Args:
            ids: sample ids [B], int64.
            count: numbers per sample.
            view: which augmented copy they are for; different views get independent numbers.
            stream: sets apart the numbers of augmenters that work one after the other on the same samples.
        """
        if ids.is_cpu:
            drawn = _leading(self._samples(ids, view, stream)[:, None], np.arange(count, dtype=np.uint64), 24)
            scaled = drawn.astype(np.float32)
            scaled *= np.float32(2.0**-24)
            return torch.from_numpy(scaled)
        samples = mix_by_torch(ids + _int64(_state(self.seed, self.epoch, view, stream)))
        columns = torch.arange(count, device=ids.device)
        return leading_by_torch(samples[:, None], columns, 24).to(torch.float32).mul_(2.0**-24)

    def bits(self, ids: Tensor, owner: Tensor, number: Tensor, *, view: int = 0, stream: int = 0) -> Tensor:
        """Return 40 random bits for each element inside samples, int64 [E]; times 2^-40 they are uniform in [0, 1).

        For what is laid flat because samples differ in size (nodes, edges). An element's bits are a function of its
        sample's id and its number there alone; the leading 24 are column `number` of `uniform`.

        Args:
            ids: sample ids [B], int64.
            owner: the sample of each element, as a row of `ids`, int64 [E].
            number: the element within its sample, int64 [E], >= 0.
            view: which augmented copy they are for.
            stream: as in `uniform`.
        """
        if ids.is_cpu:
            drawn = _leading(self._samples(ids, view, stream)[owner.numpy()], _unsigned(number), 40)
            return torch.from_numpy(drawn)
        samples = mix_by_torch(ids + _int64(_state(self.seed, self.epoch, view, stream)))
        return leading_by_torch(samples.index_select(0, owner), number, 40)

    def _samples(self, ids: Tensor, view: int, stream: int) -> NDArray[np.uint64]:
        return _mixed(_unsigned(ids) + np.uint64(_state(self.seed, self.epoch, view, stream)))

    def generator(self, *, stream: int = 0, each_step: bool = False) -> torch.Generator:
        """Return a CPU generator for what all samples of an epoch share, the same on every rank.

        Args:
            stream: sets apart generators of different use.
            each_step: anew with every batch: for what the samples of one batch share (the length of a crop).
        """
        state = 0
        for part in (self.seed, self.epoch, stream, *([self.step + 1] if each_step else [])):
            state = _mix(state + _GOLDEN + part)
        return torch.Generator().manual_seed(state & ((1 << 62) - 1))
