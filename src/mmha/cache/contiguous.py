"""`KVCache`: one run of memory per row of the batch, straight or, with a window, as a ring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmha import checks
from mmha.cache import sizes
from mmha.ops.caches import GROUP, MAX_LENGTH, Cache


class KVCache(Cache):
    """Keys and values of past tokens, as decoding reads them: `attention(q, cache)` takes it in the place of k and v.

    Without a window row b keeps its tokens 0 .. lengths[b] - 1, at most `max_len` of them. With `window=` it is cyclic:
    a query at position p sees the keys j > p - window and j < sinks, as in `Window(window - 1, None) | Prefix(sinks)`,
    and rows may grow without end. The ring has max(max_len, window +
    sinks) places: what `max_len` leaves beyond window + sinks lets that many more tokens be appended before their
    queries attend, and be taken back.

    Args:
        batch: rows B. kv_heads: Hk. max_len: tokens a row has room for. head_dim: D, 1 to 512. value_dim: Dv, None = D.
        dtype: float32, bfloat16, float16, or int8: per token and head, x = scale * int8 with scale = max |x| / 127.
        window, sinks: see above; None, 0 = no ring.

    Raises:
        TypeError, ValueError: naming the argument. MemoryError: when it does not fit into memory.

    Source: Shazeer 2019, "Fast Transformer Decoding"; sinks: Xiao et al. 2024, "Efficient Streaming Language Models".

    >>> import torch, mmha
    >>> from mmha.masks import Causal
    >>> cache = mmha.KVCache(batch=1, kv_heads=2, max_len=16, head_dim=8)
    >>> cache.append(torch.randn(1, 2, 5, 8), torch.randn(1, 2, 5, 8))
    >>> mmha.attention(torch.randn(1, 6, 1, 8), cache).shape, cache.lengths
    (torch.Size([1, 6, 1, 8]), tensor([5]))
    """

    def __init__(
        self,
        batch: int,
        kv_heads: int,
        max_len: int,
        head_dim: int,
        *,
        value_dim: int | None = None,
        dtype: torch.dtype = torch.float32,
        window: int | None = None,
        sinks: int = 0,
    ) -> None:
        rows = checks.integer("batch", batch, 0)
        slots = checks.integer("max_len", max_len, 1, MAX_LENGTH)
        first = checks.integer("sinks", sinks, 0, MAX_LENGTH)
        if window is not None:
            slots = max(slots, checks.integer("window", window, 1, MAX_LENGTH) + first)
        elif first:
            raise checks.value_error("sinks", "0 without a window", str(first))
        super().__init__(rows, sizes.memory(rows, slots, kv_heads, head_dim, value_dim, dtype), window, first)
        self.max_len = slots
        self._level = False  # rows are known to be equally long, with slots of their own beyond that

    def __repr__(self) -> str:
        name = str(self.dtype).removeprefix("torch.")
        turning = "" if self.window is None else f", window={self.window}, sinks={self.sinks}"
        dims = f"batch={self.batch}, kv_heads={self.kv_heads}, max_len={self.max_len}, head_dim={self.head_dim}"
        return f"KVCache({dims}, value_dim={self.value_dim}, dtype={name}{turning})"

    def truncate(self, lengths: int | Tensor) -> None:
        """Forget the last tokens of each row, so that `lengths` are left: an int, or integers (B,).

        Raises ValueError when a row is shorter, or when a ring has overwritten what the next query would see; then
        nothing changes.
        """
        wanted = self._shorter(lengths)
        self._check_kept(wanted)
        self._kept[wanted == 0] = 0
        self._lengths.copy_(wanted)
        self._level = False

    def _check_kept(self, wanted: Tensor) -> None:
        """Raise ValueError when rows cut to these lengths would need what their ring has overwritten."""
        if self.window is None:
            return
        lost = (wanted < self._lengths) & (wanted > 0)
        lost &= (wanted - self.window + 1 < self._kept) & (self._kept > self.sinks)
        if bool(lost.any()):
            b = int(lost.nonzero()[0])
            expected = f"at least {int(self._kept[b]) + self.window - 1} in row {b}: older tokens were overwritten"
            raise checks.value_error("lengths", expected, str(int(wanted[b])))

    def reset(self, rows: Any = None) -> None:
        """Empty all rows, or those given: an int or integers."""
        if rows is None:
            which: Any = slice(None)
        else:
            which = self._row_numbers("rows", rows)
        self._lengths[which] = 0
        self._kept[which] = 0
        self._level = False

    def reorder(self, index: Tensor) -> None:
        """Row b becomes a copy of row index[b], integers (B,): what beam search asks for after each step."""
        checks.shape_is("index", self._row_numbers("index", index), (self.batch,), "(B,)")
        self.branch(index)
        self._gather()

    @torch.inference_mode(False)
    def branch(self, index: Tensor, alike: Sequence[KVCache] = ()) -> None:
        """The same without copying: row b reads its past where row index[b] read it, and writes to its own place.

        The batch then has the rows that index names, in its order, as many or as few as there is room for: at most the
        rows that the cache was made for. Numbers are copied only when a row must write where another still reads, which
        rows of equal length never do. `alike` are caches to branch alike: those of a model's other layers, whose rows
        have the same history, share what is found out for one.
        """
        rows = self._row_numbers("index", index)
        for cache in (self, *alike):
            most = len(cache._memory.keys)
            checks.require(
                len(rows) <= most, "index", f"at most the {most} rows the cache was made for", str(len(rows))
            )
        before, lengths = self._beam, self.lengths
        table = (self._read_from(self.batch) if before is None else before)[rows]
        counts = torch.stack((self._lengths, self._kept))[:, rows]
        if not self._ring:  # slots that are not in use are a row's own
            used = torch.arange(self.max_len, device="cpu") < counts[0][:, None]
            table = torch.where(used, table, self._read_from(len(rows)))
        level = self._level or (not self._ring and bool((counts[0] == counts[0, :1]).all()))
        self._take(counts, table, level)
        for cache in alike:
            if cache._beam is before and cache._has(self.max_len, self._ring, lengths):
                cache._take(counts, table, level)
            else:
                cache.branch(rows)

    def _has(self, slots: int, ring: int, lengths: Tensor) -> bool:
        """Whether rows of these lengths, all of which were kept, would stand here as they do elsewhere."""
        return (self.max_len, self._ring, ring) == (slots, 0, 0) and torch.equal(self._lengths, lengths)

    def _take(self, counts: Tensor, table: Tensor, level: bool) -> None:
        """Become rows that have seen, and kept, so many tokens (2, rows), and read them through the table."""
        self._level = level
        if counts.shape[1] == self.batch:
            self._lengths.copy_(counts[0])
            self._kept.copy_(counts[1])
        else:
            self._hold(counts.clone())
        self._point(table)

    def _read_from(self, rows: int) -> Tensor:
        """The table of so many rows that read from themselves, int32 (rows, slots)."""
        return torch.arange(rows, dtype=torch.int32, device="cpu")[:, None].expand(rows, self.max_len)

    def _point(self, table: Tensor | None) -> None:
        self._beam = table
        self._look()

    def _look(self) -> None:
        self._native.point(0, 0, 0 if self._beam is None else self._beam.data_ptr())

    def _make_room(self, first: Tensor, stop: Tensor) -> None:
        self._level = False
        most = MAX_LENGTH if self._ring else self.max_len
        if int(stop.max()) > most:
            b = int(stop.argmax())
            got = f"{int(stop[b] - first[b])} more in row {b}, which has {int(first[b])}"
            raise checks.value_error("k", f"tokens that fit into max_len = {most}", got)
        if self._ring:
            self._check_kept(first)
            self._kept[first == 0] = 0
        if self._beam is not None:
            self._own(self._beam, first, stop)

    def _next_is_own(self) -> bool:
        """Whether the next slot of each row is its own and read by nobody: a token may be written without a look."""
        if self._beam is None:
            return True
        self._level = self._level or self._own_level(self._lengths, self.max_len)
        return self._level

    @torch.inference_mode(False)
    def _own_level(self, first: Tensor, stop: int) -> bool:
        """Whether all rows write from the same position on, so that none writes where another reads.

        The slots from there to `stop` are then the rows' own.
        """
        assert self._beam is not None
        if self._ring or not len(first) or bool((first != first[0]).any()):
            return False
        table = self._beam.clone()  # caches of other layers may read through it, too
        table[:, int(first[0]) : stop] = self._read_from(self.batch)[:, :1]
        self._point(table)
        return True

    def _own(self, table: Tensor, first: Tensor, stop: Tensor) -> None:
        """Make the slots that will be written the rows' own; copy when another row reads one of them."""
        if self._own_level(first, int(stop.max())):
            return
        written = torch.zeros(len(self._memory.keys), self.max_len, dtype=torch.bool, device="cpu")
        for b, (start, end) in enumerate(zip(first.tolist(), stop.tolist(), strict=True)):
            for position in range(max(start, end - self.max_len) if self._ring else start, end):
                slot = position
                if self._ring and position >= self.sinks:
                    slot = self.sinks + (position - self.sinks) % self._ring
                written[b, slot] = True
        own = self._read_from(self.batch)
        read = torch.where(written[: self.batch], own, table)
        clash = written.gather(0, read.long()) & (read != own)
        if bool(clash.any()):
            self._gather()
        else:
            self._point(read)

    def _gather(self) -> None:
        """Copy what each row reads to its own place: as many groups of slots as are in use."""
        assert self._beam is not None
        used = min(self._native.longest(), self.max_len)
        groups = -(-used // GROUP)
        rows = torch.zeros(self.batch, groups * GROUP, dtype=torch.int64, device="cpu")
        rows[:, :used] = self._beam[:, :used]
        memory = self._memory
        _gather_rows(memory.keys[:, :, :groups], rows.view(self.batch, 1, groups, 1, GROUP))
        _gather_rows(memory.values[:, :, :used], rows[:, None, :used, None])
        if self.dtype == torch.int8:
            for scales in memory.scales:
                _gather_rows(scales[:, :, : groups * GROUP], rows[:, None])
        self._point(None)


def _gather_rows(x: Tensor, rows: Tensor) -> None:
    """x[b, ...] becomes x[rows[b, ...], ...], in place, for as many b as rows has; the rest of it broadcasts to x."""
    x[: len(rows)] = x.gather(0, rows.expand(len(rows), *x.shape[1:]))
