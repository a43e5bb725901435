"""One layer of a transformer encoder or decoder without cross-attention."""

from __future__ import annotations

from torch import Tensor, nn

from mmha.masks import Mask
from mmha.nn.attention import SelfAttention
from mmha.nn.dropout import Dropout
from mmha.nn.feedforward import FeedForward


class Block(nn.Module):
    """x ← x + attend(norm(x)), then x ← x + feed_forward(norm(x)): the norm stands before each half (pre-LN).

    Shapes: x float32 (B, T, width) → (B, T, width).
    Source: Xiong et al., *On Layer Normalization in the Transformer Architecture* (2020).

    >>> import torch
    >>> from mmha import masks
    >>> Block(width=6, heads=2, hidden=10)(torch.zeros(1, 5, 6), masks.Window(2)).shape
    torch.Size([1, 5, 6])
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.norm_feed_forward = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, hidden)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Mask | None = None) -> Tensor:
        x = x + self.dropout(self.attention(self.norm_attention(x), mask))
        out: Tensor = x + self.dropout(self.feed_forward(self.norm_feed_forward(x)))
        return out
