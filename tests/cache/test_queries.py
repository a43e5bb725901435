"""Where queries stand, what plain tensors hide, and caches without rows, queries or tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import mmha
from cache_model import expected, near
from cache_zoo import DV, HK, LONGEST, MASKS, B, D, H, compare, filled, random_bools, rules
from mmha import KVCache
from mmha.bias import ALiBi
from mmha.masks import Causal


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
    seen = random_bools(*(sizes[letter] for letter in shape), share=0.7)
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
