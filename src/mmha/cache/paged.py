"""`PagedKVCache`: blocks of tokens shared out to sequences that grow, fork and end at different times."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmha import checks
from mmha.cache import sizes
from mmha.ops.caches import MAX_LENGTH, Cache


class OutOfBlocks(ValueError):
    """No block is free for what was asked; nothing has changed. Free a sequence, or wait until one ends."""


class _Sequence:
    """The blocks of one sequence, in order, as int32 side by side, and its length in tokens."""

    __slots__ = ("blocks", "length")

    def __init__(self) -> None:
        self.blocks, self.length = array("i"), 0


class PagedKVCache:
    """A pool of blocks for the keys and values of many sequences; `select` makes a batch of some of them.

    A sequence owns as many blocks of `block_size` tokens as it needs. `fork` makes another that shares them; a shared
    block is copied when one of its sequences writes to it (copy on write).

    Args:
        num_blocks, block_size: how many blocks, and the tokens of one. A multiple of 16 wastes no memory.
        kv_heads: Hk. head_dim: D, 1 to 512. value_dim: Dv, None = D. dtype: as for `KVCache`.

    Raises:
        TypeError, ValueError: naming the argument. OutOfBlocks: from `append`, when no block is free.

    Source: Kwon et al. 2023, "Efficient Memory Management for Large Language Model Serving with PagedAttention".

    >>> import torch, mmha
    >>> pool = mmha.PagedKVCache(num_blocks=8, block_size=16, kv_heads=2, head_dim=8)
    >>> [prompt] = pool.allocate(1)
    >>> pool.select([prompt]).append(torch.randn(1, 2, 20, 8), torch.randn(1, 2, 20, 8))
    >>> answer = pool.fork(prompt)
    >>> batch = pool.select([prompt, answer])
    >>> mmha.attention(torch.randn(2, 6, 1, 8), batch).shape, batch.lengths, pool.free_blocks
    (torch.Size([2, 6, 1, 8]), tensor([20, 20]), 6)
    """

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        kv_heads: int,
        head_dim: int,
        *,
        value_dim: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.num_blocks = checks.integer("num_blocks", num_blocks, 1, MAX_LENGTH)
        self.block_size = checks.integer("block_size", block_size, 1, MAX_LENGTH)
        self._memory = sizes.memory(self.num_blocks, self.block_size, kv_heads, head_dim, value_dim, dtype)
        self._users = [0] * self.num_blocks  # sequences that hold each block
        self._free = list(range(self.num_blocks - 1, -1, -1))
        self._sequences: dict[int, _Sequence] = {}
        self._next = 0
        self._version = 0  # views look whether anything changed

    def __repr__(self) -> str:
        memory, name = self._memory, str(self._memory.dtype).removeprefix("torch.")
        dims = f"kv_heads={memory.kv_heads}, head_dim={memory.dims[0]}, value_dim={memory.dims[1]}"
        return f"PagedKVCache(num_blocks={self.num_blocks}, block_size={self.block_size}, {dims}, dtype={name})"

    @property
    def free_blocks(self) -> int:
        """How many blocks no sequence holds."""
        return len(self._free)

    @property
    def nbytes(self) -> int:
        """Memory of all blocks, in bytes."""
        return self._memory.nbytes

    def block_table(self, sequence: int) -> list[int]:
        """The blocks of a sequence, in order."""
        return list(self._get(sequence).blocks)

    def allocate(self, count: int = 1) -> list[int]:
        """The numbers of new, empty sequences. They take blocks when tokens are appended."""
        made = [self._next + i for i in range(checks.integer("count", count, 0))]
        self._next += len(made)
        for number in made:
            self._sequences[number] = _Sequence()
        return made

    def fork(self, sequence: int, length: int | None = None) -> int:
        """The number of a new sequence that shares the tokens of another, all or the first `length`."""
        source = self._get(sequence)
        kept = source.length if length is None else checks.integer("length", length, 0, source.length)
        [number] = self.allocate(1)
        self._share(self._sequences[number], source.blocks[: -(-kept // self.block_size)], kept)
        return number

    def free(self, sequences: int | Iterable[int]) -> None:
        """End sequences; blocks that nobody else holds become free."""
        for number in self._numbers("sequences", sequences):
            self._cut(self._sequences.pop(number), 0)

    def select(self, sequences: Iterable[int]) -> PagedRows:
        """A batch of sequences, row b being sequences[b]: append to it, and attend over it as over a `KVCache`."""
        return PagedRows(self, self._numbers("sequences", sequences))

    def _numbers(self, name: str, sequences: Any) -> list[int]:
        if checks.is_tensor(sequences):
            sequences = sequences.tolist()
        if isinstance(sequences, int):
            sequences = [sequences]
        if isinstance(sequences, str) or not isinstance(sequences, Iterable):
            raise checks.type_error(name, "sequences, as allocate returned them", sequences)
        numbers = [checks.integer(name, n) for n in sequences]
        for number in numbers:
            self._get(number, name)
        if len(set(numbers)) < len(numbers):
            raise checks.value_error(name, "each sequence once", str(numbers))
        return numbers

    def _get(self, number: Any, name: str = "sequence") -> _Sequence:
        found = self._sequences.get(checks.integer(name, number))
        if found is None:
            raise checks.value_error(name, "a sequence that was allocated and not freed", str(number))
        return found

    def _share(self, sequence: _Sequence, blocks: array[int], length: int) -> None:
        """Give an empty sequence blocks that others hold, too."""
        for block in blocks:
            self._users[block] += 1
        sequence.blocks, sequence.length = blocks, length
        self._version += 1

    def _cut(self, sequence: _Sequence, length: int) -> None:
        """Let the sequence end there; blocks that lost their last user become free."""
        kept = -(-length // self.block_size)
        for block in sequence.blocks[kept:]:
            self._users[block] -= 1
            if self._users[block] == 0:
                self._free.append(block)
        del sequence.blocks[kept:]
        sequence.length = length
        self._version += 1

    def _make_writable(self, wanted: list[tuple[_Sequence, int, int]]) -> None:
        """Give each sequence blocks of its own for tokens [first, stop); raise OutOfBlocks, unchanged, if too few."""
        shared = []  # (sequence, page) that must be copied: a block with other users that stay
        users: dict[int, int] = {}  # of blocks that are written to, after the copies noted so far
        need = 0
        for sequence, first, stop in wanted:
            if first >= stop:
                continue
            need += max(0, -(-stop // self.block_size) - len(sequence.blocks))
            for page in range(first // self.block_size, min(-(-stop // self.block_size), len(sequence.blocks))):
                block = sequence.blocks[page]
                users.setdefault(block, self._users[block])
                if users[block] > 1:
                    users[block] -= 1
                    shared.append((sequence, page))
        if need + len(shared) > len(self._free):
            expected = f"tokens for the {len(self._free)} free blocks of {self.block_size}"
            raise OutOfBlocks(checks.message("k", expected, f"tokens that need {need + len(shared)}"))
        for sequence, page in shared:
            self._copy(sequence, page)
        for sequence, first, stop in wanted:
            while first < stop and len(sequence.blocks) * self.block_size < stop:
                sequence.blocks.append(self._take())
        self._version += 1

    def _take(self) -> int:
        block = self._free.pop()
        self._users[block] = 1
        return block

    def _copy(self, sequence: _Sequence, page: int) -> None:
        old, new = sequence.blocks[page], self._take()
        self._memory.copy_block(old, new)
        self._users[old] -= 1
        sequence.blocks[page] = new


class PagedRows(Cache):
    """A batch of sequences of a `PagedKVCache`, with the interface of a `KVCache`. Made by `PagedKVCache.select`."""

    def __init__(self, pool: PagedKVCache, numbers: list[int]) -> None:
        super().__init__(len(numbers), pool._memory)
        self.pool, self.sequences = pool, numbers
        self._seen = -1
        self._refresh()

    def __repr__(self) -> str:
        return f"PagedRows({self.sequences}, lengths={self.lengths.tolist()})"

    @property
    def lengths(self) -> Tensor:
        """How many tokens each row has seen, int64 (B,), a copy: the position of its next token."""
        self._refresh()
        return self._lengths.clone()

    def truncate(self, lengths: int | Tensor) -> None:
        """Forget the last tokens of each row, so that `lengths` are left; blocks without a token become free."""
        self._refresh()
        wanted = self._shorter(lengths)
        for row, length in zip(self._rows(), wanted.tolist(), strict=True):
            self.pool._cut(row, length)
        self._refresh()

    def reset(self, rows: Any = None) -> None:
        """Empty all rows, or those given: an int or integers; their blocks become free."""
        which = range(self.batch) if rows is None else self._row_numbers("rows", rows).tolist()
        for b in which:
            self.pool._cut(self._rows()[b], 0)
        self._refresh()

    def reorder(self, index: Tensor) -> None:
        """Row b becomes row index[b], integers (B,): it shares that row's blocks until one of them writes."""
        order = self._row_numbers("index", index)
        checks.shape_is("index", order, (self.batch,), "(B,)")
        rows = self._rows()
        held = [_Sequence() for _ in rows]  # so that no block becomes free in between
        for keeper, b in zip(held, order.tolist(), strict=True):
            self.pool._share(keeper, rows[b].blocks[:], rows[b].length)
        for row, keeper in zip(rows, held, strict=True):
            self.pool._cut(row, 0)
            row.blocks, row.length = keeper.blocks, keeper.length
        self._refresh()

    branch = reorder

    def _rows(self) -> list[_Sequence]:
        return [self.pool._get(number, "cache") for number in self.sequences]

    def _refresh(self) -> None:
        """Take over what happened to the sequences since the last look."""
        if self._seen == self.pool._version:
            return
        rows = self._rows()
        self._lengths.copy_(torch.tensor([row.length for row in rows], dtype=torch.int64, device="cpu"))
        width = max((len(row.blocks) for row in rows), default=0)
        table = np.zeros((self.batch, width), dtype=np.int32)
        for own, row in zip(table, rows, strict=True):
            own[: len(row.blocks)] = row.blocks  # a copy of memory, not number by number
        self._table = torch.from_numpy(table)
        self._look()
        self._seen = self.pool._version

    def _look(self) -> None:
        self._native.point(self._table.data_ptr() if self._table.numel() else 0, self._table.shape[1], 0)

    def _make_room(self, first: Tensor, stop: Tensor) -> None:
        rows, starts, ends = self._rows(), first.tolist(), stop.tolist()
        if max(ends) > MAX_LENGTH:
            raise checks.value_error("k", f"at most {MAX_LENGTH} tokens in a row", str(max(ends)))
        self.pool._make_writable(list(zip(rows, starts, ends, strict=True)))
        for row, end in zip(rows, ends, strict=True):
            self.pool._cut(row, end)
        self._refresh()
