"""torch.nn.Transformer, made of this package's encoder and decoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from mmha.nn.decoder import TransformerDecoder, TransformerDecoderLayer
from mmha.nn.encoder import TransformerEncoder, TransformerEncoderLayer
from mmha.nn.rotary import Rotary
from mmha.nn.stack import Activation


class Transformer(nn.Transformer):
    """An encoder, and a decoder that attends to what it made: torch.nn.Transformer.

    out = decoder(tgt, memory = encoder(src)). Constructor, defaults, initial weights, state-dict keys, forward and its
    errors are those of torch's class, of which this is a subclass.

    Args beyond torch's: num_kv_heads and rotary, for the self-attention of both halves, as
        `mmha.nn.MultiheadAttention` takes them.
    Forward: torch's arguments; every mask is a tensor in torch's meaning (True = hidden, float = added) or a mask as a
        value (visible where it says so).
    Shapes: src (S, B, d_model) and tgt (T, B, d_model), with batch_first (B, S, d_model) and (B, T, d_model), or
        (S, d_model) and (T, d_model) → the shape of tgt.
    Raises: RuntimeError when the batches of src and tgt differ, or their features are not d_model.
    Source: Vaswani et al. (2017).

    >>> import mmha
    >>> from mmha.masks import Causal
    >>> model = mmha.nn.Transformer(d_model=6, nhead=2, dim_feedforward=10, batch_first=True)
    >>> model(torch.zeros(2, 7, 6), torch.zeros(2, 5, 6), tgt_mask=Causal()).shape
    torch.Size([2, 5, 6])
    """

    def __init__(
        self, d_model: int = 512, nhead: int = 8, num_encoder_layers: int = 6, num_decoder_layers: int = 6,
        dim_feedforward: int = 2048, dropout: float = 0.1, activation: Activation = F.relu,
        custom_encoder: nn.Module | None = None, custom_decoder: nn.Module | None = None,
        layer_norm_eps: float = 1e-5, batch_first: bool = False, norm_first: bool = False, bias: bool = True,
        device: Any = None, dtype: torch.dtype | None = None,
        *, num_kv_heads: int | None = None, rotary: Rotary | None = None,
    ) -> None:  # fmt: skip
        nn.Module.__init__(self)  # torch's own would make, and draw weights for, the layers of torch
        place: Any = {"device": device, "dtype": dtype}
        layer: Any = (
            d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias
        )  # fmt: skip
        more: Any = {"num_kv_heads": num_kv_heads, "rotary": rotary, **place}
        norm: Any = {"eps": layer_norm_eps, "bias": bias, **place}
        self.encoder = custom_encoder
        if custom_encoder is None:
            encoder = TransformerEncoderLayer(*layer, **more)
            self.encoder = TransformerEncoder(encoder, num_encoder_layers, nn.LayerNorm(d_model, **norm))
        self.decoder = custom_decoder
        if custom_decoder is None:
            decoder = TransformerDecoderLayer(*layer, **more)
            self.decoder = TransformerDecoder(decoder, num_decoder_layers, nn.LayerNorm(d_model, **norm))
        self._reset_parameters()
        self.d_model = d_model
        self.nhead = nhead
        self.batch_first = batch_first
