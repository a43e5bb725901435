"""Rows that leave the batch, come back and share their past: `KVCache.branch` with more or fewer rows than before."""

from __future__ import annotations

import pytest
import torch

import mmha
from cache_model import ListModel, expected, near, same_as
from mmha import KVCache, masked_multihead_attention
from mmha.masks import Causal

ROOM, HEADS, KV_HEADS, DIM, MAX = 7, 6, 2, 11, 41
#: Which rows go on: fewer, none that was there before, as many as there is room for, one.
INDEXES = [[0, 1, 2], [2, 0, 0, 1, 2], [4, 4], [0, 1, 0, 1, 0, 1, 0], [6, 5, 1], [2], [0, 0, 0, 0]]


def attends_as(cache: KVCache, model: ListModel, window: int | None = None) -> None:
    q = torch.randn(len(model.rows), HEADS, 1, DIM)
    wanted = expected(q, model, Causal(), window=window)[0]
    near(mmha.attention(q, cache, mask=Causal()), wanted, model.stored or torch.float64)


@pytest.mark.parametrize("stored", [torch.float32, torch.int8], ids=str)
@pytest.mark.parametrize("level", [True, False])
def test_rows_leave_and_multiply(stored: torch.dtype, level: bool) -> None:
    cache = KVCache(ROOM, KV_HEADS, MAX, DIM, dtype=stored)
    model = ListModel.empty(ROOM, KV_HEADS, DIM, stored=stored)
    for turn, index in enumerate(INDEXES):
        cache.branch(torch.tensor(index))
        model.reorder(index)
        assert cache.batch == len(index)
        same_as(cache, model)
        counts = [2] * len(index) if level else [(turn + b) % 4 for b in range(len(index))]
        k, v = torch.randn(2, len(index), KV_HEADS, max(counts), DIM).unbind(0)
        cache.append(k, v, torch.tensor(counts))
        model.append(k, v, counts)
        same_as(cache, model)
        attends_as(cache, model)
    cache.truncate(3)
    model.truncate(3)
    k, v = torch.randn(2, 4, KV_HEADS, 5, DIM).unbind(0)
    cache.append(k, v)  # over what all of them read together before
    model.append(k, v)
    same_as(cache, model)
    cache.reorder(torch.tensor([3, 1, 1, 0]))
    model.reorder([3, 1, 1, 0])
    same_as(cache, model)
    attends_as(cache, model)


def test_steps_of_rows_that_share_a_past() -> None:
    """The fused step writes to a row's own place, level or not, cut or not."""
    cache = KVCache(ROOM, KV_HEADS, MAX, DIM)
    model = ListModel.empty(ROOM, KV_HEADS, DIM, stored=torch.float32)
    for turn, index in enumerate(INDEXES * 2):
        cache.branch(torch.tensor(index))
        model.reorder(index)
        if turn % 5 == 4:
            shorter = [max(n - 2 - (b if turn > 9 else 0), 0) for b, n in enumerate(model.lengths)]
            cache.truncate(torch.tensor(shorter))
            model.truncate(shorter)
        qkv = torch.randn(len(index), (HEADS + 2 * KV_HEADS) * DIM)
        out = masked_multihead_attention(qkv, cache)
        q, k, v = qkv.view(len(index), -1, 1, DIM).split((HEADS, KV_HEADS, KV_HEADS), 1)
        model.append(k, v)
        same_as(cache, model)
        near(out.view(q.shape), expected(q, model)[0], torch.float32)


def test_rows_of_a_ring_leave_and_multiply() -> None:
    cache = KVCache(ROOM, KV_HEADS, 5, DIM, window=5)
    model = ListModel.empty(ROOM, KV_HEADS, DIM, stored=torch.float32)
    for turn, index in enumerate(INDEXES):
        cache.branch(torch.tensor(index))
        model.reorder(index)
        for _ in range(1 + turn):
            k, v = torch.randn(2, len(index), KV_HEADS, 1, DIM).unbind(0)
            cache.append(k, v)
            model.append(k, v)
            attends_as(cache, model, window=5)


def test_layers_branch_alike_and_go_on_as_alone() -> None:
    """Caches of several layers share a table while their rows have one history, and part when one goes apart."""
    caches = [KVCache(ROOM, KV_HEADS, MAX, DIM) for _ in range(4)]
    caches[3].append(*torch.randn(2, ROOM, KV_HEADS, 1, DIM).unbind(0))
    models = [ListModel.empty(ROOM, KV_HEADS, DIM, stored=torch.float32) for _ in range(3)]
    for turn, index in enumerate(INDEXES * 2):
        caches[0].branch(torch.tensor(index), caches[1:])
        for model in models:
            model.reorder(index)
        if turn == 5:
            caches[1].truncate(3)
            models[1].truncate(3)
        if turn == 9:
            caches[2].reset(0)
            models[2].reset([0])
        for cache, model in zip(caches, models, strict=False):
            qkv = torch.randn(len(index), (HEADS + 2 * KV_HEADS) * DIM)
            masked_multihead_attention(qkv, cache)
            model.append(*qkv.view(len(index), -1, 1, DIM)[:, HEADS:].split(KV_HEADS, 1))
        for cache, model in zip(caches, models, strict=False):
            same_as(cache, model)
            attends_as(cache, model)
    assert caches[3].lengths.tolist() == [1] * len(index)


def test_all_rows_may_leave() -> None:
    cache = KVCache(ROOM, KV_HEADS, MAX, DIM)
    cache.append(*torch.randn(2, ROOM, KV_HEADS, 3, DIM).unbind(0))
    cache.branch(torch.zeros(0, dtype=torch.int64))
    assert cache.batch == 0
    assert mmha.attention(torch.randn(0, HEADS, 1, DIM), cache).shape == (0, HEADS, 1, DIM)


def test_more_rows_than_there_is_room_for_are_refused() -> None:
    cache = KVCache(3, KV_HEADS, MAX, DIM)
    cache.branch(torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"^`index`: expected at most the 3 rows the cache was made for, got 4$"):
        cache.branch(torch.tensor([0, 1, 1, 0]))
    with pytest.raises(ValueError, match=r"^`index`: expected rows from 0 to 1, got 2$"):
        cache.branch(torch.tensor([2]))
    with pytest.raises(ValueError, match=r"^`index`: expected at most the 1 rows the cache was made for, got 2$"):
        cache.branch(torch.tensor([1, 0]), [KVCache(1, KV_HEADS, MAX, DIM)])
    assert cache.batch == 2
