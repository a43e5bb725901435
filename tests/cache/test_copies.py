"""Copies of caches: a cache of its own that has seen the same tokens."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import mmha
from mmha import KVCache, PagedKVCache

B, H, HK, D, DV, N = 2, 6, 3, 7, 5, 11


def tokens(count: int, seed: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(B, HK, count, D, generator=random), torch.randn(B, HK, count, DV, generator=random)


def contiguous(**more: Any) -> Callable[[], KVCache]:
    return lambda: KVCache(B, HK, 37, D, value_dim=DV, **more)


def paged() -> Any:
    pool = PagedKVCache(23, 3, HK, D, value_dim=DV)
    return pool.select(pool.allocate(B))


def branched() -> KVCache:
    cache = contiguous()()
    cache.append(*tokens(3, 1))
    cache.branch(torch.tensor([1, 1]))
    return cache


CACHES: dict[str, Callable[[], Any]] = {
    "float32": contiguous(), "int8": contiguous(dtype=torch.int8), "a ring": contiguous(window=7, sinks=2),
    "branched": branched, "paged": paged,
}  # fmt: skip


@pytest.mark.parametrize("name", CACHES)
@pytest.mark.parametrize("inference", [False, True])
def test_a_deep_copy_goes_its_own_way(name: str, inference: bool) -> None:
    q = torch.randn(B, H, 1, D, generator=torch.Generator().manual_seed(5))
    caches = [CACHES[name](), CACHES[name]()]  # the second sees what the first sees, and is never copied
    for cache in caches:
        cache.append(*tokens(N, 2))
    with torch.inference_mode(inference):
        other = copy.deepcopy(caches[0])
        before = mmha.attention(q, caches[0])
        assert torch.equal(mmha.attention(q, other), before)
    other.truncate(N - 1)
    other.append(*tokens(5, 3))
    assert torch.equal(mmha.attention(q, caches[0]), before)
    caches[1].truncate(N - 1)
    caches[1].append(*tokens(5, 3))
    assert torch.equal(mmha.attention(q, other), mmha.attention(q, caches[1]))
    assert torch.equal(other.lengths, caches[1].lengths)
    assert not torch.equal(other.lengths, caches[0].lengths)


def test_rows_of_a_copied_pool_belong_to_it() -> None:
    rows = paged()
    rows.append(*tokens(N, 2))
    pool, other = copy.deepcopy((rows.pool, rows))
    assert other.pool is pool
    assert pool.free_blocks == rows.pool.free_blocks
    pool.free(other.sequences)
    assert (pool.free_blocks, rows.pool.free_blocks) == (23, 23 - B * 4)


def test_a_pool_says_its_sizes() -> None:
    wanted = "PagedKVCache(num_blocks=23, block_size=3, kv_heads=3, head_dim=7, value_dim=5, dtype=float32)"
    assert repr(paged().pool) == wanted
