"""A cyclic `KVCache`, a ring of `window` positions after the first `sinks`, against a dense mask on all positions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

import mmha
from cache_model import ListModel, expected, near
from mmha import KVCache
from mmha.bias import ALiBi
from mmha.masks import Causal, Dilated, Full, Mask, PerHead, Prefix, Tree, Window

B, H, HK, D, DV = 2, 4, 2, 16, 13
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.int8]


def run(chunks: Sequence[int], window: int, sinks: int, dtype: torch.dtype = torch.float32, *, room: int = 0) -> None:
    """Append chunk after chunk and compare the last tokens each time with all positions under a mask."""
    cache = KVCache(B, HK, window + sinks + room, D, value_dim=DV, dtype=dtype, window=window, sinks=sinks)
    model = ListModel.empty(B, HK, D, DV, dtype)
    for n in chunks:
        k, v = torch.randn(B, HK, n, D), torch.randn(B, HK, n, DV)
        cache.append(k, v)
        model.append(k, v)
        q_len = min(max(n, 1), room + 1)
        q = torch.randn(B, H, q_len, D)
        out, lse = mmha.attention(q, cache, mask=Causal(), return_lse=True)
        want = expected(q, model, Causal(), window=window, sink_tokens=sinks)
        near(out, want[0], dtype)
        torch.testing.assert_close(lse, want[1].float(), rtol=1e-5, atol=0.05 if dtype == torch.int8 else 0.02)
    assert cache.lengths.tolist() == model.lengths


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("window", "sinks"), [(1, 0), (7, 0), (16, 4), (17, 3), (33, 16)], ids=str)
def test_token_by_token_for_many_turns(window: int, sinks: int, dtype: torch.dtype) -> None:
    run([1] * (2 * window + sinks + 19), window, sinks, dtype)


@pytest.mark.parametrize(("window", "sinks"), [(7, 0), (16, 4), (37, 5)], ids=str)
def test_prefills_of_any_length_then_tokens(window: int, sinks: int) -> None:
    for first in (1, sinks + 1, window - 1, window, window + sinks, window + sinks + 1, 3 * window + 2):
        run([first, *[1] * 9], window, sinks)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_chunks_that_the_room_beyond_the_window_holds(dtype: torch.dtype) -> None:
    """max_len = window + sinks + room: every query of a chunk of room + 1 still finds its whole window."""
    for window, sinks, room in ((7, 2, 4), (16, 0, 15), (33, 5, 8)):
        run([room + 1, 1, room, room + 1, 2, *[room + 1] * 9, 1, 3], window, sinks, dtype, room=room)


def test_a_chunk_too_long_for_the_ring_is_refused_and_changes_nothing() -> None:
    window, sinks, room = 7, 2, 4
    cache = KVCache(B, HK, window + sinks + room, D, value_dim=DV, window=window, sinks=sinks)
    model = ListModel.empty(B, HK, D, DV)
    for n in (21, room + 2):
        k, v = torch.randn(B, HK, n, D), torch.randn(B, HK, n, DV)
        cache.append(k, v)
        model.append(k, v)
    for q_len in (room + 2, 21):
        with pytest.raises(ValueError, match=r"`q`: expected .*overwritten"):
            mmha.attention(torch.randn(B, H, q_len, D), cache, mask=Causal())
    for q_len in (1, room + 1):
        q = torch.randn(B, H, q_len, D)
        want = expected(q, model, Causal(), window=window, sink_tokens=sinks)[0]
        near(mmha.attention(q, cache, mask=Causal()), want, torch.float32)
        near(
            mmha.attention(q, cache, mask=Causal() & Window(3)),
            expected(q, model, Causal() & Window(3), window=window)[0],
            torch.float32,
        )


BESIDE = [
    None,
    Window(4),
    Causal() & Dilated(2),
    PerHead([Causal(), Full(), Window(3), Causal() & Prefix(2)]),
    Tree([-1]),
]


@pytest.mark.parametrize("q_len", [1, 4])
@pytest.mark.parametrize("mask", BESIDE, ids=str)
def test_other_masks_beside_the_window(mask: Mask | None, q_len: int) -> None:
    window, sinks, room = 9, 2, 5
    cache = KVCache(B, HK, window + sinks + room, D, value_dim=DV, window=window, sinks=sinks)
    model = ListModel.empty(B, HK, D, DV)
    for n in (3, 5, 20, 1, 4):
        k, v = torch.randn(B, HK, n, D), torch.randn(B, HK, n, DV)
        cache.append(k, v, torch.tensor([n, n - n // 3]))
        model.append(k, v, [n, n - n // 3])
    q, slopes, sink = torch.randn(B, H, q_len, D), torch.rand(H), torch.randn(H)
    got = mmha.attention(q, cache, mask=mask, bias=ALiBi(slopes), softcap=3.0, sinks=sink)
    rule = {"slopes": slopes, "softcap": 3.0, "sinks": sink}
    near(got, expected(q, model, mask, window=window, sink_tokens=sinks, **rule)[0], torch.float32)


def test_what_is_held_and_where_it_stands() -> None:
    """`to_dense` gives the sinks and the window, `positions` where they stand, -1 where there is nothing."""
    window, sinks = 5, 2
    cache = KVCache(B, HK, 1, D, value_dim=DV, window=window, sinks=sinks)
    k, v = torch.randn(B, HK, 23, D), torch.randn(B, HK, 23, DV)
    cache.append(k, v, torch.tensor([23, 4]))
    held = [[0, 1, 18, 19, 20, 21, 22], [0, 1, 2, 3, -1, -1, -1]]
    assert cache.positions().tolist() == held
    for have, x in zip(cache.to_dense(), (k, v), strict=True):
        assert torch.equal(have[0], x[0, :, held[0]])
        assert torch.equal(have[1, :, :4], x[1, :, :4])
        assert not have[1, :, 4:].any()


def test_the_window_is_a_mask_on_absolute_positions() -> None:
    """The same numbers as `mmha.attention` under Causal & (Window | Prefix), which counts the token itself apart."""
    window, sinks, length = 23, 5, 131
    q, k, v = (torch.randn(1, h, length, d) for h, d in ((H, D), (HK, D), (HK, DV)))
    whole = mmha.attention(q, k, v, Causal() & (Window(window - 1) | Prefix(sinks)))
    cache = KVCache(1, HK, 1, D, value_dim=DV, window=window, sinks=sinks)
    for t in range(length):
        cache.append(k[:, :, t : t + 1], v[:, :, t : t + 1])
        for mask in (Causal(), None):
            got = mmha.attention(q[:, :, t : t + 1], cache, mask=mask)
            torch.testing.assert_close(got, whole[:, :, t : t + 1], rtol=1e-5, atol=1e-6)


def test_a_longer_run_than_max_len_and_little_memory() -> None:
    cache = KVCache(1, 1, 64, D, window=32, sinks=4)
    assert cache.nbytes <= 2 * 4 * D * (64 + 64) + 8192
    model = ListModel.empty(1, 1, D)
    for _ in range(301):
        k, v = torch.randn(1, 1, 1, D), torch.randn(1, 1, 1, D)
        cache.append(k, v)
        model.append(k, v)
    q = torch.randn(1, 2, 1, D)
    near(mmha.attention(q, cache), expected(q, model, window=32, sink_tokens=4)[0], torch.float32)


def test_ragged_rows_turn_at_their_own_time() -> None:
    window, sinks = 11, 3
    cache = KVCache(B, HK, 1, D, value_dim=DV, window=window, sinks=sinks)
    model = ListModel.empty(B, HK, D, DV)
    for counts in ((5, 0), (1, 7), (9, 2), (0, 9), (1, 1), (8, 11)) + ((1, 0), (1, 1)) * 9:
        n = max(counts)
        k, v = torch.randn(B, HK, n, D), torch.randn(B, HK, n, DV)
        cache.append(k, v, torch.tensor(counts))
        model.append(k, v, counts)
        q = torch.randn(B, H, 1, D)
        near(mmha.attention(q, cache), expected(q, model, window=window, sink_tokens=sinks)[0], torch.float32)


@pytest.mark.parametrize("how", ["reorder", "branch"])
def test_rows_become_others_after_the_ring_has_turned(how: str) -> None:
    window, sinks = 11, 3
    cache = KVCache(B, HK, 1, D, value_dim=DV, window=window, sinks=sinks)
    model = ListModel.empty(B, HK, D, DV)
    orders: list[list[int] | None] = [None, [1, 0], [1, 1], None, [0, 0], [1, 0]]
    for order in itertools.islice(itertools.cycle(orders), 30):
        if order is not None:
            getattr(cache, how)(torch.tensor(order))
            model.reorder(order)
        k, v = torch.randn(B, HK, 3, D), torch.randn(B, HK, 3, DV)
        counts = [3, 2]
        cache.append(k, v, torch.tensor(counts))
        model.append(k, v, counts)
        q = torch.randn(B, H, 1, D)
        near(mmha.attention(q, cache), expected(q, model, window=window, sink_tokens=sinks)[0], torch.float32)


def test_what_left_the_window_has_no_influence() -> None:
    """NaN that scrolls out of sight is gone; while a sink or the window shows it, it is there."""
    window, sinks = 5, 2

    def poisoned(at: int) -> Tensor:
        cache = KVCache(1, 1, 64, D, window=window, sinks=sinks)
        k = torch.randn(1, 1, 19, D, generator=torch.Generator().manual_seed(3))
        v = k.clone()
        if at >= 0:
            k[:, :, at], v[:, :, at] = math.nan, math.nan
        for t in range(19):
            cache.append(k[:, :, t : t + 1], v[:, :, t : t + 1])
        return mmha.attention(torch.ones(1, 1, 1, D), cache)

    clean = poisoned(-1)
    for at in range(19):
        seen = at < sinks or at >= 19 - window
        assert poisoned(at).isnan().all() if seen else torch.equal(poisoned(at), clean)


def test_truncate_within_the_window() -> None:
    """Speculated tokens are taken back; what they overwrote is out of every later window only if it is far enough."""
    window, sinks = 16, 4
    cache = KVCache(B, HK, 1, D, value_dim=DV, window=window, sinks=sinks)
    model = ListModel.empty(B, HK, D, DV)
    for length in (9, 3, 8):  # the ring has not turned yet: everything is still there
        k, v = torch.randn(B, HK, 9, D), torch.randn(B, HK, 9, DV)
        cache.append(k, v)
        model.append(k, v)
        cache.truncate(length)
        model.truncate(length)
        q = torch.randn(B, H, 1, D)
        near(mmha.attention(q, cache), expected(q, model, window=window, sink_tokens=sinks)[0], torch.float32)


def test_a_token_costs_nothing_for_what_its_ring_has_forgotten() -> None:
    """Behind two thousand million tokens, on threads: room for a result of each 1024 of them would be 230 GB."""
    heads, window, sinks = 7, 2048, 4
    cache = KVCache(1, heads, window + sinks, 67, value_dim=61, window=window, sinks=sinks)
    cache.append(torch.randn(1, heads, 4001, 67), torch.randn(1, heads, 4001, 61))
    q = torch.randn(1, heads, 1, 67)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        wanted = mmha.attention(q, cache, return_lse=True)
        for counts in (cache._lengths, cache._kept):
            counts += 1_000_000 * window  # as many turns: each key stays in its slot, and in its place in a tile
        out, lse = mmha.attention(q, cache, return_lse=True)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(out, wanted[0])
    assert torch.equal(lse, wanted[1])
