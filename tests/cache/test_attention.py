"""`mmha.attention` over a cache against the reference: every mask, bias, dtype, head count and number of queries."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import mmha
from cache_model import ListModel, expected, near
from mmha import KVCache
from mmha.bias import Additive, ALiBi, Relative
from mmha.masks import (
    Causal,
    Chunked,
    Dense,
    Dilated,
    Documents,
    Full,
    Global,
    KeyPadding,
    Keys,
    Mask,
    PerHead,
    Predicate,
    Prefix,
    Queries,
    QueryPadding,
    StrictCausal,
    Tree,
    Window,
)

B, H, HK, D, DV = 3, 6, 3, 17, 13
LENGTHS = (53, 67, 41)  # of each row, at least the largest Tq
LONGEST = max(LENGTHS)
Q_LENS = [1, 3, 7, 33]
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.int8]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def filled(
    dtype: torch.dtype = torch.float32,
    lengths: tuple[int, ...] = LENGTHS,
    kv_heads: int = HK,
    dim: int = D,
    value_dim: int = DV,
) -> tuple[KVCache, ListModel]:
    """A cache of these lengths, whose unused slots hold NaN (in float), and its model."""
    cache = KVCache(len(lengths), kv_heads, max(lengths) + 7, dim, value_dim=value_dim, dtype=dtype)
    model = ListModel.empty(len(lengths), kv_heads, dim, value_dim, dtype)
    sizes = (len(lengths), kv_heads, max(lengths) + 7)
    if dtype != torch.int8:
        cache.append(torch.full((*sizes, dim), math.nan), torch.full((*sizes, value_dim), math.nan))
        cache.truncate(0)
    k, v = torch.randn(*sizes, dim), torch.randn(*sizes, value_dim)
    cache.append(k, v, torch.tensor(lengths))
    model.append(k, v, lengths)
    return cache, model


def compare(q: Tensor, cache: Any, model: ListModel, mask: Mask | None, rule: Any = (), **arguments: Any) -> None:
    out, lse = mmha.attention(q, cache, mask=mask, return_lse=True, **arguments)
    want, want_lse = expected(q, model, mask, **dict(rule))
    assert out.dtype == q.dtype
    assert lse.dtype == torch.float32
    stored = model.stored
    assert stored is not None
    near(out, want, stored)
    slack = {torch.float32: 1e-5, torch.bfloat16: 0.02, torch.float16: 0.005, torch.int8: 0.02}
    torch.testing.assert_close(lse.double(), want_lse, rtol=1e-5, atol=max(slack[stored], slack[q.dtype]))
    assert not out[lse == -math.inf].any()
    assert torch.equal(out, mmha.attention(q, cache, mask=mask, **arguments))


def _random(*shape: int, share: float = 0.5) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(7)) < share


def _far(b: Tensor, h: Tensor, p: Tensor, j: Tensor) -> Tensor:
    return (p - j + h + b) % 5 < 2


MASKS: dict[str, Callable[[int], Mask | None]] = {
    "None": lambda n: None,
    "Full": lambda n: Full(),
    "Causal": lambda n: Causal(),
    "StrictCausal": lambda n: StrictCausal(),
    "Window": lambda n: Window(11),
    "Window ahead": lambda n: Window(3, 2),
    "Dilated": lambda n: Causal() & Dilated(3),
    "Chunked": lambda n: Causal() & Chunked(19),
    "Prefix": lambda n: (Causal() & Window(5)) | Prefix(torch.tensor([9, 0, 4])),
    "KeyPadding": lambda n: Causal() & KeyPadding([40, 61, 2]),
    "KeyPadding.left": lambda n: Causal() & KeyPadding.left([13, 0, 40]),
    "Keys": lambda n: Causal() & Keys(_random(B, LONGEST)),
    "Documents": lambda n: Causal() & Documents(torch.arange(LONGEST) // 11),
    "Documents per row": lambda n: Causal() & Documents(torch.arange(LONGEST) // torch.tensor([[5], [17], [29]])),
    "Queries": lambda n: Causal() & Queries(_random(B, n)),
    "QueryPadding": lambda n: Causal() & QueryPadding([52, 60, 41]),
    "Global": lambda n: Causal() & (Window(4) | Global([0, 31])),
    "Tree": lambda n: Tree([-1, 0, 0, 1, 2, -1, 5][:n]),
    "Dense": lambda n: Dense(_random(B, H, n, LONGEST)),
    "Dense per key": lambda n: Dense(_random(B, 1, 1, LONGEST, share=0.9)) & Causal(),
    "PerHead": lambda n: PerHead([Causal(), Full(), Window(5), StrictCausal(), ~Full(), Causal() & Dilated(7)]),
    "Predicate": lambda n: Predicate(_far),
    "nothing": lambda n: ~Full(),
}


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


def rules() -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """What is given to `attention`, and to the reference."""
    random = torch.Generator().manual_seed(11)
    slopes, table = torch.rand(H, generator=random), torch.randn(H, 2 * 9 + 1, generator=random)
    sinks, added = torch.randn(H, generator=random), torch.randn(B, H, 1, LONGEST, generator=random)
    holed = torch.randn(H, 1, LONGEST, generator=random).masked_fill(_random(H, 1, LONGEST, share=0.3), -math.inf)
    numbers = {"softcap": 2.5, "scale": 0.4}
    return {
        "alibi": ({"bias": ALiBi(slopes)}, {"slopes": slopes}),
        "relative": ({"bias": Relative(table)}, {"table": table}),
        "additive": ({"bias": Additive(added)}, {"additive": added}),
        "additive with -inf": ({"bias": Additive(holed)}, {"additive": holed}),
        "additive in half": ({"bias": Additive(added.half())}, {"additive": added.half()}),
        "softcap": ({"softcap": 1.5}, {"softcap": 1.5}),
        "scale": ({"scale": -0.3}, {"scale": -0.3}),
        "sinks": ({"sinks": sinks}, {"sinks": sinks}),
        "everything": (
            {"bias": ALiBi(slopes) + Relative(table) + Additive(added) + Additive(holed), "sinks": sinks, **numbers},
            {"slopes": slopes, "table": table, "additive": (added, holed), "sinks": sinks, **numbers},
        ),
    }  # fmt: skip


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


@pytest.mark.parametrize("q_start", [0, 20, 60, -5, 200, [0, 31, -9]], ids=str)
@pytest.mark.parametrize("name", ["None", "Causal", "Window", "Window ahead", "KeyPadding", "Global", "PerHead"])
def test_queries_stand_where_they_are_told_to(name: str, q_start: Any, isa: str) -> None:
    """Padded prompts stand at 0, whatever the length of their row; the distances of a bias follow."""
    cache, model = filled()
    given, rule = rules()["everything"]
    start = torch.tensor(q_start) if isinstance(q_start, list) else q_start
    for q_len in (1, 9):
        q, mask = torch.randn(B, H, q_len, D), MASKS[name](q_len)
        compare(q, cache, model, mask, {"q_start": q_start}, q_start=start)
        if q_start != 200:  # scores of -200 have few digits after the point
            compare(q, cache, model, mask, {"q_start": q_start, **rule}, q_start=start, **given)


def test_padded_prompts_attend_as_they_would_alone() -> None:
    """Prompts of different lengths, padded on the right with NaN: the bits of each prompt are those it has alone."""
    lengths, longest = [29, 5, 0, 17], 29
    q, k, v = (torch.full((4, h, longest, d), math.nan) for h, d in ((H, D), (HK, D), (HK, DV)))
    for b, n in enumerate(lengths):
        for x in (q, k, v):
            x[b, :, :n] = torch.randn(x.shape[1], n, x.shape[3])
    cache = KVCache(4, HK, 64, D, value_dim=DV)
    cache.append(k, v, torch.tensor(lengths))
    out = mmha.attention(q, cache, mask=Causal(), q_start=0)
    for b, n in enumerate(lengths):
        alone = mmha.attention(q[b : b + 1, :, :n], k[b : b + 1, :, :n], v[b : b + 1, :, :n], Causal())
        assert torch.equal(out[b : b + 1, :, :n], alone)


@pytest.mark.parametrize("q_len", [1, 5])
@pytest.mark.parametrize("shape", ["BHQK", "1HQK", "B11K", "QK"])
def test_plain_tensors_as_masks(shape: str, q_len: int) -> None:
    """Bool, True = visible; or float, added, where -inf hides."""
    cache, model = filled()
    sizes = {"B": B, "H": H, "Q": q_len, "K": LONGEST, "1": 1}
    seen = _random(*(sizes[letter] for letter in shape), share=0.7)
    q = torch.randn(B, H, q_len, D)
    out = mmha.attention(q, cache, mask=seen)
    near(out, expected(q, model, seen)[0], torch.float32)
    added = torch.randn(seen.shape).masked_fill(~seen, -math.inf)
    for bias, more in ((None, {}), (ALiBi.standard(H), {"slopes": ALiBi.standard(H).slopes})):
        got = mmha.attention(q, cache, mask=added, bias=bias)
        near(got, expected(q, model, additive=added, **more)[0], torch.float32)


def test_rows_shorter_than_the_queries_begin_before_their_first_token() -> None:
    """A query at a negative position sees nothing under Causal: output 0, lse -inf."""
    cache, model = filled(lengths=(2, 0, 9))
    q = torch.randn(B, H, 7, D)
    compare(q, cache, model, Causal())
    out, lse = mmha.attention(q, cache, mask=Causal(), return_lse=True)
    for b, n in enumerate((2, 0, 9)):
        before = max(7 - n, 0)
        assert not out[b, :, :before].any()
        assert (lse[b, :, :before] == -math.inf).all()
        assert lse[b, :, before:].isfinite().all()


def test_an_empty_cache_gives_nothing() -> None:
    cache = KVCache(B, HK, 5, D, value_dim=DV)
    out, lse = mmha.attention(torch.randn(B, H, 2, D), cache, return_lse=True, sinks=torch.zeros(H))
    assert out.shape == (B, H, 2, DV)
    assert not out.any()
    assert (lse == -math.inf).all()


def test_no_queries_and_no_rows() -> None:
    cache, _ = filled()
    assert mmha.attention(torch.randn(B, H, 0, D), cache, mask=Causal()).shape == (B, H, 0, DV)
    empty = KVCache(0, HK, 5, D, value_dim=DV)
    assert mmha.attention(torch.randn(0, H, 2, D), empty).shape == (0, H, 2, DV)


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
