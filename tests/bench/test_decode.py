"""Contests over a cache: both sides agree in every format, bytes are counted, and a step can be repeated."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmha.bench import agree, decode
from mmha.bench.cases import Case, DType, Kind, Sizes, sizes
from mmha.bench.contest import tensors
from mmha.bench.measure import BUILDERS

SHARED = sizes(263, q_len=1, batch=3, heads=10, kv_heads=2, dim=32)
CHUNK = sizes(263, q_len=13, heads=6, kv_heads=3, dim=32)


def case(kind: Kind, size: Sizes, dtype: DType = "f32") -> Case:
    return Case("decode", "forward", kind, size, aim=1.0, dtype=dtype)


@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16", "i8"])
@pytest.mark.parametrize(
    ("kind", "size"), [("token", SHARED), ("step", SHARED), ("prefill", CHUNK), ("guesses", CHUNK)]
)
def test_both_sides_agree(kind: Kind, size: Sizes, dtype: DType) -> None:
    row = case(kind, size, dtype)
    contest = BUILDERS[kind](row)
    ours, theirs = contest.ours.work("forward")(), contest.theirs.work("forward")()
    assert ours[0].dtype == theirs[0].dtype == tensors(row)[0].dtype
    assert agree.check(row, contest, ours, theirs) > 0


@pytest.mark.parametrize(
    ("kind", "size", "pairs"),
    [
        ("token", SHARED, 30 * 263),
        ("step", SHARED, 30 * 263),
        ("prefill", CHUNK, 6 * (13 * 250 + 13 * 14 // 2)),
        ("guesses", CHUNK, 6 * (13 * 250 + 1 + 2 * 2 + 4 * 3 + 6 * 4)),  # 1, 2, 4 and 6 nodes at depths 1 to 4
    ],
)
def test_pairs_are_the_past_and_what_the_mask_shows(kind: Kind, size: Sizes, pairs: int) -> None:
    contest = BUILDERS[kind](case(kind, size))
    assert contest.pairs == pairs
    assert (contest.read > 0) == (kind in ("token", "step"))


@pytest.mark.parametrize(("dtype", "bytes_a_head"), [("f32", 128), ("bf16", 64), ("f16", 64), ("i8", 32 + 4)])
def test_bytes_are_those_of_keys_values_and_scales(dtype: DType, bytes_a_head: int) -> None:
    assert decode.read_bytes(case("token", SHARED, dtype)) == 2 * 3 * 2 * 263 * bytes_a_head


def test_a_first_step_is_torchs_and_may_be_repeated() -> None:
    contest = decode.step(case("step", SHARED))
    ours, theirs = contest.ours.work("forward"), contest.theirs.work("forward")
    torch.testing.assert_close(ours()[0], theirs()[0])
    for _ in range(SHARED.k_len):
        assert ours()[0].isfinite().all()


def test_folded_heads_are_those_of_enable_gqa() -> None:
    q, k, v, _ = tensors(case("prefill", CHUNK))
    expected = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    made = decode.unfolded(F.scaled_dot_product_attention(decode.folded(q, 3), k, v), q)
    torch.testing.assert_close(made, expected)
