"""The reference's decode step against closed forms: complex numbers, two keys by hand, torch's own attention."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from mmha import reference
from mmha.reference import Output, Rotation, Rule, Step, masked_multihead_attention, rotate, stored_as

B, H, HK, D, DV = 3, 6, 2, 10, 7
LENGTHS = (5, 0, 11)
EPS = 1e-13

Past = list[tuple[Tensor, Tensor]]


def past() -> Past:
    return [(torch.randn(HK, n, D, dtype=torch.float64), torch.randn(HK, n, DV, dtype=torch.float64)) for n in LENGTHS]


def qkv() -> Tensor:
    return torch.randn(B, H * D + HK * D + HK * DV, dtype=torch.float64)


def parts(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = x.split([H * D, HK * D, HK * DV], 1)
    return q.view(B, H, D), k.view(B, HK, D), v.view(B, HK, DV)


def torch_says(q: Tensor, k: Tensor, v: Tensor, **arguments: Tensor) -> Tensor:
    """One row by torch's attention, with its key heads repeated: q (H, D), k (Hk, n, D), v (Hk, n, Dv)."""
    k, v = k.repeat_interleave(H // HK, 0), v.repeat_interleave(H // HK, 0)
    return scaled_dot_product_attention(q[:, None], k, v, **arguments).flatten()


def test_plain_rows_of_different_lengths_as_torch_attends() -> None:
    before, x = past(), qkv()
    q, k, v = parts(x)
    out, after = masked_multihead_attention(x, before)
    for b in range(B):
        keys, values = torch.cat([before[b][0], k[b, :, None]], 1), torch.cat([before[b][1], v[b, :, None]], 1)
        torch.testing.assert_close(out[b], torch_says(q[b], keys, values), rtol=0.0, atol=EPS)
        assert torch.equal(after[b][0], keys)
        assert torch.equal(after[b][1], values)


def test_two_keys_by_hand() -> None:
    """Scores 2 * 3 and 1 * 3 with scale 1/3: weights 1 / (1 + 1/e) and its rest; values 10 and 20."""
    out, _ = masked_multihead_attention(
        torch.tensor([[3.0, 1.0, 20.0]]), [(torch.full((1, 1, 1), 2.0), torch.full((1, 1, 1), 10.0))],
        Step(rule=Rule(scale=1.0 / 3.0)),
    )  # fmt: skip
    first = 1.0 / (1.0 + math.exp(-1.0))
    assert out.item() == pytest.approx(10.0 * first + 20.0 * (1.0 - first), rel=1e-14)


def test_softcap_sinks_and_slopes_by_hand() -> None:
    """One past key at distance 1: s0 = 2 tanh(6 / 2) - 0.5, s1 = 2 tanh(3 / 2), and a sink of 0.3."""
    rule = Rule(scale=1.0, softcap=2.0, slopes=torch.tensor([0.5]), sinks=torch.tensor([0.3], dtype=torch.float64))
    one = (torch.full((1, 1, 1), 2.0), torch.full((1, 1, 1), 10.0))
    out, _ = masked_multihead_attention(torch.tensor([[3.0, 1.0, 20.0]]), [one], Step(rule=rule))
    e = [math.exp(2.0 * math.tanh(3.0) - 0.5), math.exp(2.0 * math.tanh(1.5)), math.exp(0.3)]
    assert out.item() == pytest.approx((10.0 * e[0] + 20.0 * e[1]) / sum(e), rel=1e-14)


@pytest.mark.parametrize("dims", [2, 6, D])
def test_interleaved_rotation_is_a_complex_product(dims: int) -> None:
    x, at = torch.randn(5, D, dtype=torch.float64), torch.tensor([0, 1, 7, 1000, 3])
    turn = torch.polar(
        torch.ones(5, dims // 2, dtype=torch.float64),
        at[:, None] * 50.0 ** (-torch.arange(0, dims, 2, dtype=torch.float64) / dims),
    )
    turned = torch.view_as_real(torch.view_as_complex(x[:, :dims].reshape(5, -1, 2)) * turn).flatten(1)
    got = rotate(x, at, Rotation(dims, 50.0, "interleaved"))
    torch.testing.assert_close(got[:, :dims], turned, rtol=0.0, atol=1e-12)
    assert torch.equal(got[:, dims:], x[:, dims:])


def test_half_style_is_interleaved_with_the_numbers_in_another_order() -> None:
    x, at = torch.randn(4, D, dtype=torch.float64), torch.tensor([0, 2, 31, 500])
    order = torch.stack([torch.arange(D // 2), torch.arange(D // 2) + D // 2], 1).flatten()
    half = rotate(x, at, Rotation(D))
    assert torch.equal(half[:, order], rotate(x[:, order], at, Rotation(D, style="interleaved")))


@pytest.mark.parametrize("style", ["half", "interleaved"])
def test_a_product_of_rotated_vectors_depends_on_the_distance_alone(style: str) -> None:
    q, k = torch.randn(2, D, dtype=torch.float64)
    turn = Rotation(D, style=style)
    products = [rotate(q, torch.tensor(p + 9), turn) @ rotate(k, torch.tensor(p), turn) for p in (0, 4, 100)]
    assert products[0].item() == pytest.approx(products[1].item(), abs=1e-12)
    assert products[0].item() == pytest.approx(products[2].item(), abs=1e-12)


@pytest.mark.parametrize("style", ["half", "interleaved"])
def test_two_positions_turn_a_half_of_the_dims_each(style: str) -> None:
    x, at = torch.randn(3, 13, dtype=torch.float64), torch.tensor([[5, 2], [0, 9], [71, 70]])
    got = rotate(x, at, Rotation(12, style=style))
    assert torch.equal(got[:, :6], rotate(x[:, :6], at[:, 0], Rotation(6, style=style)))
    assert torch.equal(got[:, 6:12], rotate(x[:, 6:12], at[:, 1], Rotation(6, style=style)))
    assert torch.equal(got[:, 12:], x[:, 12:])


@pytest.mark.parametrize("positions", [None, torch.tensor([3, 1, 4]), torch.tensor([[3, 5], [1, 9], [4, 2]])], ids=str)
def test_q_and_k_turn_and_v_does_not(positions: Tensor | None) -> None:
    before, x = past(), qkv()
    q, k, v = parts(x)
    turn = Rotation(8, 100.0)
    at = torch.tensor(LENGTHS) if positions is None else positions
    heads = [rotate(t, at[:, None].expand(-1, t.shape[1], *at.shape[1:]), turn) for t in (q, k)]
    turned = torch.cat([heads[0].flatten(1), heads[1].flatten(1), v.flatten(1)], 1)
    got = masked_multihead_attention(x, before, Step(rotation=turn, positions=positions))
    want = masked_multihead_attention(turned, before)
    assert torch.equal(got[0], want[0])
    assert all(torch.equal(a, b) for rows in zip(got[1], want[1], strict=True) for a, b in zip(*rows, strict=True))


def test_integers_are_scaled_before_the_bias() -> None:
    whole = torch.randint(-900, 900, (B, H * D + HK * D + HK * DV), dtype=torch.int32)
    scale, bias = torch.rand(whole.shape[1]), torch.randn(whole.shape[1])
    got, _ = masked_multihead_attention(whole, past_ := past(), Step(qkv_scale=scale, bias=bias))
    want, _ = masked_multihead_attention(whole.double() * scale.double() + bias.double(), past_)
    assert torch.equal(got, want)


def test_lengths_cut_the_past_and_negative_ones_skip_the_row() -> None:
    before, x = past(), qkv()
    out, after = masked_multihead_attention(x, before, Step(lengths=torch.tensor([2, -1, 11])))
    short = [(k[:, :2], v[:, :2]) for k, v in before[:1]]
    want, _ = masked_multihead_attention(x, [*short, *before[1:]])
    assert torch.equal(out[0], want[0])
    assert torch.equal(out[2], want[2])
    assert not out[1].any()
    assert [k.shape[1] for k, _ in after] == [3, 0, 12]


def test_beams_read_the_past_of_other_rows_and_the_new_step_of_their_own() -> None:
    n = 4
    before = [(k[:, :n], v[:, :n]) for k, v in [past()[2] for _ in range(B)]]
    x = qkv()
    q, k, v = parts(x)
    beam = torch.tensor([[0, 1, 2, 0], [1, 1, 0, 2], [2, 0, 0, 1]])
    out, after = masked_multihead_attention(x, before, Step(beam=beam))
    for b in range(B):
        sides = (torch.stack([before[r][side][:, j] for j, r in enumerate(beam[b])], 1) for side in (0, 1))
        keys, values = (torch.cat([old, new[b][:, None]], 1) for old, new in zip(sides, (k, v), strict=True))
        torch.testing.assert_close(out[b], torch_says(q[b], keys, values), rtol=0.0, atol=EPS)
        assert torch.equal(after[b][0][:, :n], before[b][0])


def test_window_and_sink_tokens() -> None:
    before, x = past(), qkv()
    q, k, v = parts(x)
    out, _ = masked_multihead_attention(x, before, Step(window=3, sink_tokens=2))
    keys, values = torch.cat([before[2][0], k[2, :, None]], 1), torch.cat([before[2][1], v[2, :, None]], 1)
    seen = [0, 1, 9, 10, 11]
    torch.testing.assert_close(out[2], torch_says(q[2], keys[:, seen], values[:, seen]), rtol=0.0, atol=EPS)


def test_a_mask_and_what_is_added_are_those_of_the_row() -> None:
    before, x = past(), qkv()
    q, k, v = parts(x)
    longest = max(LENGTHS) + 1
    added, visible = torch.randn(B, H, 1, longest, dtype=torch.float64), torch.rand(B, 1, 1, longest) < 0.7
    visible[:, :, :, 0] = True
    out, _ = masked_multihead_attention(x, before, Step(rule=Rule(visible, added)))
    for b, n in enumerate(LENGTHS):
        keys, values = torch.cat([before[b][0], k[b, :, None]], 1), torch.cat([before[b][1], v[b, :, None]], 1)
        mask = added[b, :, :, : n + 1].masked_fill(~visible[b, :, :, : n + 1], -math.inf)
        torch.testing.assert_close(out[b], torch_says(q[b], keys, values, attn_mask=mask), rtol=0.0, atol=EPS)


@pytest.mark.parametrize(
    ("how", "want"), [("even", [-3, 0, 0, 0, 2, 2, 4, -3]), ("away", [-3, -1, 0, 1, 2, 3, 4, -3])], ids=str
)
def test_both_ways_of_rounding(how: str, want: list[int]) -> None:
    """With one key the output is v itself, and 4 * 0.25 = 1: ties stay ties, and the bounds cut."""
    v = torch.tensor([-3.2, -0.5, 0.25, 0.5, 1.5, 2.5, 90.0, -7.5])
    empty = [(torch.zeros(1, 0, 8), torch.zeros(1, 0, 8))]
    step = Step(output=Output(scale=0.25, round=how, bounds=(-3.0, 4.0)))
    out, _ = masked_multihead_attention(torch.cat([torch.zeros(16), v])[None], empty, step)
    assert out.dtype == torch.int8
    assert out[0].tolist() == want


def test_shift_then_smooth_then_rounding() -> None:
    before, x = past(), qkv()
    shift, smooth = torch.randn(H * DV, dtype=torch.float64), torch.rand(H * DV, dtype=torch.float64)
    plain, _ = masked_multihead_attention(x, before)
    moved, _ = masked_multihead_attention(x, before, step := Step(output=Output(shift, smooth)))
    assert torch.equal(moved, (plain + shift) * smooth)
    whole, _ = masked_multihead_attention(x, before, replace(step, output=Output(shift, smooth, 0.5)))
    assert torch.equal(whole, torch.round(63.5 * moved).clamp(-127, 127).to(torch.int8))
    skipped = replace(step, lengths=torch.tensor([5, 0, -3]))
    assert not masked_multihead_attention(x, before, skipped)[0][2].any()


def test_what_is_stored_is_rounded() -> None:
    x = torch.randn(5, 3, 17)
    assert torch.equal(stored_as(x, torch.bfloat16), x.bfloat16().double())
    steps = stored_as(x, torch.int8) / (x.double().abs().amax(-1, keepdim=True) / 127.0)
    torch.testing.assert_close(steps, steps.round(), rtol=0.0, atol=1e-10)
    assert steps.abs().max() <= 127.0 + 1e-10
    assert (stored_as(x, torch.int8) - x).abs().max() <= x.abs().max() / 254.0 + 1e-12
    assert not stored_as(torch.zeros(2, 4), torch.int8).any()
    _, after = masked_multihead_attention(y := qkv(), past(), Step(stored=torch.float16))
    assert torch.equal(after[0][0][:, -1], parts(y)[1][0].half().double())


def test_many_steps_are_one_causal_attention() -> None:
    """Token by token with rotation is the whole sequence at once."""
    n = 9
    x = torch.randn(n, H * D + HK * D + HK * DV, dtype=torch.float64)
    turn = Rotation(D)
    rows: Past = [(torch.zeros(HK, 0, D), torch.zeros(HK, 0, DV))]
    outs = []
    for t in range(n):
        out, rows = masked_multihead_attention(x[t : t + 1], rows, Step(rotation=turn))
        outs.append(out[0])
    q, k, v = (part.reshape(n, -1, d) for part, d in zip(x.split([H * D, HK * D, HK * DV], 1), (D, D, DV), strict=True))
    at = torch.arange(n)
    q, k = (rotate(part, at[:, None].expand(-1, part.shape[1]), turn) for part in (q, k))
    whole, _, _ = reference.attention(
        *(part.transpose(0, 1)[None] for part in (q, k, v)), Rule(torch.ones(n, n, dtype=torch.bool).tril())
    )
    torch.testing.assert_close(torch.stack(outs), whole[0].transpose(0, 1).flatten(1), rtol=0.0, atol=EPS)
