"""Any strides, negative bits, empty dimensions, and inputs of which only some need a gradient."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import mmha
from mask_zoo import HK, TK, TQ, B, H
from mmha.masks import Causal, Dense, Full, KeyPadding

D, DV = 17, 13


def tensors(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v of sizes (B, H, Hk, Tq, Tk, D, Dv)."""
    torch.manual_seed(1)
    b, h, hk, tq, tk, d, dv = shape
    return torch.randn(b, h, tq, d).to(dtype), torch.randn(b, hk, tk, d).to(dtype), torch.randn(b, hk, tk, dv).to(dtype)


@pytest.mark.parametrize(
    "layout", ["transposed", "expanded", "sliced", "reversed strides", "negative bit", "offset", "width stride"]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_any_layout_gives_the_same_result(layout: str, dtype: torch.dtype) -> None:
    q, k, v = tensors((B, H, HK, TQ, TK, D, DV), dtype)
    change = {
        "transposed": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
        "expanded": lambda x: x[:1, :, :1].expand(x.shape),
        "sliced": lambda x: torch.cat([x, x, x], -1)[..., x.shape[3] : 2 * x.shape[3]],
        "reversed strides": lambda x: x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
        "negative bit": lambda x: torch._neg_view(x.clone()),
        "offset": lambda x: torch.cat([x.new_zeros(3), x.flatten()])[3:].view(x.shape),
        "width stride": lambda x: x.repeat_interleave(2, -1)[..., ::2],
    }[layout]
    odd = [change(x) for x in (q, k, v)]
    plain = [x.clone(memory_format=torch.contiguous_format).resolve_neg() for x in odd]
    results = []
    for group in (odd, plain):
        leaves = [x.detach().requires_grad_() for x in group]
        assert leaves[0].stride() == group[0].stride()
        out, lse = mmha.attention(*leaves, Causal(), return_lse=True)
        results.append((out, lse, *torch.autograd.grad(change(out.detach().cos()).mul(out).sum() + lse.sum(), leaves)))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)
    assert out.is_contiguous()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_heads_that_come_side_by_side_leave_side_by_side(dtype: torch.dtype) -> None:
    # What the linear layers around attention take: (B, T, H, D) in memory, so that nothing is copied there.
    def beside(x: Tensor) -> bool:
        return x.transpose(1, 2).is_contiguous()

    plain = [x.requires_grad_() for x in tensors((B, H, HK, TQ, TK, D, DV), dtype)]
    leaves = [x.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_() for x in plain]
    results = []
    for group in (plain, leaves):
        out, weights = mmha.attention(*group, Causal(), return_weights=True)
        results.append((out, weights, *torch.autograd.grad(out.sin().sum() + weights.sin().sum(), group)))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)
    (out, weights, *grads), (seen, told, *turned) = results
    assert all(x.is_contiguous() for x in (out, weights, *grads, told))
    assert all(beside(x) for x in (seen, *turned))
    mixed = mmha.attention(leaves[0], plain[1], plain[2], Causal())
    assert beside(mixed)
    assert [beside(x) for x in torch.autograd.grad(mixed.sum(), (leaves[0], plain[1]))] == [True, False]


@pytest.mark.parametrize("length", [1, 2, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_heads_of_a_group_side_by_side(dtype: torch.dtype, length: int, isa: str) -> None:
    """A few queries of heads that share keys are one block of rows; they go to their own places in memory."""
    q, k, v = tensors((2, 6, 2, length, 23, D, DV), dtype)
    beside = q.transpose(1, 2).contiguous().transpose(1, 2)
    for have, want in zip(
        mmha.attention(beside, k, v, return_lse=True), mmha.attention(q, k, v, return_lse=True), strict=True
    ):
        assert torch.equal(have, want)


def test_a_negative_bit_reaches_no_kernel() -> None:
    q, k, v = tensors((B, H, HK, TQ, TK, D, DV))
    for negative in (torch.complex(q, q).conj().imag, torch._neg_view(q)):
        assert negative.is_neg()
        assert torch.equal(mmha.attention(negative, k, v), mmha.attention(-q, k, v))
    out = mmha.attention(q.requires_grad_(), k, v)
    (got,) = torch.autograd.grad(out, q, torch._neg_view(out.detach()))
    (want,) = torch.autograd.grad(mmha.attention(q, k, v), q, -out.detach())
    assert torch.equal(got, want)


@pytest.mark.parametrize("empty", ["B", "H", "Tq", "Tk", "D", "Dv"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "mask",
    [None, Causal(), torch.zeros(()), torch.ones((), dtype=torch.bool), Full()],
    ids=["none", "causal", "float", "bool", "full"],
)
def test_empty_dimensions(empty: str, dtype: torch.dtype, mask: Any) -> None:
    names = ("B", "H", "Hk", "Tq", "Tk", "D", "Dv")
    sizes = dict(zip(names, (2, 6, 3, 5, 7, 11, 13), strict=True)) | {empty: 0}
    if empty == "H":
        sizes["Hk"] = 0
    q, k, v = (x.requires_grad_() for x in tensors(tuple(sizes.values()), dtype))
    results = mmha.attention(q, k, v, mask, return_lse=True, return_weights=True)
    out, lse = mmha.attention(q, k, v, mask, return_lse=True)
    b, h, _, tq, tk, _, dv = sizes.values()
    assert [tuple(x.shape) for x in results] == [(b, h, tq, dv), (b, h, tq), (b, h, tq, tk)]
    for a, b_ in zip((out, lse), results, strict=False):
        torch.testing.assert_close(a, b_)
    assert not out.isnan().any()
    if empty == "Tk":
        assert (lse == -math.inf).all()
        assert not out.any()
    grads = torch.autograd.grad((out, lse), (q, k, v), (torch.ones_like(out), torch.ones_like(lse)))
    for x, g in zip((q, k, v), grads, strict=True):
        assert g.shape == x.shape
        assert not g.isnan().any()


def test_only_some_inputs_need_a_gradient() -> None:
    q, k, v = tensors((B, H, HK, TQ, TK, D, DV))
    full = torch.autograd.grad(mmha.attention(*(x.requires_grad_() for x in (q, k, v)), Causal()).sum(), (q, k, v))
    for chosen in range(1, 7):
        leaves = [x.detach().requires_grad_(bool(chosen >> i & 1)) for i, x in enumerate((q, k, v))]
        mmha.attention(*leaves, Causal()).sum().backward()
        for i, leaf in enumerate(leaves):
            assert (leaf.grad is None) != bool(chosen >> i & 1)
            assert leaf.grad is None or torch.equal(leaf.grad, full[i])
    with torch.no_grad():
        assert not mmha.attention(q, k, v, Causal()).requires_grad
    with torch.inference_mode():
        assert torch.equal(
            mmha.attention(q, k, v, KeyPadding([3, 7]) & Dense(torch.ones(TQ, TK, dtype=torch.bool))),
            mmha.attention(q, k, v, KeyPadding([3, 7])),
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_zero_tensor_has_no_memory_and_is_zero(dtype: torch.dtype) -> None:
    q, k, v = tensors((B, H, HK, TQ, TK, D, DV), dtype)
    zero = torch._efficientzerotensor(q.shape, dtype=dtype)
    assert zero._is_zerotensor()
    assert torch.equal(mmha.attention(zero, k, v), mmha.attention(torch.zeros_like(q), k, v))
