"""Which weights dropout drops: a function of the seed and of the place of the weight alone, drawn by counting.

No generator has a state here, so a pattern needs no memory, backward draws what forward drew, and neither the number
of threads nor the order of the work can change it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

UInt32s = npt.NDArray[np.uint32]
UInt64s = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Dropout:
    """Every visible weight is dropped with probability p, and the others are divided by 1 - p.

    p: 0 ... 1. seed: any integer, taken modulo 2**64. A weight is dropped when its `noise` is below
    min(round(p * 2**32), 2**32 - 1). Source: Srivastava et al. 2014, "Dropout"; on attention weights, Vaswani 2017.

    >>> Dropout(0.25, seed=7).keep(0, slice(0, 1), slice(0, 2), 8).int()
    tensor([[[0, 1, 1, 1, 1, 1, 1, 1],
             [1, 1, 1, 1, 1, 1, 1, 0]]], dtype=torch.int32)
    """

    p: float
    seed: int

    @property
    def factor(self) -> float:
        """What a weight that stays is multiplied by: 1 / (1 - p), and 0 when p is 1."""
        return 1.0 / (1.0 - self.p) if self.p < 1.0 else 0.0

    def keep(self, b: int, heads: slice, rows: slice, keys: int) -> Tensor:
        """Which weights stay in batch row b: bool (heads, rows, keys). Rows are those of q, not positions."""
        threshold = np.uint32(min(round(self.p * 2.0**32), 2**32 - 1))
        return torch.from_numpy(noise(self.seed, b, heads, rows, keys) >= threshold)


def noise(seed: int, b: int, heads: slice, rows: slice, keys: int) -> UInt32s:
    """A number for every weight of some heads and rows of batch row b: uint32 (heads, rows, keys), evenly distributed.

    row = mix(mix(mix(mix(seed) ^ b) ^ h) ^ i) and key = mix(mix(~seed) ^ j), both uint64, are made once per row and
    once per key; per pair their halves meet in two rounds of 32 bits.
    Source: Steele et al. 2014, "Fast splittable pseudorandom number generators" (`mix` is SplitMix64); the rounds per
    pair are C. Wellons' lowbias32, 2018, with the key taken in at its middle.

    >>> hex(noise(1, 2, slice(3, 4), slice(5, 6), 8)[0, 0, 7])
    '0x31604118'
    """
    whole = np.array([seed & (2**64 - 1)], np.uint64)
    row = _mix(_mix(_mix(whole) ^ np.uint64(b)) ^ np.arange(heads.start, heads.stop, dtype=np.uint64))
    row = _mix(row[:, None] ^ np.arange(rows.start, rows.stop, dtype=np.uint64))[:, :, None]
    key = _mix(_mix(~whole) ^ np.arange(keys, dtype=np.uint64))
    x = _low(row) ^ _low(key)
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x7FEB352D)
    x ^= x >> np.uint32(15)
    x += _high(row) ^ _high(key)
    x *= np.uint32(0x846CA68B)
    x ^= x >> np.uint32(16)
    return x


def _mix(x: UInt64s) -> UInt64s:
    """SplitMix64: a bijection of 64 bits in which each bit of x reaches every bit."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _low(x: UInt64s) -> UInt32s:
    return x.astype(np.uint32)


def _high(x: UInt64s) -> UInt32s:
    return (x >> np.uint64(32)).astype(np.uint32)
