"""torch.nn's transformer decoder on `mmha.nn.MultiheadAttention`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmha import checks
from mmha.masks import Mask
from mmha.nn.dropout import Dropout
from mmha.nn.linear import project
from mmha.nn.multihead import MultiheadAttention
from mmha.nn.rotary import Rotary
from mmha.nn.stack import Activation, AnyMask, activation_of, settle, take_values


class TransformerDecoderLayer(nn.TransformerDecoderLayer):
    """Self-attention, attention to a memory and a feed-forward part: torch.nn.TransformerDecoderLayer.

    x ← norm1(x + attend(x, x)), x ← norm2(x + attend(x, memory)), x ← norm3(x + linear2(activation(linear1(x))));
    with norm_first x ← x + attend(norm1(x), norm1(x)), and so on, the memory as it is. Constructor, defaults, initial
    weights, state-dict keys and results are those of torch's class, of which this is a subclass.

    Args beyond torch's: num_kv_heads and rotary, for the self-attention, as `mmha.nn.MultiheadAttention` takes them.
    Forward: torch's arguments. Each of the masks is a tensor in torch's meaning (True = hidden, float = added) or a
        mask as a value (visible where it says so); all that is given holds together, is_causal included.
    Shapes: tgt (T, B, d_model) and memory (S, B, d_model), with batch_first (B, T, d_model) and (B, S, d_model), or
        (T, d_model) and (S, d_model) → the shape of tgt.
    Raises: what `mmha.nn.MultiheadAttention` raises for arguments that do not fit.
    Source: Vaswani et al. (2017), section 3.1; Xiong et al. (2020) for norm_first.

    >>> import mmha
    >>> from mmha.masks import Causal, KeyPadding
    >>> layer = mmha.nn.TransformerDecoderLayer(d_model=6, nhead=2, dim_feedforward=10, batch_first=True)
    >>> tgt, memory = torch.zeros(2, 5, 6), torch.zeros(2, 7, 6)
    >>> layer(tgt, memory, Causal(), memory_key_padding_mask=KeyPadding([7, 3])).shape
    torch.Size([2, 5, 6])
    """

    def __init__(
        self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1,
        activation: Activation = F.relu, layer_norm_eps: float = 1e-5, batch_first: bool = False,
        norm_first: bool = False, bias: bool = True, device: Any = None, dtype: torch.dtype | None = None,
        *, num_kv_heads: int | None = None, rotary: Rotary | None = None,
    ) -> None:  # fmt: skip
        nn.Module.__init__(self)  # torch's own would draw weights for attentions that are then thrown away
        place: Any = {"device": device, "dtype": dtype}
        shared: Any = {"bias": bias, "batch_first": batch_first, **place}
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, num_kv_heads=num_kv_heads, rotary=rotary, **shared)
        self.multihead_attn = MultiheadAttention(d_model, nhead, dropout, **shared)
        self.linear1 = nn.Linear(d_model, dim_feedforward, bias=bias, **place)
        self.dropout = Dropout(dropout)
        self.linear2 = nn.Linear(dim_feedforward, d_model, bias=bias, **place)
        self.norm_first = norm_first
        self.norm1 = nn.LayerNorm(d_model, eps=layer_norm_eps, bias=bias, **place)
        self.norm2 = nn.LayerNorm(d_model, eps=layer_norm_eps, bias=bias, **place)
        self.norm3 = nn.LayerNorm(d_model, eps=layer_norm_eps, bias=bias, **place)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.dropout3 = Dropout(dropout)
        self.activation = activation_of(activation)

    def _sa_block(self, *given: Any, **named: Any) -> Tensor:
        with checks.renamed(query="tgt", attn_mask="tgt_mask", key_padding_mask="tgt_key_padding_mask"):
            return super()._sa_block(*given, **named)

    def _mha_block(self, *given: Any, **named: Any) -> Tensor:
        names = {"attn_mask": "memory_mask", "key_padding_mask": "memory_key_padding_mask"}
        with checks.renamed(query="tgt", key="memory", **names):
            return super()._mha_block(*given, **named)

    def _ff_block(self, x: Tensor) -> Tensor:
        x = project(self.linear2, self.dropout(self.activation(project(self.linear1, x))))
        out: Tensor = self.dropout3(x)
        return out


class TransformerDecoder(nn.TransformerDecoder):
    """Copies of one decoder layer, one after the other, and a norm at the end: torch.nn.TransformerDecoder.

    x_0 = tgt, x_l = layer_l(x_{l-1}, memory), out = norm(x_L).

    Args: torch's.
    Forward: torch's arguments; the masks are tensors in torch's meaning (True = hidden, float = added) or masks as
        values. What they say is found once for all layers. tgt_is_causal=True alone is enough; a mask given beside it
        holds, too.
    Shapes: as for `TransformerDecoderLayer`.
    Raises: TypeError for masks as values with layers that are not of this package.
    Source: Vaswani et al. (2017), section 3.1.

    >>> import mmha
    >>> from mmha.masks import Causal
    >>> layer = mmha.nn.TransformerDecoderLayer(d_model=6, nhead=2, dim_feedforward=10, batch_first=True)
    >>> mmha.nn.TransformerDecoder(layer, num_layers=3)(torch.zeros(2, 5, 6), torch.zeros(2, 7, 6), Causal()).shape
    torch.Size([2, 5, 6])
    """

    def forward(
        self, tgt: Tensor, memory: Tensor, tgt_mask: AnyMask = None, memory_mask: AnyMask = None,
        tgt_key_padding_mask: AnyMask = None, memory_key_padding_mask: AnyMask = None,
        tgt_is_causal: bool | None = None, memory_is_causal: bool = False,
    ) -> Tensor:  # fmt: skip
        given: Any = tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask
        required = any(isinstance(mask, Mask) for mask in given)
        if not take_values(self.layers, TransformerDecoderLayer, required):
            return super().forward(tgt, memory, *given, tgt_is_causal, memory_is_causal)  # type: ignore[call-arg]
        first: Any = self.layers[0]
        with checks.renamed(query="tgt", attn_mask="tgt_mask", key_padding_mask="tgt_key_padding_mask"):
            among = settle(first.self_attn, tgt, tgt, tgt_mask, tgt_key_padding_mask, bool(tgt_is_causal))
        with checks.renamed(
            query="tgt", key="memory", attn_mask="memory_mask", key_padding_mask="memory_key_padding_mask"
        ):
            across = settle(first.multihead_attn, tgt, memory, memory_mask, memory_key_padding_mask, memory_is_causal)
        masks = {
            "tgt_mask": among[0],
            "memory_mask": across[0],
            "tgt_key_padding_mask": among[1],
            "memory_key_padding_mask": across[1],
        }
        x = tgt
        for layer in self.layers:
            x = layer(x, memory, **masks, tgt_is_causal=False, memory_is_causal=False)
        return x if self.norm is None else self.norm(x)
