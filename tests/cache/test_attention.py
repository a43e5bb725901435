"""`mmha.attention` over a cache against the reference: every mask, bias, dtype, head count and number of queries."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

import mmha
from cache_zoo import DTYPES, DV, HK, LENGTHS, LONGEST, MASKS, Q_LENS, B, D, H, compare, filled, rules
from mmha import KVCache
from mmha.bias import Additive
from mmha.masks import Causal, Keys, Window
from tolerances import relative_error


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("q_len", Q_LENS)
@pytest.mark.parametrize("name", MASKS)
def test_every_mask_on_rows_of_different_lengths(name: str, q_len: int, isa: str) -> None:
    cache, model = filled()
    compare(torch.randn(B, H, q_len, D), cache, model, MASKS[name](q_len))


@pytest.mark.parametrize("q_dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("q_len", Q_LENS)
def test_every_dtype_of_queries_over_every_dtype_of_cache(
    q_len: int, dtype: torch.dtype, q_dtype: torch.dtype, isa: str
) -> None:
    cache, model = filled(dtype)
    compare(torch.randn(B, H, q_len, D).to(q_dtype), cache, model, Causal())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", [16, 37, 64, 128])
def test_what_is_stored_is_all_that_is_rounded(dim: int, dtype: torch.dtype, isa: str) -> None:
    """Attention over a cache is attention over what `to_dense` reads: queries and sums stay in float32, int8 too."""
    cache, _ = filled(dtype, (311, 300), 2, dim, dim)
    for q_len in (1, 5):
        q = torch.randn(2, 6, q_len, dim)
        cache.truncate(300)
        got, want = mmha.attention(q, cache, mask=Causal()), mmha.attention(q, *cache.to_dense(), Causal())
        assert relative_error(got, want) < (5e-5 if dtype == torch.int8 else 5e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("heads", "kv_heads"), [(6, 6), (6, 3), (8, 2), (16, 2), (32, 1), (5, 1)], ids=str)
def test_heads_that_share_keys(heads: int, kv_heads: int, dtype: torch.dtype, isa: str) -> None:
    cache, model = filled(dtype, kv_heads=kv_heads)
    for q_len in (1, 7):
        compare(torch.randn(B, heads, q_len, D), cache, model, Causal())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", [1, 2, 16, 31, 37, 64, 80, 96, 128, 192, 255, 256])
def test_head_sizes(dim: int, dtype: torch.dtype, isa: str) -> None:
    cache, model = filled(dtype, (19, 33), 2, dim, 257 - dim)
    for q_len in (1, 3):
        compare(torch.randn(2, 4, q_len, dim), cache, model, Causal())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 255, 256, 257, 1023, 1024, 1025, 2311])
def test_lengths_around_a_tile_and_a_chunk(length: int, dtype: torch.dtype, isa: str) -> None:
    cache, model = filled(dtype, (length, max(length - 3, 1)), 1, 16, 16)
    compare(torch.randn(2, 2, 1, 16), cache, model, Causal())
    compare(torch.randn(2, 2, 1, 16), cache, model, Causal() & Window(97))


@pytest.mark.parametrize("q_len", Q_LENS)
@pytest.mark.parametrize("name", rules())
def test_every_feature(name: str, q_len: int, isa: str) -> None:
    cache, model = filled()
    given, rule = rules()[name]
    compare(torch.randn(B, H, q_len, D), cache, model, Causal(), rule, **given)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_everything_over_every_dtype(dtype: torch.dtype, isa: str) -> None:
    cache, model = filled(dtype)
    given, rule = rules()["everything"]
    for q_len in (1, 7):
        compare(torch.randn(B, H, q_len, D), cache, model, Causal() & Window(30), rule, **given)


@pytest.mark.parametrize("q_len", [1, 5])
def test_an_additive_for_every_row_of_queries(q_len: int) -> None:
    cache, model = filled()
    added = torch.randn(B, 1, q_len, LONGEST)
    compare(torch.randn(B, H, q_len, D), cache, model, Causal(), {"additive": added}, bias=Additive(added))


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_what_a_mask_hides_in_a_cache_has_no_influence(poison: float, isa: str) -> None:
    keys = torch.arange(LONGEST) % 7 != 3
    k, v, q = torch.randn(B, HK, LONGEST, D), torch.randn(B, HK, LONGEST, DV), torch.randn(B, H, 3, D)
    outs = []
    for fill in (0.0, poison):
        cache = KVCache(B, HK, LONGEST, D, value_dim=DV)
        k[:, :, ~keys], v[:, :, ~keys] = fill, fill
        cache.append(k, v)
        outs.append(mmha.attention(q, cache, mask=Causal() & Keys(keys)))
    assert torch.equal(*outs)
    assert mmha.attention(q, cache, mask=Causal()).isnan().any()


def test_there_is_no_gradient_through_a_cache() -> None:
    cache, _ = filled()
    q = torch.randn(B, H, 1, D, requires_grad=True)
    with pytest.raises((RuntimeError, ValueError), match="grad"):
        mmha.attention(q, cache)
    with torch.no_grad():
        assert not mmha.attention(q, cache).requires_grad


def test_queries_in_any_layout() -> None:
    cache, _ = filled()
    q = torch.randn(B, H, 3, D)
    want = mmha.attention(q, cache, mask=Causal())
    for view in (q.transpose(1, 2).contiguous().transpose(1, 2), torch._neg_view(-q), q.mT.contiguous().mT):
        assert torch.equal(mmha.attention(view, cache, mask=Causal()), want)


def test_a_cache_is_only_read() -> None:
    cache, model = filled()
    before = [x.clone() for x in cache.to_dense()]
    mmha.attention(torch.randn(B, H, 3, D), cache, mask=Causal())
    assert all(torch.equal(a, b) for a, b in zip(before, cache.to_dense(), strict=True))
    assert cache.lengths.tolist() == list(LENGTHS) == model.lengths
