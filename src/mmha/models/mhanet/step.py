"""The network as a stream runs it: frame by frame over caches, its matrices arranged, nothing between two products."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmha.cache import KVCache, masked_multihead_attention
from mmha.masks import Causal
from mmha.models.mhanet.model import Block, MHANet
from mmha.nn.linear import Arranged
from mmha.nn.quantized import Quantized
from mmha.ops import attention

ROWS = 4  # what the matrices are arranged for; one row and many are then as fast, arranged for 1 they would not be
SIGHT = Causal()  # the caches' window does the rest


class Step:
    """What `MHANet` computes with caches, for frames that come one or a few at a time.

    The published network reads 16 MB of weights a frame. That they were read last time is of no use: no cache near the
    CPU's core holds them all. So a frame costs what reading them costs, and how they lie in memory decides.

    In bfloat16 the products read half the bytes, in int8 a quarter. All but the first: magnitudes differ by orders, and
    what is rounded there moves gains the most. From then on all is rounded to bfloat16 (`dtype`), and the caches need
    not hold more. The weights are those of now: what is made of them later changes nothing.
    """

    def __init__(self, model: MHANet, weights: torch.dtype = torch.float32) -> None:
        self.dtype = torch.float32 if weights == torch.float32 else torch.bfloat16
        self.first = _product(model.project_in, torch.float32)
        self.norm = _Norm(model.norm)
        self.blocks = [_BlockStep(block, weights) for block in model.blocks if isinstance(block, Block)]
        self.last = _product(model.project_out, weights)

    def __call__(self, magnitudes: Tensor, caches: Sequence[KVCache]) -> Tensor:
        """Logits (B, T, 257) of the next T frames, float32 (B, T, 257)."""
        batch, frames, bins = magnitudes.shape
        x = self.norm(self.first(magnitudes.reshape(-1, bins))).relu_().to(self.dtype)
        for block, cache in zip(self.blocks, caches, strict=True):
            x = block(x, batch, cache)
        return self.last(x).to(torch.float32).view(batch, frames, -1)


class _BlockStep:
    """One block; rows of x (B·T, width) are the frames of the batch, one after the other."""

    def __init__(self, block: Block, weights: torch.dtype) -> None:
        attend = block.attention
        self.heads = attend.heads
        self.project_in, self.project_out = (_product(x, weights) for x in (attend.project_in, attend.project_out))
        self.norm_attention, self.norm_feed_forward = _Norm(block.norm_attention), _Norm(block.norm_feed_forward)
        self.up, self.down = _product(block.up, weights, relu=True), _product(block.down, weights)

    def __call__(self, x: Tensor, batch: int, cache: KVCache) -> Tensor:
        rows, width = x.shape
        made = self.project_in(x)
        if rows == batch:
            seen = masked_multihead_attention(made, cache)
        else:
            q, k, v = made.view(batch, rows // batch, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
            cache.append(k, v)
            seen = attention(q, cache, mask=SIGHT).transpose(1, 2).reshape(rows, width)
        x = self.norm_attention(self.project_out(seen).add_(x))
        return self.norm_feed_forward(self.down(self.up(x)).add_(x))


class _Norm:
    """A LayerNorm as it is now."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        self.shape, self.weight, self.bias, self.eps = norm.normalized_shape, norm.weight, norm.bias, norm.eps

    def __call__(self, x: Tensor) -> Tensor:
        return torch.layer_norm(x, self.shape, self.weight, self.bias, self.eps, False)


def _product(layer: nn.Linear, weights: torch.dtype, relu: bool = False) -> Arranged | Quantized:
    if weights == torch.int8:
        return Quantized(layer.weight, layer.bias, relu=relu)
    return Arranged(layer.weight, layer.bias, rows=ROWS, relu=relu, is_far=True, dtype=weights)
