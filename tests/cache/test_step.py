"""`masked_multihead_attention` against the float64 reference with unit-normal numbers, in every combination."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mmha
from cache_model import ListModel, near
from mmha import KVCache, PagedKVCache, Rotary, masked_multihead_attention, reference
from mmha.masks import Causal, Full
from mmha.reference import Rotation, Rule, Step
from step_zoo import FACTORS, PLAIN, Case, Twins, check_step, make, pairwise


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def holds(cache: Any, model: ListModel, given: torch.dtype = torch.float32) -> None:
    """What was rotated in float32 may be rounded to the neighbour of what was rotated in float64."""
    step = {torch.float32: 1e-6, torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10, torch.int8: 1 / 100}
    for have, want in zip(cache.to_dense(), model.dense(), strict=True):
        size = want.abs().amax(-1, keepdim=True).clamp_min(1.0)
        assert ((have - want).abs() <= max(step[model.stored or given], 1e-6) * size).all()


def name_of(case: Case) -> str:
    return ",".join(str(value) for value in case.values()).replace(" ", "")


@pytest.mark.parametrize("case", pairwise(FACTORS), ids=name_of)
def test_every_pair_of_features(case: Case) -> None:
    twins = make(case)
    check_step(twins)
    if not case["ring"]:
        holds(twins.cache, twins.model)


@settings(max_examples=150, deadline=None)
@given(case=st.fixed_dictionaries({name: st.sampled_from(choices) for name, choices in FACTORS.items()}))
def test_any_combination(case: Case) -> None:
    check_step(make(case))


@pytest.mark.parametrize("stored", FACTORS["stored"])
@pytest.mark.parametrize("given", FACTORS["given"])
@pytest.mark.parametrize("dim", FACTORS["dim"])
def test_head_sizes_and_dtypes(dim: int, given: str, stored: str, isa: str) -> None:
    check_step(
        make(PLAIN | {"dim": dim, "given": given, "stored": stored, "heads": (6, 2), "rotary": "half", "bias": True})
    )


@pytest.mark.parametrize("choice", [(name, value) for name, values in FACTORS.items() for value in values], ids=str)
def test_every_feature_alone(choice: tuple[str, Any], isa: str) -> None:
    name, value = choice
    beside = {"rotary": "half"} if name in ("dims", "positions") else {"out": "even"} if name == "bounds" else {}
    twins = make(PLAIN | {"heads": (6, 2), "past": (23, 41, 2)} | beside | {name: value})
    check_step(twins)
    if name != "ring":
        holds(twins.cache, twins.model)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.int8], ids=str)
@pytest.mark.parametrize("ring", [None, (11, 3)], ids=str)
def test_many_steps_beside_a_reference_that_goes_its_own_way(ring: Any, stored: torch.dtype) -> None:
    heads, kv_heads, dim, batch = 6, 2, 20, 2
    window, sinks = ring or (None, 0)
    cache = KVCache(batch, kv_heads, 64, dim, dtype=stored, window=window, sinks=sinks)
    model = ListModel.empty(batch, kv_heads, dim, stored=stored)
    step = Step(rotation=Rotation(dim), window=window, sink_tokens=sinks, stored=stored)
    for _ in range(40):
        check_step(Twins(torch.randn(batch, (heads + 2 * kv_heads) * dim), cache, {"rotary": Rotary(dim)}, model, step))


def test_a_step_over_pages() -> None:
    pool = PagedKVCache(30, 3, 2, 20, value_dim=12)
    view = pool.select(pool.allocate(3))
    cache = KVCache(3, 2, 64, 20, value_dim=12)
    k, v = torch.randn(3, 2, 13, 20), torch.randn(3, 2, 13, 12)
    for each in (view, cache):
        each.append(k, v, torch.tensor([13, 0, 5]))
    for _ in range(5):
        qkv = torch.randn(3, 8 * 20 + 2 * 12)
        got, want = (masked_multihead_attention(qkv, each, rotary=Rotary(20), softcap=3.0) for each in (view, cache))
        assert torch.equal(got, want)


def test_a_step_over_shared_pages_that_are_cut() -> None:
    """A fork goes back a few tokens and on from there; its parent keeps what it had, unused blocks become free."""
    pool = PagedKVCache(30, 3, 2, 20)
    (parent,) = pool.allocate(1)
    k, v = torch.randn(1, 2, 13, 20), torch.randn(1, 2, 13, 20)
    pool.select([parent]).append(k, v)
    child = pool.fork(parent)
    cache = KVCache(1, 2, 64, 20)
    cache.append(k, v)
    qkv, lengths = torch.randn(1, 8 * 20), torch.tensor([7])
    got, want = (masked_multihead_attention(qkv, each, lengths=lengths) for each in (pool.select([child]), cache))
    assert torch.equal(got, want)
    assert torch.equal(pool.select([child]).to_dense()[0], cache.to_dense()[0])
    assert torch.equal(pool.select([parent]).to_dense()[0], k)
    assert len(pool.block_table(child)) == 3
    assert pool.free_blocks == 30 - 5 - 1


def test_steps_of_a_beam_search() -> None:
    """Rows that go on from other rows, shared and not copied, and that are written over now and then."""
    heads, kv_heads, dim, batch = 6, 2, 20, 3
    for stored in (torch.float32, torch.int8):
        cache = KVCache(batch, kv_heads, 64, dim, dtype=stored)
        model = ListModel.empty(batch, kv_heads, dim, stored=stored)
        step = Step(rotation=Rotation(dim), stored=stored)
        for n in range(25):
            index = torch.randint(0, batch, (batch,))
            cache.branch(index)
            model.reorder(index.tolist())
            lengths = torch.tensor([max(m - n % 3, 0) for m in model.lengths])
            qkv = torch.randn(batch, (heads + 2 * kv_heads) * dim)
            arguments = {"rotary": Rotary(dim), "lengths": lengths}
            check_step(Twins(qkv, cache, arguments, model, replace(step, lengths=lengths)))
            holds(cache, model)


@pytest.mark.parametrize("position", [10**4, 10**6, 10**8])
def test_far_positions_turn_as_exactly_as_near_ones(position: int) -> None:
    qkv, cache = torch.randn(1, 3 * 64), KVCache(1, 1, 4, 64)
    masked_multihead_attention(qkv, cache, rotary=Rotary(64), positions=torch.tensor([position]))
    want = reference.rotate(qkv[0, 64:128], torch.tensor(position), Rotation(64))
    torch.testing.assert_close(cache.to_dense()[0].flatten().double(), want, rtol=0.0, atol=1e-6)


def test_qkv_and_positions_in_any_layout() -> None:
    qkv = torch.randn(2, 48)
    want = masked_multihead_attention(qkv, KVCache(2, 2, 4, 8))
    for view in (qkv.t().contiguous().t(), torch._neg_view(-qkv), torch.stack([qkv, qkv], -1)[..., 0]):
        assert torch.equal(masked_multihead_attention(view, KVCache(2, 2, 4, 8)), want)
    at, kept = torch.tensor([3, 97]), []
    for places in (
        at,
        at.int(),
        at.short(),
        at.to(torch.int8),
        at.to(torch.uint8),
        torch._neg_view(-at),
        torch.stack([at, at], -1)[..., 0],
    ):
        masked_multihead_attention(qkv, cache := KVCache(2, 2, 4, 8), rotary=Rotary(8), positions=places)
        kept.append(cache.to_dense()[0])
    assert all(torch.equal(keys, kept[0]) for keys in kept)


def test_without_rotation_and_bias_it_is_append_and_attention() -> None:
    """To the bit: the step is the same walk over the same cache."""
    heads, kv_heads, dim = 6, 2, 24
    fused, apart = (KVCache(3, kv_heads, 64, dim) for _ in range(2))
    for _ in range(20):
        qkv = torch.randn(3, (heads + 2 * kv_heads) * dim)
        q, k, v = qkv.split([heads * dim, kv_heads * dim, kv_heads * dim], 1)
        apart.append(k.view(3, kv_heads, 1, dim), v.view(3, kv_heads, 1, dim))
        want = mmha.attention(q.view(3, heads, 1, dim), apart, mask=Causal())
        assert torch.equal(masked_multihead_attention(qkv, fused), want.view(3, heads * dim))


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.int8], ids=str)
@pytest.mark.parametrize("given", [torch.float32, torch.float16], ids=str)
def test_every_way_to_ask_for_the_same_has_the_same_bits(given: torch.dtype, stored: torch.dtype, isa: str) -> None:
    """What is said without need may send the step on another way through the program, but not to other bits."""
    heads, kv_heads, dim = 6, 2, 24
    k, qkv = torch.randn(3, kv_heads, 301, dim), torch.randn(3, (heads + 2 * kv_heads) * dim).to(given)
    lengths = torch.tensor([301, 17, 0])
    said: list[dict[str, Any]] = [
        {},
        {"lengths": lengths},
        {"positions": lengths},
        {"mask": Causal()},
        {"mask": Full(), "scale": dim**-0.5},
        {"src_mask": torch.zeros(302)},
        {"beam": torch.arange(3)[:, None].expand(3, 320)},
        {"bias": torch.zeros(qkv.shape[1]), "out_shift": torch.zeros(heads * dim)},
        {"sinks": torch.full((heads,), -math.inf)},
    ]
    for turn in (None, Rotary(12)):
        results = []
        for more in said if turn else [asked for asked in said if "positions" not in asked]:
            cache = KVCache(3, kv_heads, 320, dim, dtype=stored)
            cache.append(k, k, lengths)
            results.append(masked_multihead_attention(qkv, cache, rotary=turn, **more))
            assert cache.lengths.tolist() == [302, 18, 1]
        assert all(torch.equal(result, results[0]) for result in results)


def test_the_first_token_is_its_own_value_to_the_bit() -> None:
    """One key has the weight 1, not 1 / (1 + 1e-6)."""
    cache = KVCache(2, 1, 8, 16, value_dim=8)
    qkv = torch.randn(2, 3 * 16 + 16 + 8)
    out = masked_multihead_attention(qkv, cache)
    assert torch.equal(out, qkv[:, -8:].repeat(1, 3))


# Rows that are skipped, and rows that are written over --------------------------------------------------------
@pytest.mark.parametrize("output", [{}, {"out_scale": 0.1}], ids=str)
def test_a_negative_length_skips_the_row(output: dict[str, float]) -> None:
    cache = KVCache(3, 2, 16, 8)
    cache.append(torch.randn(3, 2, 4, 8), torch.randn(3, 2, 4, 8))
    before = [x.clone() for x in cache.to_dense()]
    qkv = torch.randn(3, 6 * 8)
    whole = masked_multihead_attention(qkv, copy_of(cache), out_shift=torch.ones(16), **output)
    qkv[1] = math.nan
    arguments: dict[str, Any] = {"lengths": torch.tensor([4, -1, 4]), "out_shift": torch.ones(16), **output}
    out = masked_multihead_attention(qkv, cache, **arguments)
    assert not out[1].any()
    assert torch.equal(out[[0, 2]], whole[[0, 2]])
    assert cache.lengths.tolist() == [5, 4, 5]
    assert all(torch.equal(a[1, :, :4], b[1]) for a, b in zip(cache.to_dense(), before, strict=True))
    arguments["lengths"] = torch.full((3,), -7)
    assert not masked_multihead_attention(qkv, cache, **arguments).any()
    assert cache.lengths.tolist() == [5, 4, 5]


def copy_of(cache: KVCache) -> KVCache:
    """Another cache that holds the same."""
    k, v = cache.to_dense()
    other = KVCache(k.shape[0], k.shape[1], 16, k.shape[3], value_dim=v.shape[3])
    other.append(k, v)
    return other


def test_a_smaller_length_writes_over_what_stood_there() -> None:
    k, v, qkv = torch.randn(2, 2, 9, 8), torch.randn(2, 2, 9, 8), torch.randn(2, 6 * 8)
    longer, shorter = (KVCache(2, 2, 16, 8) for _ in range(2))
    longer.append(k, v)
    shorter.append(k, v, torch.tensor([3, 9]))
    got = masked_multihead_attention(qkv, longer, lengths=torch.tensor([3, 9]))
    assert torch.equal(got, masked_multihead_attention(qkv, shorter))
    assert longer.lengths.tolist() == [4, 10]
    assert all(torch.equal(a, b) for a, b in zip(longer.to_dense(), shorter.to_dense(), strict=True))


def test_a_full_row_is_an_error_that_changes_nothing() -> None:
    cache = KVCache(2, 2, 5, 8)
    k, v = torch.randn(2, 2, 5, 8), torch.randn(2, 2, 5, 8)
    cache.append(k, v, torch.tensor([3, 5]))
    before = cache.to_dense()
    with pytest.raises(ValueError, match=r"expected .*5.*, got "):
        masked_multihead_attention(torch.randn(2, 48), cache)
    assert cache.lengths.tolist() == [3, 5]
    assert all(torch.equal(a, b) for a, b in zip(cache.to_dense(), before, strict=True))
    masked_multihead_attention(torch.randn(2, 48), cache, lengths=torch.tensor([3, -1]))
    masked_multihead_attention(torch.randn(2, 48), cache, lengths=torch.tensor([4, 4]))
    assert cache.lengths.tolist() == [5, 5]


# int8 output --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("how", "want"), [("even", [-3, 0, 0, 0, 2, 2, 4, -3]), ("away", [-3, -1, 0, 1, 2, 3, 4, -3])], ids=str
)
@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_both_ways_of_rounding_to_the_bit(how: str, want: list[int], given: torch.dtype) -> None:
    """With one key the output is v itself, and 4 * 0.25 = 1: ties stay ties, and the bounds cut."""
    v = torch.tensor([-3.25, -0.5, 0.25, 0.5, 1.5, 2.5, 90.0, -7.5])
    qkv = torch.cat([torch.zeros(16), v])[None].to(given)
    out = masked_multihead_attention(qkv, KVCache(1, 1, 4, 8), out_scale=0.25, round=how, out_bounds=(-3, 4))
    assert out.dtype == torch.int8
    assert out[0].tolist() == want


def test_shift_comes_before_smooth() -> None:
    v = torch.tensor([1.0, -2.0, 3.0, 0.5])
    shift, smooth = torch.tensor([1.0, 2.0, -1.0, 0.5]), torch.tensor([3.0, 5.0, 0.5, -2.0])
    qkv = torch.cat([torch.zeros(8), v])[None]
    out = masked_multihead_attention(qkv, KVCache(1, 1, 4, 4), out_shift=shift, out_smooth=smooth)
    assert out[0].tolist() == [6.0, 0.0, 1.0, -2.0]


def test_rotary_is_the_rotation_of_the_reference() -> None:
    x = torch.randn(3, 5, 7, 37, dtype=torch.float64)
    for style in ("half", "interleaved"):
        for positions in (torch.randint(0, 999, (3, 7)), torch.randint(0, 999, (3, 7, 2))):
            at = positions[:, None].expand(-1, 5, *positions.shape[1:])
            want = reference.rotate(x, at, Rotation(24, 70.0, style))
            torch.testing.assert_close(Rotary(24, 70.0, style)(x, positions), want, rtol=0.0, atol=1e-12)


def test_a_rule_of_masks_and_biases_is_that_of_attention() -> None:
    """src_mask, mask and score_bias together hide and add what the reference is told."""
    src_mask = torch.zeros(1, 1, 1, 6)
    src_mask[..., 2] = -math.inf
    cache = KVCache(1, 1, 8, 16)
    k = torch.randn(1, 1, 5, 16)
    cache.append(k, k)
    qkv = torch.randn(1, 3 * 16)
    got = masked_multihead_attention(qkv, cache, src_mask=src_mask, mask=Causal())
    past = [(k[0], k[0])]
    want, _ = reference.masked_multihead_attention(qkv, past, Step(rule=Rule(src_mask > -1.0)))
    near(got, want, torch.float32)
