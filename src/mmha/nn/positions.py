"""Where a token stands, as a vector to add to its embedding."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sinusoidal(positions: Tensor, width: int) -> Tensor:
    """Sines and cosines of a position at wavelengths from 2π to 10000·2π tokens; no longest position.

    PE[p, 2i] = sin(p / 10000^(2i / width)), PE[p, 2i + 1] = cos(p / 10000^(2i / width)).

    Args: positions int (...), width even.
    Returns: float32 (..., width).
    Raises: ValueError for an odd width.
    Source: Vaswani et al., *Attention Is All You Need* (2017), section 3.5.

    >>> sinusoidal(torch.tensor([0, 1]), 2)[0].tolist()
    [0.0, 1.0]
    """
    if width % 2:
        raise ValueError(f"`width`: expected an even number, got {width}")
    rates = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-math.log(10000.0) / width))
    angles = positions.to(torch.float64)[..., None] * rates
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2).to(torch.float32)
