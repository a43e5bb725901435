"""Multi-head attention written out in float64 from its formula: for what torch.nn has not, or has wrong."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mmha.nn import MultiheadAttention


def by_hand(
    module: MultiheadAttention,
    inputs: tuple[Tensor, Tensor, Tensor],
    visible: Tensor,
    added: Tensor | float = 0.0,
) -> tuple[Tensor, Tensor]:
    """out (N, L, E) and weights (N, H, L, S), differentiable; visible and added broadcast to (N, H, L, S)."""
    heads, kv, size = module.num_heads, module.num_kv_heads, module.head_dim
    rows = [heads * size, kv * size, kv * size]
    if module.in_proj_weight is None:
        weights = [module.q_proj_weight, module.k_proj_weight, module.v_proj_weight]
    else:
        weights = list(module.in_proj_weight.split(rows))
    biases = [0.0] * 3 if module.in_proj_bias is None else [b.double() for b in module.in_proj_bias.split(rows)]
    made = []
    for x, w, b in zip(inputs, weights, biases, strict=True):
        flat = x.double() @ w.double().T + b
        made.append(flat.unflatten(-1, (-1, size)).transpose(1, 2))
    q, k, v = made
    if module.q_norm is not None:
        q, k = (normed(x, n.weight.double()) for x, n in ((q, module.q_norm), (k, module.k_norm)))
    if module.rotary is not None:
        k_len = k.shape[2]
        q, k = rotated(q, torch.arange(k_len - q.shape[2], k_len), module), rotated(k, torch.arange(k_len), module)
    k, v = (x.repeat_interleave(heads // kv, 1) for x in (k, v))
    scores = (q @ k.mT / math.sqrt(size) + added).masked_fill(~visible, -math.inf)
    top = scores.detach().amax(-1, keepdim=True).clamp_min(-1e300)
    share = torch.where(visible, (scores - top).exp(), 0.0)
    share = share / share.sum(-1, keepdim=True).clamp_min(1e-300)
    out = (share @ v).transpose(1, 2).flatten(2) @ module.out_proj.weight.double().T
    return out if module.out_proj.bias is None else out + module.out_proj.bias.double(), share


def normed(x: Tensor, weight: Tensor) -> Tensor:
    """x / sqrt(mean(x**2) + 1e-6) * weight."""
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def rotated(x: Tensor, positions: Tensor, module: MultiheadAttention) -> Tensor:
    """Pairs (x[i], x[i + dims/2]) as complex numbers, times exp(i p f)."""
    assert module.rotary is not None
    half = module.rotary.dims // 2
    rates = module.rotary.base ** (-torch.arange(half, dtype=torch.float64) / half)
    turn = torch.polar(torch.ones(len(positions), half, dtype=torch.float64), positions[:, None] * rates)
    pairs = torch.complex(x[..., :half], x[..., half : 2 * half]) * turn
    return torch.cat((pairs.real, pairs.imag, x[..., 2 * half :]), -1)
