"""`KVCache` against a list of tensors: what goes in comes out, whatever was appended, cut, copied or shared before."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import mmha
from cache_model import ListModel, expected, near, same_as
from mmha import KVCache
from mmha.masks import Causal

B, H, HK, D, DV, MAX = 3, 6, 2, 19, 11, 47
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.int8]


def tokens(n: int, dim: int = D, value_dim: int = DV, batch: int = B) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, HK, n, dim), torch.randn(batch, HK, n, value_dim)


def pair(dtype: torch.dtype = torch.float32, **sizes: Any) -> tuple[KVCache, ListModel]:
    """An empty cache and its model."""
    dim, value_dim, max_len = (
        sizes.get(name, size) for name, size in (("dim", D), ("value_dim", DV), ("max_len", MAX))
    )
    cache = KVCache(B, HK, max_len, dim, value_dim=value_dim, dtype=dtype)
    return cache, ListModel.empty(B, HK, dim, value_dim, dtype)


def filled(dtype: torch.dtype = torch.float32, counts: tuple[int, ...] = (29, 0, 17)) -> tuple[KVCache, ListModel]:
    cache, model = pair(dtype)
    k, v = tokens(max(counts))
    for each in (cache, model):
        each.append(k, v, torch.tensor(counts) if each is cache else counts)
    return cache, model


def attends_as(cache: KVCache, model: ListModel, q_len: int = 1) -> None:
    q = torch.randn(B, H, q_len, D)
    near(mmha.attention(q, cache, mask=Causal()), expected(q, model, Causal())[0], model.stored or torch.float64)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", [16, 37, 64, 80, 128, 255, 256])
def test_what_goes_in_comes_out(dim: int, dtype: torch.dtype) -> None:
    cache, model = pair(dtype, dim=dim, value_dim=dim // 2 + 1)
    same_as(cache, model)
    for n in (1, 0, 7, 16, 1, 22):
        k, v = tokens(n, dim, dim // 2 + 1)
        cache.append(k, v)
        model.append(k, v)
        same_as(cache, model)


def test_a_value_has_the_size_of_a_key_unless_it_is_told() -> None:
    cache = KVCache(B, HK, MAX, D)
    cache.append(*tokens(3, D, D))
    assert [x.shape for x in cache.to_dense()] == [(B, HK, 3, D)] * 2


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_take_the_first_of_the_tokens_that_are_counted_for_them(dtype: torch.dtype) -> None:
    cache, model = pair(dtype)
    for counts in ((5, 0, 3), (1, 1, 1), (0, 0, 0), (0, 13, 2), (17, 16, 15)):
        k, v = tokens(max(counts))
        for b, n in enumerate(counts):  # what is not counted may be anything
            k[b, :, n:], v[b, :, n:] = math.nan, math.inf
        cache.append(k, v, torch.tensor(counts))
        model.append(k, v, counts)
        same_as(cache, model)
        attends_as(cache, model)


def test_counts_may_be_a_list_or_of_another_integer_dtype() -> None:
    for counts in ([2, 0, 1], torch.tensor([2, 0, 1], dtype=torch.int32)):
        cache = KVCache(B, HK, MAX, D, value_dim=DV)
        cache.append(*tokens(2), counts)
        assert cache.lengths.tolist() == [2, 0, 1]


@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tokens_of_any_floating_dtype_are_rounded_once(dtype: torch.dtype, given: torch.dtype) -> None:
    cache, model = pair(dtype)
    k, v = (x.to(given) for x in tokens(13))
    cache.append(k, v)
    model.append(k, v)
    same_as(cache, model)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_rounding_to_16_bits_is_that_of_torch(dtype: torch.dtype) -> None:
    """Ties, numbers that become infinite, subnormal ones and zeros with a sign."""
    odd = [1.0 + 2.0**-9, 1.0 + 3 * 2.0**-9, 1.0 + 2.0**-12, 65520.0, 65519.0, 3.4e38, 1e-7, -1e-41, 2.0**-25, -0.0]
    x = torch.tensor(odd).repeat(2)[:D].expand(B, HK, 3, D).clone()
    cache = KVCache(B, HK, MAX, D, dtype=dtype)
    cache.append(x, -x)
    k, v = cache.to_dense()
    for have, want in ((k, x.to(dtype).float()), (v, (-x).to(dtype).float())):
        assert torch.equal(have, want)
        assert torch.equal(have.signbit(), want.signbit())


@pytest.mark.parametrize("size", [1.0, 1e-20, 1e20, 0.0])
def test_int8_has_a_scale_for_each_token_and_head(size: float) -> None:
    """|error| <= scale / 2 with scale = max|x| / 127, and the largest number is exact, to rounding."""
    cache = KVCache(B, HK, MAX, D, value_dim=DV, dtype=torch.int8)
    k, v = tokens(31)
    k, v = (x * torch.logspace(-3, 3, 31)[:, None] * size for x in (k, v))
    cache.append(k, v)
    for have, want in zip(cache.to_dense(), (k, v), strict=True):
        top = want.abs().amax(-1, keepdim=True)
        assert ((have - want).abs() <= top / 254 * (1 + 1e-5)).all()
        torch.testing.assert_close(have.abs().amax(-1, keepdim=True), top, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_layouts_do_not_matter(dtype: torch.dtype) -> None:
    k, v = tokens(7)
    views: list[Callable[[Tensor], Tensor]] = [
        lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
        lambda x: x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
        lambda x: torch._neg_view(-x),
        lambda x: torch.stack([x, x], -1)[..., 1],
        lambda x: x.flip(0, 2).contiguous().flip(0, 2),
    ]
    for view in views:
        cache, model = pair(dtype)
        cache.append(view(k), view(v))
        model.append(k, v)
        same_as(cache, model)
    cache, model = pair(dtype)
    wide = k[:1, :1, :1].expand(B, HK, 7, D), v[:1, :1, :1].expand(B, HK, 7, DV)
    cache.append(*wide)
    model.append(*wide)
    same_as(cache, model)


def test_the_cache_keeps_its_own_numbers() -> None:
    cache, model = filled()
    k, v = tokens(2)
    cache.append(k, v)
    model.append(k.clone(), v.clone())
    k.fill_(math.nan)
    v.fill_(math.nan)
    cache.lengths.fill_(0)
    for x in cache.to_dense():
        x.fill_(5.0)
    same_as(cache, model)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("lengths", [0, 5, [29, 0, 3], torch.tensor([7, 0, 17])], ids=str)
def test_truncate_forgets_the_last_tokens(lengths: Any, dtype: torch.dtype) -> None:
    cache, model = filled(dtype, (29, 5, 17))
    cache.truncate(lengths)
    model.truncate(lengths.tolist() if isinstance(lengths, Tensor) else lengths)
    same_as(cache, model)
    k, v = tokens(2)
    cache.append(k, v)
    model.append(k, v)
    same_as(cache, model)
    attends_as(cache, model, q_len=2)


@pytest.mark.parametrize("rows", [None, [1], [2, 0], [], torch.tensor([0])], ids=str)
def test_reset_empties_rows(rows: Any) -> None:
    cache, model = filled(counts=(29, 5, 17))
    cache.reset() if rows is None else cache.reset(rows)
    model.reset(rows.tolist() if isinstance(rows, Tensor) else rows)
    same_as(cache, model)
    attends_as(cache, model)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("how", ["reorder", "branch"])
@pytest.mark.parametrize("index", [[0, 0, 0], [2, 0, 1], [2, 2, 2], [1, 0, 2]], ids=str)
def test_rows_become_others(index: list[int], how: str, dtype: torch.dtype) -> None:
    cache, model = filled(dtype, (29, 5, 17))
    for _ in range(3):  # a permutation of a permutation, a row that reads from a row that reads from a row
        getattr(cache, how)(torch.tensor(index))
        model.reorder(index)
        same_as(cache, model)
        attends_as(cache, model)
        k, v = tokens(2)
        cache.append(k, v, torch.tensor([2, 1, 0]))
        model.append(k, v, [2, 1, 0])
        same_as(cache, model)
        attends_as(cache, model)


@pytest.mark.parametrize(
    ("change", "argument"),
    [("truncate", [3, 29, 29]), ("truncate", [29, 29, 0]), ("reset", [0]), ("reset", [1, 2]), ("reorder", [1, 2, 0]),
     ("branch", [2, 1, 1])],
)  # fmt: skip
def test_rows_that_share_a_past_part_when_one_of_them_changes(change: str, argument: list[int]) -> None:
    """Cutting, emptying or writing over the row that others read from must not reach them."""
    cache, model = filled(counts=(29, 5, 17))
    cache.branch(torch.tensor([0, 0, 0]))
    model.reorder([0, 0, 0])
    getattr(cache, change)(torch.tensor(argument))
    getattr(model, "reorder" if change == "branch" else change)(argument)
    k, v = tokens(7)
    cache.append(k, v)
    model.append(k, v)
    same_as(cache, model)
    attends_as(cache, model, q_len=3)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_cache_that_is_full_refuses_more_and_loses_nothing(dtype: torch.dtype) -> None:
    cache, model = filled(dtype, (29, 5, 17))
    k, v = tokens(MAX - 4)
    for counts in (None, torch.tensor([MAX - 28, 0, 1]), torch.tensor([0, 1, MAX - 16])):
        with pytest.raises(ValueError, match=r"expected .*47.*, got .*"):
            cache.append(k, v, counts)
        same_as(cache, model)
        attends_as(cache, model)
    counts = [MAX - 29, MAX - 5, MAX - 17]  # exactly full
    cache.append(k, v, torch.tensor(counts))
    model.append(k, v, counts)
    same_as(cache, model)
    with pytest.raises(ValueError, match=r"expected .*47.*, got .*"):
        cache.append(*tokens(1))
    cache.append(*tokens(0))
    same_as(cache, model)
    attends_as(cache, model)


@pytest.mark.parametrize("poison", [math.nan, math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_nan_in_unused_slots_never_matters(dtype: torch.dtype, poison: float) -> None:
    """The storage is filled with NaN first, then emptied: not a bit of anything may change."""
    for empty in (lambda c: c.truncate(0), lambda c: c.reset()):
        clean, _ = pair(dtype)
        dirty, model = pair(dtype)
        dirty.append(*(torch.full_like(x, poison) for x in tokens(MAX)))
        empty(dirty)
        q = torch.randn(B, H, 3, D)
        for counts in ((5, 0, 18), (1, 1, 0), (16, 15, 17)):
            k, v = tokens(max(counts))
            for cache in (clean, dirty):
                cache.append(k, v, torch.tensor(counts))
            model.append(k, v, counts)
            same_as(dirty, model)
            for mask in (None, Causal()):
                assert torch.equal(mmha.attention(q, dirty, mask=mask), mmha.attention(q, clean, mask=mask))


def test_float64_is_rounded() -> None:
    cache, model = pair()
    k, v = (x.double() * math.pi for x in tokens(3))
    cache.append(k, v)
    model.append(k, v)
    same_as(cache, model)


@pytest.mark.parametrize(
    ("dtype", "size"), [(torch.float32, 4), (torch.bfloat16, 2), (torch.float16, 2), (torch.int8, 1)], ids=str
)
def test_a_cache_takes_the_memory_of_its_numbers(dtype: torch.dtype, size: int) -> None:
    cache = KVCache(7, 3, 1024, 64, value_dim=32, dtype=dtype)
    numbers = 7 * 3 * 1024 * (64 + 32) * size
    scales = 7 * 3 * 1024 * 2 * 4 if dtype == torch.int8 else 0
    assert numbers + scales <= cache.nbytes <= 1.05 * (numbers + scales) + 4096 + 8 * 7 * 1024


def test_int8_of_subnormal_numbers_keeps_their_signs() -> None:
    # max / 127 rounds from 1.13 to 1 times the smallest number there is, and the largest over it is 143.
    small = torch.full((1, 1, 1, 16), 143 * 2.0**-149)
    cache = KVCache(1, 1, 4, 16, dtype=torch.int8)
    cache.append(small, -small)
    k, v = cache.to_dense()[:2]
    torch.testing.assert_close(k, torch.full_like(k, 127 * 2.0**-149), rtol=0, atol=0)
    torch.testing.assert_close(v, -k, rtol=0, atol=0)


def test_attention_over_int8_is_within_its_tolerance_of_the_numbers_given() -> None:
    for dim in (16, 37, 64, 128, 256):
        cache = KVCache(2, 4, 331, dim, dtype=torch.int8)
        model = ListModel.empty(2, 4, dim)
        k, v = torch.randn(2, 4, 331, dim), torch.randn(2, 4, 331, dim)
        cache.append(k, v)
        model.append(k, v)
        q = torch.randn(2, 8, 3, dim)
        near(mmha.attention(q, cache, mask=Causal()), expected(q, model, Causal())[0], torch.int8)


@pytest.mark.parametrize("window", [None, 5])
def test_a_step_that_cuts_a_row_beside_one_that_cannot_loses_nothing(window: int | None) -> None:
    """Row 0 would be cut; row 1 is full, or has lost what a cut would show again: neither changes."""
    cache = mmha.KVCache(2, 2, 7, 3, window=window)
    k, v = torch.randn(2, 2, 7, 3), torch.randn(2, 2, 7, 3)
    cache.append(k, v)
    if window is not None:
        cache.append(k, v, torch.tensor([0, 6]))
    held, lengths = cache.to_dense(), cache.lengths
    with pytest.raises(ValueError, match="row 1"):
        mmha.masked_multihead_attention(torch.randn(2, 24), cache, lengths=torch.tensor([5, 7]))
    assert torch.equal(cache.lengths, lengths)
    assert all(torch.equal(a, b) for a, b in zip(cache.to_dense(), held, strict=True))
