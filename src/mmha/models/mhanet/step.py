"""The network as a stream runs it: frame by frame over caches, its matrices arranged, nothing between two products."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmha.cache import KVCache, masked_multihead_attention
from mmha.masks import Causal
from mmha.models.mhanet.model import Block, MHANet
from mmha.nn.linear import Arranged
from mmha.ops import attention

ROWS = 4  # what the matrices are arranged for; one row and many are then as fast, arranged for 1 they would not be
SIGHT = Causal()  # the caches' window does the rest


class Step:
    """What `MHANet` computes with caches, for frames that come one or a few at a time.

    The published network reads 16 MB of weights a frame. That they were read last time is of no use: no cache near the
    CPU's core holds them all. So a frame costs what reading them costs, and how they lie in memory decides.

    In bfloat16 the products read half the bytes, and round what they take and give. The weights are those of now: what
    is made of them later changes nothing.
    """

    def __init__(self, model: MHANet, dtype: torch.dtype = torch.float32) -> None:
        self.first = _arranged(model.project_in, dtype)
        self.norm = _Norm(model.norm)
        self.blocks = [_BlockStep(block, dtype) for block in model.blocks if isinstance(block, Block)]
        self.last = _arranged(model.project_out, dtype)

    def __call__(self, magnitudes: Tensor, caches: Sequence[KVCache]) -> Tensor:
        """Logits (B, T, 257) of the next T frames, float32 (B, T, 257)."""
        batch, frames, bins = magnitudes.shape
        x = self.norm(self.first(magnitudes.reshape(-1, bins))).relu_()
        for block, cache in zip(self.blocks, caches, strict=True):
            x = block(x, batch, cache)
        return self.last(x).view(batch, frames, -1)


class _BlockStep:
    """One block; rows of x (B·T, width) are the frames of the batch, one after the other."""

    def __init__(self, block: Block, dtype: torch.dtype) -> None:
        attend = block.attention
        self.heads = attend.heads
        self.project_in, self.project_out = (_arranged(x, dtype) for x in (attend.project_in, attend.project_out))
        self.norm_attention, self.norm_feed_forward = _Norm(block.norm_attention), _Norm(block.norm_feed_forward)
        self.up, self.down = _arranged(block.up, dtype, relu=True), _arranged(block.down, dtype)

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


def _arranged(layer: nn.Linear, dtype: torch.dtype, relu: bool = False) -> Arranged:
    return Arranged(layer.weight, layer.bias, rows=ROWS, relu=relu, is_far=True, dtype=dtype)
