"""Promise 7 for caches and the decode step: what does not fit is refused by name and changes nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import mmha
from mmha import KVCache, PagedKVCache, Rotary, masked_multihead_attention
from mmha.bias import Additive, ALiBi
from mmha.masks import Causal, Dense, Keys, PerHead

B, H, HK, D, DV, MAX, N = 2, 6, 3, 11, 13, 17, 5
WIDTH = (H + HK) * D + HK * DV
Bad = tuple[Callable[[Any], Any], str, str]


def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(shape, dtype=dtype)


def leaf(*shape: int) -> Tensor:
    return zeros(*shape).requires_grad_()


def filled() -> KVCache:
    cache = KVCache(B, HK, MAX, D, value_dim=DV)
    cache.append(torch.randn(B, HK, N, D), torch.randn(B, HK, N, DV), torch.tensor([N, N - 2]))
    return cache


def refused(bad: Bad, cache: Any) -> None:
    """One line that names the argument, what was expected and what came (which holds the fragment)."""
    call, argument, fragment = bad
    with pytest.raises((TypeError, ValueError, NotImplementedError)) as info:
        call(cache)
    text = str(info.value)
    pattern = rf"`{re.escape(argument)}`: expected .+, got .*{re.escape(fragment)}.*"
    assert re.fullmatch(pattern, text), f"{text!r} does not match {pattern!r}"


def new(*sizes: Any, **more: Any) -> Callable[[Any], Any]:
    given: list[Any] = [B, HK, MAX, D]
    for n, size in enumerate(sizes):
        given[n] = given[n] if size is None else size
    return lambda cache: KVCache(*given, **more)


CONSTRUCTOR: dict[str, Bad] = {
    "negative batch": (new(-1), "batch", "-1"),
    "no heads": (new(None, 0), "kv_heads", "0"),
    "heads as a float": (new(None, 2.0), "kv_heads", "2.0"),
    "negative max_len": (new(None, None, -3), "max_len", "-3"),
    "max_len as a string": (new(None, None, "17"), "max_len", "'17'"),
    "no head size": (new(None, None, None, 0), "head_dim", "0"),
    "negative value_dim": (new(value_dim=-2), "value_dim", "-2"),
    "float64": (new(dtype=torch.float64), "dtype", "float64"),
    "a dtype by name": (new(dtype="float32"), "dtype", "str 'float32'"),
    "a dtype that nothing can be looked up by": (new(dtype=[]), "dtype", "list []"),
    "no window": (new(window=0), "window", "0"),
    "negative sinks": (new(window=4, sinks=-1), "sinks", "-1"),
    "sinks without a window": (new(sinks=3), "sinks", "3"),
}


def append(k: Any = None, v: Any = None, counts: Any = None) -> Callable[[Any], Any]:
    given_k, given_v = zeros(B, HK, 4, D) if k is None else k, zeros(B, HK, 4, DV) if v is None else v
    return lambda cache: cache.append(given_k, given_v, counts)


APPEND: dict[str, Bad] = {
    "k is a list": (append([1.0]), "k", "list"),
    "k of three dimensions": (append(zeros(HK, 4, D)), "k", "(3, 4, 11)"),
    "another batch": (append(zeros(B + 1, HK, 4, D)), "k", "(3, 3, 4, 11)"),
    "other heads": (append(zeros(B, H, 4, D)), "k", "(2, 6, 4, 11)"),
    "another head size": (append(zeros(B, HK, 4, D + 1)), "k", "(2, 3, 4, 12)"),
    "another value size": (append(None, zeros(B, HK, 4, D)), "v", "(2, 3, 4, 11)"),
    "v of another length": (append(None, zeros(B, HK, 3, DV)), "v", "(2, 3, 3, 13)"),
    "integers": (append(zeros(B, HK, 4, D, dtype=torch.int64)), "k", "int64"),
    "values that are integers": (append(None, zeros(B, HK, 4, DV, dtype=torch.int8)), "v", "int8"),
    "another device": (append(torch.zeros(B, HK, 4, D, device="meta")), "k", "meta"),
    "counts of another length": (append(counts=torch.tensor([1, 2, 3])), "counts", "(3,)"),
    "counts that are floats": (append(counts=torch.tensor([1.0, 2.0])), "counts", "float32"),
    "negative counts": (append(counts=torch.tensor([1, -2])), "counts", "-2"),
    "counts as a string": (append(counts="ab"), "counts", "'ab'"),
    "counts beyond the tokens": (append(counts=torch.tensor([5, 1])), "counts", "5"),
}
ROWS: dict[str, Bad] = {
    "truncate below 0": (lambda c: c.truncate(-1), "lengths", "-1"),
    "truncate to more than there is": (lambda c: c.truncate([N, N]), "lengths", "5"),
    "truncate another batch": (lambda c: c.truncate(torch.tensor([1, 2, 3])), "lengths", "(3,)"),
    "truncate by floats": (lambda c: c.truncate(torch.tensor([1.0, 2.0])), "lengths", "float32"),
    "truncate to nothing": (lambda c: c.truncate(None), "lengths", "None"),
    "truncate by a string": (lambda c: c.truncate("a"), "lengths", "'a'"),
    "reset by a string": (lambda c: c.reset("a"), "rows", "'a'"),
    "reorder by a string": (lambda c: c.reorder("ab"), "index", "'ab'"),
    "branch by None": (lambda c: c.branch(None), "index", "None"),
    "reset a row that is not there": (lambda c: c.reset([0, B]), "rows", "2"),
    "reset a negative row": (lambda c: c.reset([-1]), "rows", "-1"),
    "reset by floats": (lambda c: c.reset(torch.tensor([0.0])), "rows", "float32"),
    "reorder from a row that is not there": (lambda c: c.reorder(torch.tensor([0, B])), "index", "2"),
    "reorder another batch": (lambda c: c.reorder(torch.tensor([0])), "index", "(1,)"),
    "branch from a negative row": (lambda c: c.branch(torch.tensor([0, -1])), "index", "-1"),
    "branch by floats": (lambda c: c.branch(torch.tensor([0.0, 1.0])), "index", "float32"),
}


def attend(q: Any = None, mask: Any = None, **more: Any) -> Callable[[Any], Any]:
    return lambda cache: mmha.attention(zeros(B, H, 2, D) if q is None else q, cache, mask=mask, **more)


ATTENTION: dict[str, Bad] = {
    "q is a list": (attend([1.0]), "q", "list"),
    "q of three dimensions": (attend(zeros(H, 2, D)), "q", "(6, 2, 11)"),
    "another batch": (attend(zeros(B + 1, H, 2, D)), "q", "3"),
    "another head size": (attend(zeros(B, H, 2, D + 1)), "q", "12"),
    "heads that do not divide": (attend(zeros(B, H + 1, 2, D)), "q", "7"),
    "integers": (attend(zeros(B, H, 2, D, dtype=torch.int32)), "q", "int32"),
    "a mask by name": (attend(None, "causal"), "mask", "'causal'"),
    "keys of another length": (attend(None, Keys(zeros(B, N + 1, dtype=torch.bool))), "real", "(2, 6)"),
    "a dense mask of another size": (attend(None, Dense(zeros(3, N, dtype=torch.bool))), "tensor", "(3, 5)"),
    "masks for other heads": (attend(None, PerHead([Causal(), Causal()])), "masks", "2"),
    "slopes for other heads": (attend(bias=ALiBi([1.0, 2.0])), "bias", "2"),
    "an additive of another size": (attend(bias=Additive(zeros(2, N + 2))), "bias", "(2, 7)"),
    "a bias that is a tensor": (attend(bias=zeros(H)), "bias", "(6,)"),
    "slopes with a gradient": (attend(bias=ALiBi(leaf(H))), "bias", "requires it"),
    "an additive with a gradient": (attend(bias=Additive(leaf(2, N))), "bias", "requires it"),
    "a float mask with a gradient": (attend(None, leaf(2, N)), "mask", "requires it"),
    "sinks with a gradient": (attend(sinks=leaf(H)), "sinks", "requires it"),
    "scale is NaN": (attend(scale=math.nan), "scale", "nan"),
    "softcap is 0": (attend(softcap=0.0), "softcap", "0.0"),
    "sinks for other heads": (attend(sinks=zeros(H + 1)), "sinks", "(7,)"),
}


def step(qkv: Any = None, **more: Any) -> Callable[[Any], Any]:
    return lambda cache: masked_multihead_attention(zeros(B, WIDTH) if qkv is None else qkv, cache, **more)


INT = torch.int32
STEP: dict[str, Bad] = {
    "qkv is a list": (step([1.0]), "qkv", "list"),
    "qkv of three dimensions": (step(zeros(B, 1, WIDTH)), "qkv", f"({B}, 1, {WIDTH})"),
    "another batch": (step(zeros(B + 1, WIDTH)), "qkv", f"({B + 1}, {WIDTH})"),
    "a width between two numbers of heads": (step(zeros(B, WIDTH + 1)), "qkv", str(WIDTH + 1)),
    "heads that do not divide": (step(zeros(B, WIDTH + D)), "qkv", ""),
    "no query heads": (step(zeros(B, HK * (D + DV))), "qkv", ""),
    "int64": (step(zeros(B, WIDTH, dtype=torch.int64)), "qkv", "int64"),
    "integers without a scale": (step(zeros(B, WIDTH, dtype=INT)), "qkv_scale", "None"),
    "a scale of another width": (
        step(zeros(B, WIDTH, dtype=INT), qkv_scale=zeros(WIDTH - 1)),
        "qkv_scale",
        f"({WIDTH - 1},)",
    ),
    "a scale of integers": (step(zeros(B, WIDTH, dtype=INT), qkv_scale=zeros(WIDTH, dtype=INT)), "qkv_scale", "int32"),
    "bias of another width": (step(bias=zeros(WIDTH + 1)), "bias", f"({WIDTH + 1},)"),
    "src_mask of another length": (step(src_mask=zeros(B, 1, 1, N)), "src_mask", f"({B}, 1, 1, {N})"),
    "src_mask of bools": (step(src_mask=zeros(B, 1, 1, N + 1, dtype=torch.bool)), "src_mask", "bool"),
    "rotary is a number": (step(rotary=64), "rotary", "64"),
    "more rotary dims than the head has": (step(rotary=Rotary(D + 1)), "rotary", str(D + 1)),
    "positions of another batch": (step(rotary=Rotary(4), positions=torch.zeros(3).int()), "positions", "(3,)"),
    "positions that are floats": (step(rotary=Rotary(4), positions=zeros(B)), "positions", "float32"),
    "three position ids": (step(rotary=Rotary(4), positions=torch.zeros(B, 3).int()), "positions", f"({B}, 3)"),
    "two position ids and dims for one": (step(rotary=Rotary(2), positions=torch.zeros(B, 2).int()), "rotary", "2"),
    "lengths of another batch": (step(lengths=torch.tensor([1])), "lengths", "(1,)"),
    "lengths that are floats": (step(lengths=zeros(B)), "lengths", "float32"),
    "lengths beyond the past": (step(lengths=torch.tensor([N, N])), "lengths", str(N)),
    "beam of another batch": (step(beam=zeros(B + 1, MAX, dtype=INT)), "beam", f"({B + 1}, {MAX})"),
    "beam of floats": (step(beam=zeros(B, MAX)), "beam", "float32"),
    "beam of a row that is not there": (step(beam=torch.full((B, MAX), B)), "beam", str(B)),
    "beam of a negative row": (step(beam=torch.full((B, MAX), -1)), "beam", "-1"),
    "a mask by name": (step(mask="causal"), "mask", "'causal'"),
    "keys of another length": (step(mask=Keys(zeros(B, N, dtype=torch.bool))), "real", "(2, 5)"),
    "a bias of scores with a gradient": (step(score_bias=ALiBi(leaf(H))), "score_bias", "requires it"),
    "src_mask with a gradient": (step(src_mask=leaf(B, 1, 1, N + 1)), "src_mask", "requires it"),
    "a bias of scores that is a tensor": (step(score_bias=zeros(H)), "score_bias", "(6,)"),
    "slopes for other heads": (step(score_bias=ALiBi([1.0, 2.0])), "score_bias", "2"),
    "scale is infinite": (step(scale=math.inf), "scale", "inf"),
    "softcap is negative": (step(softcap=-1.0), "softcap", "-1.0"),
    "sinks for other heads": (step(sinks=zeros(HK)), "sinks", "(3,)"),
    "a shift of another width": (step(out_shift=zeros(H * D)), "out_shift", f"({H * D},)"),
    "a factor of another width": (step(out_smooth=zeros(1)), "out_smooth", "(1,)"),
    "an output scale of 0": (step(out_scale=0.0), "out_scale", "0.0"),
    "an output scale of NaN": (step(out_scale=math.nan), "out_scale", "nan"),
    "an unknown way to round": (step(out_scale=1.0, round="up"), "round", "'up'"),
    "bounds the wrong way round": (step(out_scale=1.0, out_bounds=(127, -127)), "out_bounds", "127"),
    "bounds beyond int8": (step(out_scale=1.0, out_bounds=(-129, 127)), "out_bounds", "-129"),
}


@pytest.mark.parametrize("name", CONSTRUCTOR)
def test_new_caches(name: str) -> None:
    refused(CONSTRUCTOR[name], None)


@pytest.mark.parametrize(
    "bad", [(table, name) for table in (APPEND, ROWS, ATTENTION, STEP) for name in table], ids=lambda bad: bad[1]
)
def test_what_is_asked_of_a_cache(bad: tuple[dict[str, Bad], str]) -> None:
    table, name = bad
    cache = filled()
    lengths, (k, v) = cache.lengths, cache.to_dense()
    refused(table[name], cache)
    assert torch.equal(cache.lengths, lengths)
    assert all(torch.equal(a, b) for a, b in zip(cache.to_dense(), (k, v), strict=True))


#: What is asked of a pool and the one sequence in it.
PAGED: dict[str, Bad] = {
    "no blocks": (lambda x: PagedKVCache(-1, 3, HK, D), "num_blocks", "-1"),
    "blocks without room": (lambda x: PagedKVCache(4, 0, HK, D), "block_size", "0"),
    "no heads": (lambda x: PagedKVCache(4, 3, 0, D), "kv_heads", "0"),
    "no head size": (lambda x: PagedKVCache(4, 3, HK, 0), "head_dim", "0"),
    "float64": (lambda x: PagedKVCache(4, 3, HK, D, dtype=torch.float64), "dtype", "float64"),
    "a negative number of sequences": (lambda x: x[0].allocate(-1), "count", "-1"),
    "a number of sequences that is none": (lambda x: x[0].allocate(1.5), "count", "1.5"),
    "free what is not there": (lambda x: x[0].free([99]), "sequences", "99"),
    "free the same twice": (lambda x: x[0].free([x[1], x[1]]), "sequences", "[0, 0]"),
    "free None": (lambda x: x[0].free(None), "sequences", "None"),
    "select a float": (lambda x: x[0].select(1.5), "sequences", "1.5"),
    "fork a list": (lambda x: x[0].fork([x[1]]), "sequence", "[0]"),
    "fork more than there is": (lambda x: x[0].fork(x[1], 8), "length", "8"),
    "fork what is not there": (lambda x: x[0].fork(99), "sequence", "99"),
    "select what is not there": (lambda x: x[0].select([99]), "sequences", "99"),
    "select the same twice": (lambda x: x[0].select([x[1], x[1]]), "sequences", "[0, 0]"),
}


@pytest.mark.parametrize("name", PAGED)
def test_what_is_asked_of_a_pool(name: str) -> None:
    pool = PagedKVCache(4, 3, HK, D)
    (each,) = pool.allocate(1)
    pool.select([each]).append(torch.randn(1, HK, 7, D), torch.randn(1, HK, 7, D))
    before = pool.select([each]).to_dense()
    refused(PAGED[name], (pool, each))
    assert all(torch.equal(a, b) for a, b in zip(pool.select([each]).to_dense(), before, strict=True))


def test_a_view_of_what_was_freed_is_refused() -> None:
    pool = PagedKVCache(4, 3, HK, D)
    (each,) = pool.allocate(1)
    view = pool.select([each])
    pool.free([each])
    for call in (
        lambda: view.append(zeros(1, HK, 1, D), zeros(1, HK, 1, D)),
        lambda: view.truncate(0),
        lambda: mmha.attention(zeros(1, H, 1, D), view),
    ):
        with pytest.raises(ValueError, match=r"expected .+, got "):
            call()


def test_what_a_cache_cannot_do_is_said() -> None:
    """Dropout, weights and values make no sense beside a cache; none of them is ignored."""
    cache = filled()
    for more in ({"dropout_p": 0.1}, {"return_weights": True}, {"v": zeros(B, HK, N, DV)}):
        with pytest.raises((TypeError, ValueError, NotImplementedError), match=next(iter(more))):
            mmha.attention(zeros(B, H, 2, D), cache, **more)
