"""Self-attention: three projections, `mmha.attention` under a mask that is a value, one projection back."""

from __future__ import annotations

from torch import Tensor, nn

from mmha.masks import Mask
from mmha.nn.linear import Linear
from mmha.ops import attention


class SelfAttention(nn.Module):
    """Each token looks at the tokens that the mask lets it see, in several heads side by side.

    head_h = softmax over visible keys of (q_h·k_hᵀ/√D) · v_h with q, k, v = x·W_q, x·W_k, x·W_v; out =
    concat(head)·W_o. A token that sees nothing gets the bias of the last projection only, in value and in gradient.

    Args: head_dim, D; None = width / heads.
    Shapes: x float32 (B, T, width) → (B, T, width).
    Raises: ValueError when heads does not divide width and no head_dim is given.
    Source: Vaswani et al. (2017), section 3.2.

    >>> import torch
    >>> from mmha import masks
    >>> SelfAttention(width=6, heads=2)(torch.zeros(1, 5, 6), masks.Causal()).shape
    torch.Size([1, 5, 6])
    """

    def __init__(self, width: int, heads: int, head_dim: int | None = None) -> None:
        super().__init__()
        if head_dim is None and width % heads:
            raise ValueError(f"`heads`: expected a divisor of width = {width}, got {heads}")
        self.heads, self.head_dim = heads, head_dim or width // heads
        self.project_in = Linear(width, 3 * heads * self.head_dim)
        self.project_out = Linear(heads * self.head_dim, width)

    def forward(self, x: Tensor, mask: Mask | None = None) -> Tensor:
        q, k, v = self.split(x)
        out: Tensor = self.project_out(attention(q, k, v, mask).transpose(1, 2).flatten(2))
        return out

    def weights(self, x: Tensor, mask: Mask | None = None) -> Tensor:
        """How much each token looks at each other: float32 (B, H, T, T), rows sum to 1 (0 where nothing is visible)."""
        q, k, v = self.split(x)
        weights: Tensor = attention(q, k, v, mask, return_weights=True)[1]
        return weights

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v of the tokens, each (B, H, T, D)."""
        batch, length, _ = x.shape
        shaped = self.project_in(x).view(batch, length, 3, self.heads, self.head_dim)
        q, k, v = shaped.permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v
