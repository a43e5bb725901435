"""`Cache`: the keys and values of past tokens, as the kernels keep them; every cache (mmha.cache) is one of these."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor

from mmha import _kernels, checks
from mmha.ops.arguments import INTEGERS, check_storage
from mmha.ops.watch import outside_graphs

#: What a cache may store, and how the kernels call it.
CACHE_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.int8: 3}
GROUP = 16  # keys that stand side by side (csrc/cache.h)
MAX_HEAD_DIM = 512
LARGE_PAGE = 2 << 20  # bytes
MAX_LENGTH = 2**31 - 1


class Memory:
    """The tensors that hold the tokens: `blocks` blocks of `slots` places, as csrc/cache.h lays them out."""

    def __init__(self, blocks: int, slots: int, kv_heads: int, dims: tuple[int, int], dtype: torch.dtype) -> None:
        self.slots, self.kv_heads, self.dims, self.dtype = slots, kv_heads, dims, dtype
        self.groups = -(-slots // GROUP)
        scales = (2, blocks, kv_heads, self.groups * GROUP) if dtype == torch.int8 else (2, 0)
        with torch.inference_mode(False):  # or it could be written in that mode only
            self.keys = torch.empty(blocks, kv_heads, self.groups, dims[0], GROUP, dtype=dtype, device="cpu")
            self.values = torch.empty(blocks, kv_heads, slots, dims[1], dtype=dtype, device="cpu")
            self.scales = torch.empty(scales, dtype=torch.float32, device="cpu")
        for x in (self.keys, self.values):  # before anything is written there: a step walks over all of it
            if x.nbytes >= LARGE_PAGE:
                _kernels.prefer_large_pages(x.data_ptr(), x.nbytes)

    def tensors(self) -> list[Tensor]:
        """All of it, block by block along the first dimension."""
        return [self.keys, self.values, *(self.scales if self.dtype == torch.int8 else ())]

    @property
    def nbytes(self) -> int:
        """Bytes of all of it."""
        return sum(x.numel() * x.element_size() for x in self.tensors())

    def addresses(self) -> tuple[int, int, int, int]:
        """Of keys, values and their scales; 0 for scales that are not there."""
        if self.dtype != torch.int8:
            return self.keys.data_ptr(), self.values.data_ptr(), 0, 0
        return self.keys.data_ptr(), self.values.data_ptr(), self.scales[0].data_ptr(), self.scales[1].data_ptr()

    def copy_block(self, source: int, target: int) -> None:
        """Make one block a copy of another."""
        for x in self.tensors():
            x[target].copy_(x[source])


class Cache:
    """Keys and values of the tokens that each row of a batch has seen; stands in the place of k and v in attention.

    Made by `mmha.KVCache` and `mmha.PagedKVCache`. `batch`, `kv_heads`, `head_dim`, `value_dim` and `dtype` are its
    sizes; `window` is None, or how many of the last tokens a query sees, besides the first `sinks`.
    """

    def __init__(self, rows: int, memory: Memory, window: int | None = None, sinks: int = 0) -> None:
        self.kv_heads, self.dtype = memory.kv_heads, memory.dtype
        self.head_dim, self.value_dim = memory.dims
        self.window, self.sinks = window, sinks
        self._memory = memory
        self._ring = memory.slots - sinks if window is not None else 0
        self._beam: Tensor | None = None
        with torch.inference_mode(False):
            self._hold(torch.zeros(2, rows, dtype=torch.int64, device="cpu"))

    def _hold(self, counts: Tensor) -> None:
        """Take as many rows as there are columns: how many tokens each has seen, and from where on they were kept."""
        memory = self._memory
        self.batch = counts.shape[1]
        self._lengths, self._kept = counts.unbind(0)  # kept: older positions were overwritten
        self._native = _kernels.Cache(
            CACHE_DTYPES[memory.dtype], memory.addresses(), (self._lengths.data_ptr(), self._kept.data_ptr()),
            (self.batch, memory.kv_heads, memory.dims[0]), (memory.dims[1], memory.slots, memory.groups),
            (self.window or 0, self.sinks, self._ring),
        )  # fmt: skip

    @torch.inference_mode(False)
    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A cache with memory of its own that has seen the same tokens: of rows of a pool, with a pool of its own."""
        made = memo[id(self)] = object.__new__(type(self))
        vars(made).update({name: copy.deepcopy(x, memo) for name, x in vars(self).items() if name != "_native"})
        made._hold(torch.stack((self._lengths, self._kept)))
        made._look()
        return made

    def _look(self) -> None:
        """Tell the kernels of the table through which rows find their tokens, if there is one."""
        raise NotImplementedError

    @property
    def lengths(self) -> Tensor:
        """How many tokens each row has seen, int64 (B,), a copy: the position of its next token."""
        return self._lengths.clone()

    @property
    def nbytes(self) -> int:
        """Memory of the keys and values, in bytes."""
        return self._memory.nbytes

    @outside_graphs
    def append(self, k: Tensor, v: Tensor, counts: Tensor | None = None) -> None:
        """Append tokens to every row: any number of them, and of each row only the first `counts` where given.

        Args:
            k: (B, Hk, n, D), any floating dtype; stored in the cache's own, rounded to nearest. int8: per token and
                head x = scale * round(x / scale) with scale = max |x| / 127.
            v: (B, Hk, n, Dv).
            counts: integers (B,) from 0 to n: row b takes its first counts[b] tokens (prompts padded on the right);
                None = n each.

        Raises:
            TypeError, ValueError: naming the argument, when it does not fit, when there is no room, or when int8 is to
                hold what is not finite; the cache is then as it was.
        """
        self._refresh()
        tokens = self._check_tokens(k, v)
        if counts is None:
            taken = self._lengths.new_full((self.batch,), tokens)
        else:
            taken = self._check_rows("counts", counts, 0, tokens)
        self._write(plain(k), plain(v), taken, self.lengths)

    def _write(self, k: Tensor, v: Tensor, counts: Tensor, first: Tensor) -> None:
        """Tokens k (B, Hk, n, D) and v, contiguous float32: counts[b] of them, from position first[b] on.

        What a row held from there on is forgotten. Raises ValueError when they cannot be written; nothing changes then.
        """
        if self.dtype == torch.int8:
            self._check_finite(k, v, counts)
        if self.batch == 0:
            return
        stop = first + counts
        self._make_room(first, stop)
        self._native.write(
            k.data_ptr(), v.data_ptr(), k.shape[2], first.data_ptr(), counts.data_ptr(), torch.get_num_threads()
        )
        self._lengths.copy_(stop)
        if self._ring:
            torch.maximum(self._kept, stop - self._ring, out=self._kept)

    def _make_room(self, first: Tensor, stop: Tensor) -> None:
        """Make positions [first, stop) of each row writable, and its last; unchanged when raising ValueError."""
        raise NotImplementedError

    def truncate(self, lengths: int | Tensor) -> None:
        """Forget the last tokens of each row, so that `lengths` are left: an int, or integers (B,)."""
        raise NotImplementedError

    def _refresh(self) -> None:
        """Take over what happened elsewhere to the rows, where others may hold them too."""

    def to_dense(self) -> tuple[Tensor, Tensor]:
        """The cached keys (B, Hk, T, D) and values (B, Hk, T, Dv) in float32, T = max(lengths), 0 beyond a row's end.

        Of a cyclic cache: the first `sinks` and the last `window` tokens, in order; `positions()` tells where they
        stand. For inspection: a copy.
        """
        self._refresh()
        parts = self._held()
        width = max((sum(stop - start for start, stop in row) for row in parts), default=0)
        k = torch.zeros(self.batch, self.kv_heads, width, self.head_dim, dtype=torch.float32, device="cpu")
        v = torch.zeros(self.batch, self.kv_heads, width, self.value_dim, dtype=torch.float32, device="cpu")
        for turn in (0, 1):  # the sinks, then the window; without a ring everything is the second
            first = torch.tensor([row[turn][0] for row in parts], dtype=torch.int64, device="cpu")
            counts = torch.tensor([row[turn][1] - row[turn][0] for row in parts], dtype=torch.int64, device="cpu")
            most = int(counts.max()) if self.batch else 0
            if most == 0:
                continue
            some_k, some_v = (
                k.new_zeros(*k.shape[:2], most, self.head_dim),
                v.new_zeros(*v.shape[:2], most, self.value_dim),
            )
            threads = torch.get_num_threads()
            self._native.read(some_k.data_ptr(), some_v.data_ptr(), most, first.data_ptr(), counts.data_ptr(), threads)
            for b, count in enumerate(counts.tolist()):
                start = 0 if turn == 0 else parts[b][0][1] - parts[b][0][0]
                k[b, :, start : start + count] = some_k[b, :, :count]
                v[b, :, start : start + count] = some_v[b, :, :count]
        return k, v

    def positions(self) -> Tensor:
        """Where the tokens of `to_dense` stand, int64 (B, T), -1 beyond a row's end."""
        self._refresh()
        rows = [[p for start, stop in row for p in range(start, stop)] for row in self._held()]
        width = max(map(len, rows), default=0)
        padded = [row + [-1] * (width - len(row)) for row in rows]
        return torch.tensor(padded, dtype=torch.int64, device="cpu").view(self.batch, width)

    def _held(self) -> list[tuple[tuple[int, int], tuple[int, int]]]:
        """Per row the positions [start, stop) of the sinks and those of the window that a next query can see."""
        parts = []
        for length in self._lengths.tolist():
            start = 0 if self.window is None else max(length - self.window, min(self.sinks, length))
            parts.append(((0, min(self.sinks, start)), (start, length)))
        return parts

    def _check_tokens(self, k: Any, v: Any) -> int:
        """n, when k and v hold n tokens for this cache."""
        for name, letters, x, dim in (
            ("k", "(B, Hk, n, D)", k, self.head_dim),
            ("v", "(B, Hk, n, Dv)", v, self.value_dim),
        ):
            if not isinstance(x, Tensor) or not x.is_floating_point():
                raise checks.type_error(name, f"a floating tensor {letters}", x)
            check_storage(name, x)
            checks.shape_is(name, x, (self.batch, self.kv_heads, None if x is k else k.shape[2], dim), letters)
        return int(k.shape[2])

    def _check_rows(self, name: str, x: Any, low: int, high: int) -> Tensor:
        """Integers (B,) from low to high, as int64 on the CPU."""
        x = _integers(name, "integers (B,)", x)
        checks.shape_is(name, x, (self.batch,), "(B,)")
        rows: Tensor = x.to(torch.int64).contiguous()
        if self.batch and (int(rows.min()) < low or int(rows.max()) > high):
            wrong = int(rows.min()) if int(rows.min()) < low else int(rows.max())
            raise checks.value_error(name, f"integers from {low} to {high}", str(wrong))
        return rows

    def _check_finite(self, k: Tensor, v: Tensor, counts: Tensor) -> None:
        if math.isfinite(float(k.sum()) + float(v.sum())):
            return
        real = torch.arange(k.shape[2], device="cpu") < counts[:, None]
        for name, x in (("k", k), ("v", v)):
            if not bool((x.isfinite() | ~real[:, None, :, None]).all()):
                raise checks.value_error(name, "finite numbers, which is all that int8 can hold", "NaN or an infinity")

    def _shorter(self, lengths: Any) -> Tensor:
        """Lengths to truncate to, int64 (B,): none is longer than its row."""
        if isinstance(lengths, int) and not isinstance(lengths, bool):
            lengths = torch.full((self.batch,), checks.integer("lengths", lengths, 0, MAX_LENGTH), device="cpu")
        wanted = self._check_rows("lengths", lengths, 0, MAX_LENGTH)
        longer = wanted > self._lengths
        if bool(longer.any()):
            b = int(longer.nonzero()[0])
            raise checks.value_error("lengths", f"at most {int(self._lengths[b])} in row {b}", str(int(wanted[b])))
        return wanted

    def _row_numbers(self, name: str, x: Any) -> Tensor:
        """Numbers of rows, int64 (n,)."""
        rows = _integers(name, "an int or integers (n,)", x)
        if rows.dim() > 1:
            raise checks.type_error(name, "an int or integers (n,)", x)
        rows = rows.to(torch.int64).reshape(-1)
        if rows.numel() and not (int(rows.min()) >= 0 and int(rows.max()) < self.batch):
            wrong = int(rows.min()) if int(rows.min()) < 0 else int(rows.max())
            raise checks.value_error(name, f"rows from 0 to {self.batch - 1}", str(wrong))
        return rows


def _integers(name: str, expected: str, x: Any) -> Tensor:
    """The numbers as an integer tensor; an empty list is one too."""
    try:
        made: Tensor = x if isinstance(x, Tensor) else torch.as_tensor(x, device="cpu")
    except (TypeError, ValueError, RuntimeError):
        raise checks.type_error(name, expected, x) from None
    if made.dtype not in INTEGERS and made.numel():
        raise checks.type_error(name, expected, x)
    check_storage(name, made)
    return made


def plain(x: Tensor) -> Tensor:
    """The numbers as contiguous float32, for the kernels to read."""
    if type(x) is Tensor and x.dtype is torch.float32 and x.is_contiguous() and not x.is_neg():
        return x
    return x.detach().to(torch.float32).resolve_neg().contiguous()
