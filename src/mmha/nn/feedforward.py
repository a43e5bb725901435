"""The position-wise half of a transformer block."""

from __future__ import annotations

from torch import Tensor, nn

from mmha.nn.linear import Linear


class FeedForward(nn.Module):
    """W₂·gelu(W₁·x + b₁) + b₂, each token alone.

    Shapes: (..., width) → (..., width), float32.
    Source: Vaswani et al. (2017), equation 2, with GELU (Hendrycks and Gimpel 2016) in place of ReLU.

    >>> import torch
    >>> FeedForward(width=6, hidden=10)(torch.zeros(2, 3, 6)).shape
    torch.Size([2, 3, 6])
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = Linear(width, hidden)
        self.down = Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(nn.functional.gelu(self.up(x)))
        return out


class SwiGLU(nn.Module):
    """W₃·(silu(W₁·x) ⊙ W₂·x), each token alone, without biases; silu(z) = z / (1 + exp(−z)).

    Shapes: (..., width) → (..., width), float32.
    Source: Shazeer, *GLU Variants Improve Transformer* (2020), equation 6.

    >>> import torch
    >>> SwiGLU(width=6, hidden=10)(torch.zeros(2, 3, 6)).shape
    torch.Size([2, 3, 6])
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = Linear(width, 2 * hidden, bias=False)  # W₁ and W₂ in one product
        self.down = Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.up(x).chunk(2, dim=-1)
        out: Tensor = self.down(nn.functional.silu(gate) * up)
        return out
