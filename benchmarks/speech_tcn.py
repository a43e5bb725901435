"""A causal temporal convolutional network (TCN) as a speech enhancer: what attention is measured against.

Residual blocks of a 1 × 1 convolution to a narrower width, a dilated one of three taps that looks back alone, and a
1 × 1 convolution to the full width, each after a layer norm and a ReLU; dilations 1, 2, 4, 8, 16 and again. So built
is the ResNet of Deep Xi (Nicolson and Paliwal 2019; Zhang et al. 2020). Front end, target and loss are MHANet's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmha.models.mhanet import Statistics
from mmha.models.mhanet.frames import BINS

DILATIONS = (1, 2, 4, 8, 16)
TAPS = 3


class Block(nn.Module):
    """x + W₃·f(C·f(W₁·f(x))), f a layer norm and a ReLU, C the dilated convolution."""

    def __init__(self, width: int, narrow: int, dilation: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(size) for size in (width, narrow, narrow))
        self.narrow, self.widen = nn.Linear(width, narrow), nn.Linear(narrow, width)
        self.look = nn.Conv1d(narrow, narrow, TAPS, dilation=dilation)
        self.back = (TAPS - 1) * dilation

    def forward(self, x: Tensor) -> Tensor:
        inner = self.narrow(torch.relu(self.norms[0](x)))
        inner = torch.relu(self.norms[1](inner)).transpose(1, 2)
        inner = self.look(nn.functional.pad(inner, (self.back, 0))).transpose(1, 2)
        out: Tensor = x + self.widen(torch.relu(self.norms[2](inner)))
        return out


class TCN(nn.Module):
    """|X| float32 (B, T, 257) → logits of the mapped a-priori SNR (B, T, 257), of about so many weights in all."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, weights: int, width: int = 160, narrow: int = 80) -> None:
        super().__init__()
        self.project_in = nn.Linear(BINS, width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.project_out = nn.Linear(width, BINS)
        rest = weights - sum(parameter.numel() for parameter in self.parameters())
        each = sum(parameter.numel() for parameter in Block(width, narrow, 1).parameters())
        count = max(1, round(rest / each))
        self.blocks = nn.ModuleList(Block(width, narrow, DILATIONS[i % len(DILATIONS)]) for i in range(count))
        self.register_buffer("mean", torch.zeros(BINS))
        self.register_buffer("deviation", torch.ones(BINS))

    @property
    def statistics(self) -> Statistics:
        """What the mapped SNR is measured by."""
        return Statistics(self.mean, self.deviation)

    @property
    def sight(self) -> int:
        """Frames that a frame sees, itself among them."""
        return 1 + sum(block.back for block in self.blocks if isinstance(block, Block))

    def forward(self, magnitudes: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.project_in(magnitudes)))
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.project_out(x)
        return out
