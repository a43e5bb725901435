"""Modules on `mmha.attention`, with masks as values wherever a mask is taken."""

from __future__ import annotations

from mmha.nn import functional
from mmha.nn.attention import SelfAttention
from mmha.nn.block import Block
from mmha.nn.decoder import TransformerDecoder, TransformerDecoderLayer
from mmha.nn.dropout import Dropout
from mmha.nn.encoder import TransformerEncoder, TransformerEncoderLayer
from mmha.nn.feedforward import FeedForward, SwiGLU
from mmha.nn.linear import Linear
from mmha.nn.multihead import MultiheadAttention
from mmha.nn.packing import groups, pack, packed_positions, unpack
from mmha.nn.positions import sinusoidal
from mmha.nn.rotary import Rotary
from mmha.nn.transformer import Transformer

__all__ = [
    "Block",
    "Dropout",
    "FeedForward",
    "Linear",
    "MultiheadAttention",
    "Rotary",
    "SelfAttention",
    "SwiGLU",
    "Transformer",
    "TransformerDecoder",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerEncoderLayer",
    "functional",
    "groups",
    "pack",
    "packed_positions",
    "sinusoidal",
    "unpack",
]
