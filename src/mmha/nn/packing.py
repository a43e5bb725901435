"""Sequences laid end to end in one row, instead of padded side by side; `masks.Documents` keeps them apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def groups(lengths: Sequence[int], order: Iterable[int], tokens: int) -> list[list[int]]:
    """Sequence numbers in the given order, cut where a row would exceed so many tokens; no sequence is cut.

    >>> groups([3, 4, 9, 1], [0, 1, 2, 3], tokens=8)
    [[0, 1], [2], [3]]
    """
    cut: list[list[int]] = []
    room = 0
    for i in order:
        if not cut or lengths[i] > room:
            cut.append([])
            room = tokens
        cut[-1].append(i)
        room -= lengths[i]
    return cut


def positions_of(lengths: Sequence[int]) -> Tensor:
    """The position of each token in its own sequence when sequences of these lengths are packed in one row.

    Returns: int64 (sum(lengths),).

    >>> positions_of([3, 2]).tolist()
    [0, 1, 2, 0, 1]
    """
    sizes = torch.tensor(lengths, dtype=torch.int64)
    starts = sizes.cumsum(0) - sizes
    return torch.arange(int(sizes.sum())) - starts.repeat_interleave(sizes)
