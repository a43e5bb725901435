"""Sequences laid end to end in one row, instead of padded side by side; `masks.Documents` keeps them apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mmha import checks
from mmha.masks import Documents, held
from mmha.masks.arrays import Int64s, owners

Lengths = Tensor | Int64s | Sequence[int]
Side = Literal["right", "left"]


def pack(x: Tensor, lengths: Lengths, *, padding_side: Side = "right") -> tuple[Tensor, Documents]:
    """Lay the real tokens of a padded batch end to end in one row, and tell attention where each sequence ends.

    packed[0, lengths[0] + ... + lengths[b-1] + t] = x[b, t] for t < lengths[b]; with padding on the left,
    x[b, T - lengths[b] + t]. Padding then costs nothing, in attention and in every layer around it. Joined to the mask
    by `&`, masks that compare positions (`Causal`, `Window`) mean what they mean for a sequence alone. Codes of
    positions count from the beginning of each sequence: `nn.packed_positions`.

    Args:
        x: (B, T, ...), any dtype: token ids, embeddings, labels. Differentiable; the gradient is 0 at padding.
        lengths: integers (B,), a sequence or a tensor, 0 to T: how many tokens of each row are real. With a tensor of
            flags, `real.sum(1)`.
        padding_side: the side of the rows that padding is on, "right" or "left".

    Returns:
        packed (1, N, ...) with N = sum(lengths), and the mask of its N tokens: `Documents.from_lengths(lengths)`.

    Raises:
        TypeError, ValueError: when lengths are not (B,) integers from 0 to T, or x has no dimension T.

    Source: Krell et al. 2021, "Efficient Sequence Packing without Cross-contamination".

    >>> import mmha
    >>> from mmha.masks import Causal
    >>> ids = torch.tensor([[5, 6, 7], [8, 0, 0]])
    >>> packed, mask = mmha.pack(ids, [3, 1])
    >>> packed, mask
    (tensor([[5, 6, 7, 8]]), Documents([0, 0, 0, 1]))
    >>> block = mmha.nn.Block(width=6, heads=2, hidden=10)
    >>> x = block(torch.nn.Embedding(9, 6)(packed), Causal() & mask)
    >>> mmha.unpack(x, [3, 1]).shape
    torch.Size([2, 3, 6])
    """
    _check("x", "(B, T, ...)", x)
    batch, length = x.shape[:2]
    sizes = _sizes(lengths, batch)
    longest = int(sizes.max(initial=0))
    if longest > length:
        raise checks.value_error("lengths", f"integers <= T = {length}", str(longest))
    rows, columns = _places(sizes, length, padding_side)
    return x[rows.to(x.device), columns.to(x.device)][None], Documents(rows)


def unpack(packed: Tensor, lengths: Lengths, length: int | None = None, *, padding_side: Side = "right") -> Tensor:
    """Lay the sequences of a packed row side by side again, padded with 0: the way back from `pack`.

    out[b, t] = packed[0, lengths[0] + ... + lengths[b-1] + t] for t < lengths[b], else 0.

    Args:
        packed: (1, N, ...), any dtype, N = sum(lengths). Differentiable.
        lengths: integers (B,) >= 0, as given to `pack`.
        length: T, the padded length, at least that of the longest sequence; None = that.
        padding_side: where padding goes, "right" or "left".

    Returns: (B, T, ...), the dtype of packed.
    Raises: TypeError, ValueError when lengths are not (B,) integers >= 0, do not add up to N, or one exceeds length.

    >>> unpack(torch.tensor([[5, 6, 7, 8]]), [3, 1], padding_side="left")
    tensor([[5, 6, 7],
            [0, 0, 8]])
    """
    _check("packed", "(1, N, ...)", packed)
    sizes = _sizes(lengths)
    total = int(sizes.sum())
    if packed.shape[:2] != (1, total):
        wanted = f"shape (1, N, ...) with N = sum(lengths) = {total}"
        raise checks.value_error("packed", wanted, checks.shape_text(packed.shape))
    longest = int(sizes.max(initial=0))
    length = longest if length is None else checks.integer("length", length, longest)
    rows, columns = _places(sizes, length, padding_side)
    padded = packed.new_zeros((len(sizes), length, *packed.shape[2:]))
    padded[rows.to(packed.device), columns.to(packed.device)] = packed[0]
    return padded


def packed_positions(lengths: Lengths) -> Tensor:
    """The position of each token in its own sequence when sequences of these lengths are packed in one row.

    Args: lengths integers (B,) >= 0, a sequence or a tensor.
    Returns: int64 (N,), N = sum(lengths).
    Raises: TypeError, ValueError when lengths are not (B,) integers >= 0.

    >>> packed_positions([3, 2]).tolist()
    [0, 1, 2, 0, 1]
    """
    sizes = _sizes(lengths)
    starts = (sizes.cumsum() - sizes)[owners(sizes)]
    return torch.from_numpy(np.arange(len(starts)) - starts)


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


def _places(sizes: Int64s, length: int, padding_side: Side) -> tuple[Tensor, Tensor]:
    """Where each packed token stands in the padded batch (B, length): its row and its column."""
    rows = owners(sizes)
    columns = packed_positions(sizes)
    if checks.one_of("padding_side", padding_side, ("right", "left")) == "left":
        columns += torch.from_numpy((length - sizes)[rows])
    return torch.from_numpy(rows), columns


def _sizes(lengths: Any, batch: int | None = None) -> Int64s:
    """The lengths as an array, checked."""
    sizes = held.integers("lengths", lengths, "integers of shape (B,)")
    if sizes.dim() != 1:
        raise checks.value_error("lengths", "integers of shape (B,)", f"shape {checks.shape_text(sizes.shape)}")
    held.fit_lengths("lengths", sizes, len(sizes) if batch is None else batch)
    return held.numpy(sizes)


def _check(argument: str, letters: str, x: Any) -> None:
    if not isinstance(x, Tensor):
        raise checks.type_error(argument, f"a tensor of shape {letters}", x)
    if x.is_nested or x.layout != torch.strided:
        kind = "a nested tensor" if x.is_nested else f"layout {str(x.layout).removeprefix('torch.')}"
        raise TypeError(checks.message(argument, "a dense (strided) tensor", kind))
    if x.dim() < 2:
        raise checks.value_error(argument, f"shape {letters}", checks.shape_text(x.shape))
