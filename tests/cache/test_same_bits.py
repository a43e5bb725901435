"""Promise 6: over a float32 cache a token has the bits it has in the full forward, whatever the cache looks like."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import mmha
from mmha import KVCache, PagedKVCache
from mmha.bias import ALiBi, Relative
from mmha.masks import Causal, Mask, Prefix, Window

H, HK, D, DV, LENGTH = 4, 2, 19, 11, 1201  # across a tile of 256 keys and a chunk of 1024
Triple = tuple[Tensor, Tensor, Tensor]

EXTRAS: dict[str, dict[str, Any]] = {
    "plain": {},
    "with extras": {
        "bias": ALiBi([0.3, 0.1, 0.03, 0.01]) + Relative(torch.arange(4 * 21.0).view(4, 21).sin()),
        "softcap": 2.5,
        "sinks": torch.tensor([0.5, -1.0, 2.0, 0.0]),
        "scale": 0.3,
    },
}
CUTS = (0, 1, 3, 37, 256, 300, 1023, 1024, 1031, LENGTH)


@pytest.fixture(autouse=True)
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch.set_num_threads
    torch.set_num_threads(before)


def numbers(length: int = LENGTH, batch: int = 1, seed: int = 3) -> Triple:
    random = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(batch, h, length, d, generator=random) for h, d in ((H, D), (HK, D), (HK, DV)))
    return q, k, v


def decode(
    cache: Any, x: Triple, cuts: Sequence[int], mask: Mask | None, **more: Any
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """The tokens between the cuts go into the cache, then attend: which they are, out, lse."""
    q, k, v = x
    for first, last in itertools.pairwise(cuts):
        part = slice(first, last)
        cache.append(k[:, :, part], v[:, :, part])
        yield part, *mmha.attention(q[:, :, part], cache, mask=mask, return_lse=True, **more)


def same_bits(
    cache: Any, x: Triple, cuts: Sequence[int], mask: Mask, whole_mask: Mask | None = None, **more: Any
) -> None:
    whole, lse = mmha.attention(*x, mask if whole_mask is None else whole_mask, return_lse=True, **more)
    for part, out, part_lse in decode(cache, x, cuts, mask, **more):
        assert torch.equal(out, whole[:, :, part])
        assert torch.equal(part_lse, lse[:, :, part])


@pytest.mark.parametrize("extras", EXTRAS)
@pytest.mark.parametrize("mask", [Causal(), Window(70), Causal() & (Window(40) | Prefix(9))], ids=str)
def test_chunks_and_tokens_have_the_bits_of_the_whole(mask: Mask, extras: str, isa: str) -> None:
    cache = KVCache(1, HK, LENGTH, D, value_dim=DV)
    same_bits(cache, numbers(), CUTS, mask, **EXTRAS[extras])


def test_token_by_token(isa: str) -> None:
    length = 301
    cache = KVCache(1, HK, length, D, value_dim=DV)
    same_bits(cache, numbers(length), range(length + 1), Causal())


@settings(max_examples=40, deadline=None)
@given(
    chunks=st.lists(st.integers(0, 90), min_size=1, max_size=9),
    kind=st.sampled_from(["contiguous", "cyclic", "paged"]),
    block=st.sampled_from([1, 3, 16, 64]),
    batch=st.integers(1, 3),
)
def test_any_chunking_of_any_cache(chunks: list[int], kind: str, block: int, batch: int) -> None:
    cuts = list(itertools.accumulate(chunks, initial=0))
    length = cuts[-1]
    x = numbers(length, batch)
    if kind == "cyclic":
        cache = KVCache(batch, HK, 1024, D, value_dim=DV, window=100, sinks=3)
        same_bits(cache, x, cuts, Causal(), Causal() & (Window(99) | Prefix(3)))
    else:
        same_bits(contiguous_or_paged(kind, batch, length, block), x, cuts, Causal())


def contiguous_or_paged(kind: str, batch: int, length: int, block: int) -> Any:
    if kind == "contiguous":
        return KVCache(batch, HK, length + 1, D, value_dim=DV)
    pool = PagedKVCache(batch * (length // block + 1), block, HK, D, value_dim=DV)
    return pool.select(pool.allocate(batch))


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_groups_of_heads(kv_heads: int, isa: str) -> None:
    length = 531
    q, k, v = (torch.randn(1, h, length, 32) for h in (4, kv_heads, kv_heads))
    cache = KVCache(1, kv_heads, length, 32)
    same_bits(cache, (q, k, v), (0, 300, 301, 302, 317, 350, 531), Causal())


def test_any_number_of_threads(isa: str, threads: Callable[[int], None]) -> None:
    """With so few heads the keys of one token are shared out among the threads."""
    length = 9011
    q, k, v = (torch.randn(1, h, length, 64) for h in (2, 1, 1))
    cache = KVCache(1, 1, length, 64)
    cache.append(k, v)
    for rows in (slice(length - 1, length), slice(length - 9, length)):
        threads(1)
        want = mmha.attention(q[:, :, rows], k, v, Causal(), return_lse=True)
        for count in (1, 2, 3, 2):
            threads(count)
            got = mmha.attention(q[:, :, rows], cache, mask=Causal(), return_lse=True)
            assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int8], ids=str)
def test_any_row_of_any_batch(dtype: torch.dtype, isa: str) -> None:
    """A row gives the bits it gives alone, whoever stands beside it and however long they are."""
    lengths = (301, 17, 513, 0, 256)
    q, k, v = numbers(max(lengths), len(lengths))
    q = q[:, :, :3]
    together = KVCache(len(lengths), HK, max(lengths), D, value_dim=DV, dtype=dtype)
    together.append(k, v, torch.tensor(lengths))
    out, lse = mmha.attention(q, together, mask=Causal(), return_lse=True)
    for b, n in enumerate(lengths):
        alone = KVCache(1, HK, 777, D, value_dim=DV, dtype=dtype)
        alone.append(k[b : b + 1, :, :n], v[b : b + 1, :, :n])
        got = mmha.attention(q[b : b + 1], alone, mask=Causal(), return_lse=True)
        assert torch.equal(got[0], out[b : b + 1])
        assert torch.equal(got[1], lse[b : b + 1])


@pytest.mark.parametrize("how", ["reorder", "branch"])
def test_after_rows_were_exchanged(how: str, isa: str) -> None:
    """A beam search: at every step each row goes on from another one. Bits as if it had been alone from the start."""
    batch, first, steps = 3, 270, 19
    random = torch.Generator().manual_seed(1)
    q, k, v = numbers(first, batch)
    cache = KVCache(batch, HK, first + steps, D, value_dim=DV)
    cache.append(k, v)
    for _ in range(steps):
        index = torch.randint(0, batch, (batch,), generator=random)
        getattr(cache, how)(index)
        q, k, v = (
            torch.cat([x[index], y], 2) for x, y in zip((q, k, v), numbers(1, batch, int(index[0])), strict=True)
        )
        cache.append(k[:, :, -1:], v[:, :, -1:])
        got = mmha.attention(q[:, :, -1:], cache, mask=Causal())
        assert torch.equal(got, mmha.attention(q[:, :, -1:], k, v, Causal()))


def test_after_speculation_was_taken_back(isa: str) -> None:
    length = 300
    x = numbers(length)
    cache = KVCache(1, HK, length + 40, D, value_dim=DV)
    whole = mmha.attention(*x, Causal())
    q, k, v = x
    at = 0
    for accepted, more in itertools.cycle([(1, 4), (5, 2), (16, 17), (33, 7)]):
        guess = numbers(more, seed=at)
        cache.append(k[:, :, at : at + accepted], v[:, :, at : at + accepted])
        at += min(accepted, length - at)
        cache.append(*guess[1:])
        cache.truncate(at)
        got = mmha.attention(q[:, :, at - 1 : at], cache, mask=Causal())
        assert torch.equal(got, whole[:, :, at - 1 : at])
        if at == length:
            break


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int8], ids=str)
def test_any_chunking_over_other_dtypes_is_one_result(dtype: torch.dtype, isa: str) -> None:
    """Over any dtype the chunking does not matter: the bits of a cache that was filled at once."""
    q, k, v = numbers(531)
    at_once = KVCache(1, HK, 531, D, value_dim=DV, dtype=dtype)
    at_once.append(k, v)
    whole, lse = mmha.attention(q, at_once, mask=Causal(), return_lse=True)
    bit_by_bit = KVCache(1, HK, 531, D, value_dim=DV, dtype=dtype)
    for part, out, part_lse in decode(bit_by_bit, (q, k, v), (0, 1, 17, 256, 257, 300, 531), Causal()):
        assert torch.equal(out, whole[:, :, part])
        assert torch.equal(part_lse, lse[:, :, part])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int8], ids=str)
def test_the_same_bits_every_time(dtype: torch.dtype, threads: Callable[[int], None]) -> None:
    threads(2)
    q, k, v = numbers()
    cache = KVCache(1, HK, LENGTH, D, value_dim=DV, dtype=dtype)
    cache.append(k, v)
    want = mmha.attention(q[:, :, -2:], cache, mask=Causal())
    assert all(torch.equal(mmha.attention(q[:, :, -2:], cache, mask=Causal()), want) for _ in range(20))
