"""Caches in the modes and among the threads that programs run in."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor

import mmha
from cache_model import ListModel, expected, near, same_as
from mmha import KVCache, PagedKVCache, Rotary, masked_multihead_attention
from mmha.bias import ALiBi
from mmha.masks import Causal, Window

B, H, HK, D = 2, 4, 2, 24


pytestmark = pytest.mark.usefixtures("two_threads")


def tokens(n: int) -> tuple[Tensor, Tensor]:
    return torch.randn(B, HK, n, D), torch.randn(B, HK, n, D)


@pytest.mark.parametrize("made_inside", [True, False])
def test_inference_mode_inside_and_outside(made_inside: bool) -> None:
    """A cache may be made in one mode and go on in the other."""
    with torch.inference_mode(made_inside):
        cache, model = KVCache(B, HK, 64, D), ListModel.empty(B, HK, D)
    for inside in (True, False, True):
        with torch.inference_mode(inside):
            k, v = tokens(3)
            cache.append(k, v)
            q, qkv = torch.randn(B, H, 3, D), torch.randn(B, (H + 2 * HK) * D)
            out = mmha.attention(q, cache, mask=Causal())
        model.append(k, v)
        same_as(cache, model)
        near(out, expected(q, model, Causal())[0], torch.float32)
        with torch.inference_mode(inside):
            masked_multihead_attention(qkv, cache, rotary=Rotary(8))
            cache.branch(torch.tensor([1, 1]))
            cache.reorder(torch.tensor([1, 0]))
            cache.truncate(model.lengths[0])
        model.reorder([1, 1])
        same_as(cache, model)


def test_what_wants_a_gradient_is_appended_as_numbers() -> None:
    """Under no_grad, as models decode; the cache holds no graph."""
    cache, model = KVCache(B, HK, 64, D), ListModel.empty(B, HK, D)
    k, v = (x.requires_grad_() for x in tokens(5))
    with torch.no_grad():
        cache.append(k, v)
        out = mmha.attention(torch.randn(B, H, 1, D, requires_grad=True), cache)
    model.append(k.detach(), v.detach())
    assert not out.requires_grad
    assert not any(x.requires_grad for x in cache.to_dense())
    same_as(cache, model)


def test_another_default_dtype() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        cache = KVCache(B, HK, 8, D)
        cache.append(torch.ones(B, HK, 2, D), torch.ones(B, HK, 2, D))
        k, _ = cache.to_dense()
        out = mmha.attention(torch.ones(B, H, 1, D, dtype=torch.float32), cache)
        step = masked_multihead_attention(torch.ones(B, (H + 2 * HK) * D, dtype=torch.float32), cache, rotary=Rotary(8))
    finally:
        torch.set_default_dtype(torch.float32)
    assert k.dtype == out.dtype == step.dtype == torch.float32


def test_another_default_device() -> None:
    """A cache is on the CPU, whatever torch makes its tensors on by default."""
    k, qkv, rows = torch.randn(B, HK, 3, D), torch.randn(B, (H + 2 * HK) * D), torch.tensor([1, 0])
    q, beam = torch.randn(B, H, 1, D), torch.tensor([[0, 1, 1], [1, 1, 0]])
    results = []
    for device in ("cpu", "meta"):
        torch.set_default_device(device)
        try:
            pool = PagedKVCache(9, 4, HK, D)
            for cache in (KVCache(B, HK, 16, D), KVCache(B, HK, 16, D, window=3), pool.select(pool.allocate(B))):
                cache.append(k, k, [3, 1])
                cache.branch(rows)
                cache.reorder([1, 0])
                cache.truncate(1)
                step = masked_multihead_attention(qkv, cache, rotary=Rotary(8), lengths=[1, -1])
                cache.reset([0])
                out = mmha.attention(q, cache, mask=Causal() & Window(5), bias=ALiBi.standard(H))
                results += [step, out, cache.positions(), *cache.to_dense()]
            beams = KVCache(B, HK, 16, D)
            beams.append(k, k)
            results.append(masked_multihead_attention(qkv, beams, beam=beam))
        finally:
            torch.set_default_device("cpu")
    half = len(results) // 2
    assert all(torch.equal(a, b) for a, b in zip(results[:half], results[half:], strict=True))


def test_many_threads_read_one_cache() -> None:
    """Each gets the bits that it gets alone."""
    cache = KVCache(B, HK, 2048, D)
    cache.append(*tokens(2048))
    queries = [torch.randn(B, H, 1 + n % 3, D) for n in range(6)]
    wanted = [mmha.attention(q, cache, mask=Causal()) for q in queries]
    wrong: list[int] = []

    def read(n: int) -> None:
        for _ in range(20):
            if not torch.equal(mmha.attention(queries[n], cache, mask=Causal()), wanted[n]):
                wrong.append(n)

    threads = [threading.Thread(target=read, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert not wrong


def test_many_threads_fill_caches_of_their_own() -> None:
    given = [[(torch.randn(1, HK, 1, D), torch.randn(1, HK, 1, D)) for _ in range(60)] for _ in range(4)]
    q = torch.randn(1, H, 1, D)
    got: dict[int, Tensor] = {}

    def fill(n: int) -> Tensor:
        cache = KVCache(1, HK, 64, D)
        for k, v in given[n]:
            cache.append(k, v)
            out = mmha.attention(q, cache)
        got[n] = out
        return out

    threads = [threading.Thread(target=fill, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    together = dict(got)
    for n in range(4):
        assert torch.equal(together[n], fill(n))


def test_a_compiled_loop_runs_the_same() -> None:
    """torch.compile ends its graph at a cache, which changes in place, and goes on after it."""

    def chunk(cache: mmha.KVCache, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        cache.append(k, v)
        return mmha.attention(q * 2.0, cache, mask=Causal()) + 1.0

    def step(cache: mmha.KVCache, qkv: Tensor) -> Tensor:
        return mmha.masked_multihead_attention(qkv * 2.0, cache, rotary=mmha.Rotary(6)) + 1.0

    q, k, v = torch.randn(2, 6, 3, 7), torch.randn(2, 3, 3, 7), torch.randn(2, 3, 3, 7)
    token = torch.randn(2, 12 * 7)
    caches = [mmha.KVCache(2, 3, 17, 7) for _ in range(2)]
    eager = chunk(caches[0], q, k, v), step(caches[0], token)
    compiled = (
        torch.compile(chunk, backend="eager")(caches[1], q, k, v),
        torch.compile(step, backend="eager")(caches[1], token),
    )
    assert all(torch.equal(a, b) for a, b in zip(eager, compiled, strict=True))
    assert torch.equal(caches[0].lengths, caches[1].lengths)
