"""Small arithmetic on arrays of offsets, spans and bits, and the bounds on how much memory is touched at a time."""

from __future__ import annotations

import functools
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from mmha import _kernels, checks

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
CHUNK = 2**22  # elements handled at a time where rows x keys must be touched
_ONES = np.array([bin(octet).count("1") for octet in range(256)], dtype=np.uint8)  # numpy 1 has no bitwise_count


def check_room(nbytes: int) -> None:
    """Raise MemoryError for an array larger than the machine: the system would grant it and later end the process."""
    if nbytes > (limit := _memory()):
        raise MemoryError(
            checks.message(
                "mask", f"a plan that fits in memory ({limit / 1e9:.1f} GB)", f"one of {nbytes / 1e9:.1f} GB"
            )
        )


@functools.cache
def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # no sysconf here: numpy's own MemoryError has to do
        return 2**63


def ends(counts: npt.NDArray[Any]) -> Int64s:
    """Offsets (R + 1) of groups with these sizes."""
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets


def owners(counts: npt.NDArray[Any]) -> Int64s:
    """Of each member of groups with these sizes, one after the other, the number of its group.

    torch.repeat_interleave says the same, but it looks for torch's threads whatever the size, and waits forever for
    them in the child of a fork, where they do not exist.
    """
    return np.arange(len(counts), dtype=np.int64).repeat(counts)


def run_count(bits: Words) -> int:
    """How many runs of set bits there are in all rows."""
    total, step = 0, max(1, CHUNK // max(1, bits.shape[1]))
    for row in range(0, len(bits), step):
        part = bits[row : row + step]
        before = part << np.uint64(1)
        before[:, 1:] |= part[:, :-1] >> np.uint64(63)
        total += int(_ONES[(part & ~before).view(np.uint8)].sum(dtype=np.int64))
    return total


def bits_to_spans(bits: Words, k_len: int) -> tuple[Int64s, Int32s]:
    """Offsets and spans of rows of bits."""
    counts, spans = [np.zeros(1, dtype=np.int64)], [np.zeros((0, 2), dtype=np.int32)]
    step = max(1, CHUNK // max(1, k_len))
    for row in range(0, len(bits), step):
        octets = np.ascontiguousarray(bits[row : row + step]).astype("<u8", copy=False).view(np.uint8)
        seen = np.unpackbits(octets, axis=1, count=k_len, bitorder="little").view(np.bool_)
        offsets, runs = _kernels.from_bool(np.ascontiguousarray(seen))
        counts.append(np.diff(offsets))
        spans.append(runs)
    return np.cumsum(np.concatenate(counts)), np.concatenate(spans)
