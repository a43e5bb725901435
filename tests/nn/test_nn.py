"""The modules against their formulas, written out once more by hand in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from mmha import masks
from mmha.nn import Block, FeedForward, SelfAttention, groups, packed_positions, sinusoidal

BATCH, LENGTH, HEADS, SIZE, HIDDEN = 2, 7, 3, 5, 11
WIDTH = HEADS * SIZE


def by_hand(module: SelfAttention, x: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
    """(out, weights) by loops over batch and heads; visible (T, T)."""
    x = x.double()
    weight, bias = module.project_in.weight.double(), module.project_in.bias.double()
    q, k, v = (x @ weight.T + bias).split(WIDTH, dim=-1)
    out, weights = torch.zeros_like(x), torch.zeros(BATCH, HEADS, LENGTH, LENGTH, dtype=torch.float64)
    for b in range(BATCH):
        for h in range(HEADS):
            part = slice(h * SIZE, (h + 1) * SIZE)
            scores = q[b, :, part] @ k[b, :, part].T / math.sqrt(SIZE)
            weights[b, h] = scores.masked_fill(~visible, -math.inf).softmax(-1).nan_to_num(0.0)
            out[b, :, part] = weights[b, h] @ v[b, :, part]
    return out @ module.project_out.weight.double().T + module.project_out.bias.double(), weights


def test_self_attention_is_its_formula(isa: str) -> None:
    module, x = SelfAttention(WIDTH, HEADS), torch.randn(BATCH, LENGTH, WIDTH)
    mask = masks.StrictCausal() & masks.Window(3)
    out, weights = by_hand(module, x, mask.dense(1, 1, LENGTH, LENGTH)[0, 0])
    torch.testing.assert_close(module(x, mask).double(), out, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(module.weights(x, mask).double(), weights, rtol=1e-5, atol=1e-6)


def test_a_token_that_sees_nothing_gets_the_bias_and_gives_no_gradient() -> None:
    module, x = SelfAttention(WIDTH, HEADS), torch.randn(BATCH, LENGTH, WIDTH, requires_grad=True)
    out = module(x, ~masks.Full())
    assert torch.equal(out, module.project_out.bias.expand_as(out))
    out.sum().backward()
    assert torch.equal(x.grad, torch.zeros_like(x))  # type: ignore[arg-type]


def test_no_mask_sees_everything() -> None:
    module, x = SelfAttention(WIDTH, HEADS), torch.randn(BATCH, LENGTH, WIDTH)
    torch.testing.assert_close(module(x), module(x, masks.Full()))


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="`heads`: expected a divisor of width = 15, got 4"):
        SelfAttention(15, 4)


def test_feed_forward_is_its_formula() -> None:
    module, x = FeedForward(WIDTH, HIDDEN), torch.randn(BATCH, LENGTH, WIDTH)
    up = x.double() @ module.up.weight.double().T + module.up.bias.double()
    gelu = up * 0.5 * (1.0 + torch.erf(up / math.sqrt(2.0)))
    out = gelu @ module.down.weight.double().T + module.down.bias.double()
    torch.testing.assert_close(module(x).double(), out, rtol=1e-5, atol=1e-6)


def test_a_block_adds_both_halves_to_what_came_in() -> None:
    block, x = Block(WIDTH, HEADS, HIDDEN), torch.randn(BATCH, LENGTH, WIDTH)
    middle = x + block.attention(block.norm_attention(x), masks.Causal())
    out = middle + block.feed_forward(block.norm_feed_forward(middle))
    torch.testing.assert_close(block(x, masks.Causal()), out)
    assert not torch.allclose(block(x, masks.Causal()), block(x, masks.Window(1)))


def test_dropout_is_for_training_only() -> None:
    block, x = Block(WIDTH, HEADS, HIDDEN, dropout=0.5), torch.randn(BATCH, LENGTH, WIDTH)
    assert not torch.equal(block(x), block(x))
    assert torch.equal(block.eval()(x), block(x))
    assert isinstance(block.dropout, nn.Dropout)


def test_sinusoidal_is_its_formula_at_any_position() -> None:
    positions, width = torch.tensor([0, 1, 13, 1_000_003]), 6
    found = sinusoidal(positions, width)
    for row, p in enumerate(positions.tolist()):
        for i in range(width // 2):
            angle = p / 10000 ** (2 * i / width)
            assert found[row, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert found[row, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)
    with pytest.raises(ValueError, match="`width`: expected an even number, got 5"):
        sinusoidal(positions, 5)


def test_packing_keeps_every_sequence_whole_and_within_the_row() -> None:
    lengths = [5, 3, 11, 2, 2, 7]
    found = groups(lengths, [5, 4, 3, 2, 1, 0], tokens=9)
    assert found == [[5, 4], [3], [2], [1, 0]]
    assert packed_positions([2, 1, 3]).tolist() == [0, 1, 0, 0, 1, 2]
    assert groups([], [], tokens=9) == []
