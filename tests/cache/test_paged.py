"""`PagedKVCache`: sequences in blocks of one pool, against a list of tensors and against a `KVCache`, bit for bit."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import mmha
from cache_model import ListModel, expected, near, same_as
from mmha import KVCache, PagedKVCache
from mmha.bias import ALiBi
from mmha.masks import Causal, Tree, Window

H, HK, D, DV = 6, 2, 19, 11
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.int8]
SIZES = [1, 3, 16, 64]


def tokens(batch: int, n: int) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, HK, n, D), torch.randn(batch, HK, n, DV)


def pool_of(blocks: int, size: int = 3, dtype: torch.dtype = torch.float32) -> PagedKVCache:
    return PagedKVCache(blocks, size, HK, D, value_dim=DV, dtype=dtype)


def model_of(batch: int, dtype: torch.dtype = torch.float32) -> ListModel:
    return ListModel.empty(batch, HK, D, DV, dtype)


def put(cache: Any, model: ListModel, n: int, counts: list[int] | None = None) -> None:
    k, v = tokens(len(model.rows), n)
    cache.append(k, v, None if counts is None else torch.tensor(counts))
    model.append(k, v, counts)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_what_goes_in_comes_out(size: int, dtype: torch.dtype) -> None:
    pool = pool_of(3 * (77 // size + 2), size, dtype)
    view, model = pool.select(pool.allocate(3)), model_of(3, dtype)
    same_as(view, model)
    for n, counts in ((5, [5, 0, 2]), (0, None), (1, None), (33, [1, 33, 16]), (16, None), (17, [17, 0, 17])):
        put(view, model, n, counts)
        same_as(view, model)
        q = torch.randn(3, H, 2, D)
        near(mmha.attention(q, view, mask=Causal()), expected(q, model, Causal())[0], dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_the_bits_of_a_contiguous_cache(size: int, dtype: torch.dtype, isa: str) -> None:
    lengths = [301, 1, 64]
    pool = pool_of(sum(-(-n // size) for n in lengths) + 3, size, dtype)
    paged = pool.select(pool.allocate(3))
    plain = KVCache(3, HK, 301, D, value_dim=DV, dtype=dtype)
    k, v = tokens(3, 301)
    for cache in (paged, plain):
        cache.append(k, v, torch.tensor(lengths))
    assert all(torch.equal(a, b) for a, b in zip(paged.to_dense(), plain.to_dense(), strict=True))
    for q_len, mask in ((1, None), (1, Causal()), (7, Causal() & Window(50)), (1, Tree([-1])), (33, Causal())):
        q = torch.randn(3, H, q_len, D)
        arguments: dict[str, Any] = {"return_lse": True, "bias": ALiBi.standard(H), "softcap": 3.0}
        got, want = (mmha.attention(q, cache, mask=mask, **arguments) for cache in (paged, plain))
        assert torch.equal(got[0], want[0])
        assert torch.equal(got[1], want[1])


def test_sequences_in_any_order_and_any_batch() -> None:
    pool = pool_of(40)
    ids = list(pool.allocate(4))
    models = [model_of(1) for _ in ids]
    for n, (each, model) in enumerate(zip(ids, models, strict=True)):
        put(pool.select([each]), model, 5 * n + 1)
    for order in ([3, 0, 2], [1], [2, 3, 1, 0]):
        view = pool.select([ids[n] for n in order])
        model = ListModel([models[n].rows[0] for n in order], torch.float32)
        same_as(view, model)
        put(view, model, 2)
        for n, row in zip(order, model.rows, strict=True):
            models[n].rows = [row]
        q = torch.randn(len(order), H, 1, D)
        near(mmha.attention(q, view), expected(q, model)[0], torch.float32)
    same_as(pool.select(ids), ListModel([m.rows[0] for m in models], torch.float32))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 48])
def test_a_fork_shares_its_past_and_then_goes_its_own_way(length: int, size: int) -> None:
    pool = pool_of(2 * (48 // size + 1) + 3 * (7 // size + 2), size)
    (parent,) = pool.allocate(1)
    model = model_of(1)
    put(pool.select([parent]), model, length)
    child = pool.fork(parent)
    grandchild = pool.fork(child)
    ids = [parent, child, grandchild]
    together = ListModel(model.rows * 3, torch.float32)
    same_as(pool.select(ids), together)
    put(pool.select(ids), together, 5, [5, 3, 0])
    same_as(pool.select(ids), together)
    put(pool.select([grandchild, parent]), two := ListModel([together.rows[2], together.rows[0]], torch.float32), 2)
    together.rows = [two.rows[1], together.rows[1], two.rows[0]]
    same_as(pool.select(ids), together)
    q = torch.randn(3, H, 1, D)
    near(mmha.attention(q, pool.select(ids)), expected(q, together)[0], torch.float32)


def test_a_shared_prefix_takes_its_blocks_once() -> None:
    """A prompt of 12 blocks for 5 sequences fits a pool of 17 and not one more."""
    pool = pool_of(17)
    (prompt,) = pool.allocate(1)
    model = model_of(1)
    put(pool.select([prompt]), model, 36)
    ids = [prompt, *(pool.fork(prompt) for _ in range(4))]
    together = ListModel(model.rows * 5, torch.float32)
    put(pool.select(ids), together, 3)  # one new block each: the pool is full
    same_as(pool.select(ids), together)
    with pytest.raises(ValueError, match=r"expected .*block.*, got "):
        pool.select(ids).append(*tokens(5, 1))
    same_as(pool.select(ids), together)


def test_the_last_of_those_who_share_a_block_writes_where_it_is() -> None:
    """Two sequences that share one block and both go on need one block more, not two."""
    pool = pool_of(2, 4)
    (parent,) = pool.allocate(1)
    model = model_of(1)
    put(pool.select([parent]), model, 2)
    ids = [parent, pool.fork(parent)]
    together = ListModel(model.rows * 2, torch.float32)
    put(pool.select(ids), together, 1)
    same_as(pool.select(ids), together)
    assert pool.free_blocks == 0


def test_a_reset_empties_all_rows_and_frees_their_blocks() -> None:
    pool = pool_of(7)
    view = pool.select(pool.allocate(3))
    view.append(*tokens(3, 5), torch.tensor([5, 0, 2]))
    view.reset()
    assert view.lengths.tolist() == [0, 0, 0]
    assert pool.free_blocks == 7


def test_free_gives_the_blocks_back_when_nobody_shares_them_any_more() -> None:
    pool = pool_of(4)
    (first,) = pool.allocate(1)
    model = model_of(1)
    put(pool.select([first]), model, 12)
    second = pool.fork(first)
    pool.free([first])
    same_as(pool.select([second]), model)
    (third,) = pool.allocate(1)
    with pytest.raises(ValueError, match=r"expected .*block.*, got "):
        pool.select([third]).append(*tokens(1, 1))
    pool.free([second])
    for _ in range(5):  # over and over: nothing leaks
        again = model_of(1)
        put(pool.select([third]), again, 12)
        same_as(pool.select([third]), again)
        pool.select([third]).truncate(0)
    pool.free([third])
    with pytest.raises(ValueError, match="expected"):
        pool.select([third])


@pytest.mark.parametrize("size", SIZES)
def test_out_of_blocks_is_an_error_that_loses_nothing(size: int) -> None:
    pool = pool_of(5, size)
    ids = list(pool.allocate(2))
    view, model = pool.select(ids), model_of(2)
    put(view, model, 2 * size)
    for counts in ([size + 1, 0], [1, 1], [0, size * 9]):
        k, v = tokens(2, max(counts))
        with pytest.raises(ValueError, match=r"expected .*block.*, got "):
            view.append(k, v, torch.tensor(counts))
        same_as(view, model)
    put(view, model, size, [0, size])  # what is left fits
    same_as(view, model)
    q = torch.randn(2, H, 1, D)
    near(mmha.attention(q, view), expected(q, model)[0], torch.float32)
    with pytest.raises(ValueError, match=r"expected .*block.*, got "):
        view.append(*tokens(2, 1))
    same_as(view, model)


@pytest.mark.parametrize("size", SIZES)
def test_truncating_a_fork_leaves_its_parent_alone(size: int) -> None:
    pool = pool_of(4 * (20 // size + 2), size)
    (parent,) = pool.allocate(1)
    model = model_of(1)
    put(pool.select([parent]), model, 17)
    child, other = pool.fork(parent), ListModel(list(model.rows), torch.float32)
    for length in (16, 7, 0):
        pool.select([child]).truncate(length)
        other.truncate(length)
        put(pool.select([child]), other, 3)
        same_as(pool.select([child]), other)
        same_as(pool.select([parent]), model)


@pytest.mark.parametrize("poison", [math.nan, math.inf])
@pytest.mark.parametrize("size", SIZES)
def test_nan_in_the_rest_of_a_block_never_matters(size: int, poison: float) -> None:
    pool = pool_of(90 // size + 3, size)
    (each,) = pool.allocate(1)
    k, v = tokens(1, 90)
    pool.select([each]).append(torch.full_like(k, poison), torch.full_like(v, poison))
    pool.free([each])
    ids = list(pool.allocate(2))
    view, model = pool.select(ids), model_of(2)
    put(view, model, 31, [31, 18])
    same_as(view, model)
    q = torch.randn(2, H, 3, D)
    for mask in (None, Causal()):
        near(mmha.attention(q, view, mask=mask), expected(q, model, mask)[0], torch.float32)


@pytest.mark.parametrize("length", [0, 1, 3, 7, 17])
def test_a_fork_of_the_first_tokens(length: int) -> None:
    pool = pool_of(20)
    (parent,) = pool.allocate(1)
    model = model_of(1)
    put(pool.select([parent]), model, 17)
    child, other = pool.fork(parent, length), ListModel(list(model.rows), torch.float32)
    other.truncate(length)
    for _ in range(3):
        same_as(pool.select([child]), other)
        same_as(pool.select([parent]), model)
        put(pool.select([child]), other, 2)


def test_views_see_what_happens_through_others() -> None:
    pool = pool_of(20)
    ids = pool.allocate(2)
    one, other, model = pool.select(ids), pool.select(ids), model_of(2)
    assert other.positions().shape == (2, 0)
    put(one, model, 7, [7, 4])
    assert other.positions().tolist() == [list(range(7)), [0, 1, 2, 3, -1, -1, -1]]
    same_as(other, model)
    put(other, model, 2)
    q = torch.randn(2, H, 1, D)
    near(mmha.attention(q, one), expected(q, model)[0], torch.float32)
    one.reset([1])
    model.reset([1])
    same_as(other, model)


def test_rows_of_a_view_become_others() -> None:
    pool = pool_of(60, 4)
    view, model = pool.select(pool.allocate(3)), model_of(3)
    put(view, model, 13, [13, 6, 9])
    for index in ([2, 2, 0], [1, 0, 2], [0, 0, 0]):
        view.reorder(torch.tensor(index))
        model.reorder(index)
        put(view, model, 3, [3, 1, 2])
        same_as(view, model)


def test_an_empty_selection_and_no_new_sequences() -> None:
    pool = pool_of(2)
    assert len(pool.allocate(0)) == 0
    ids = list(pool.allocate(3))
    assert len(set(ids)) == 3
    assert pool.select(ids).lengths.tolist() == [0, 0, 0]
    out = mmha.attention(torch.randn(3, H, 1, D), pool.select(ids))
    assert out.shape == (3, H, 1, DV)
    assert not out.any()


def test_a_step_that_cuts_a_row_and_finds_no_block_loses_nothing() -> None:
    pool = pool_of(4)
    first = pool.allocate(1)[0]
    pool.select([first]).append(*tokens(1, 12))
    rows = pool.select([first, pool.fork(first)])  # every block is shared and none is free
    held, lengths = rows.to_dense(), rows.lengths
    qkv = torch.randn(2, (H + HK) * D + HK * DV)
    with pytest.raises(ValueError, match="free blocks"):
        mmha.masked_multihead_attention(qkv, rows, lengths=torch.tensor([4, 12]))
    assert torch.equal(rows.lengths, lengths)
    assert all(torch.equal(a, b) for a, b in zip(rows.to_dense(), held, strict=True))
    assert pool.free_blocks == 0
