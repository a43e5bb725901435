"""Modules on `mmha.attention`, with masks as values wherever a mask is taken."""

from __future__ import annotations

from mmha.nn import functional
from mmha.nn.attention import SelfAttention
from mmha.nn.block import Block
from mmha.nn.feedforward import FeedForward, SwiGLU
from mmha.nn.multihead import MultiheadAttention
from mmha.nn.packing import groups, pack, packed_positions, unpack
from mmha.nn.positions import sinusoidal
from mmha.nn.rotary import Rotary

__all__ = [
    "Block",
    "FeedForward",
    "MultiheadAttention",
    "Rotary",
    "SelfAttention",
    "SwiGLU",
    "functional",
    "groups",
    "pack",
    "packed_positions",
    "sinusoidal",
    "unpack",
]
