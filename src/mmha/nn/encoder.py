"""torch.nn's transformer encoder on `mmha.nn.MultiheadAttention`: one path, in training and in evaluation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmha import checks
from mmha.masks import Mask, Not, Window
from mmha.nn.dropout import Dropout
from mmha.nn.linear import project
from mmha.nn.multihead import MultiheadAttention
from mmha.nn.positions import sinusoidal
from mmha.nn.rotary import Rotary
from mmha.nn.stack import Activation, AnyMask, activation_of, settle, take_values


class TransformerEncoderLayer(nn.TransformerEncoderLayer):
    """Self-attention and a feed-forward part, each with a residual and a norm: torch.nn.TransformerEncoderLayer.

    x ← norm1(x + attend(x)), x ← norm2(x + linear2(activation(linear1(x)))); with norm_first
    x ← x + attend(norm1(x)), x ← x + linear2(activation(linear1(norm2(x)))).
    Constructor, defaults, initial weights, state-dict keys and results are those of torch's class, of which this is a
    subclass; there is no second path in evaluation, so padded rows are computed there as they are in training.

    Args beyond torch's: num_kv_heads and rotary, as `mmha.nn.MultiheadAttention` takes them.
    Forward: torch's arguments. src_mask and src_key_padding_mask are tensors in torch's meaning (True = hidden, float =
        added) or masks as values (visible where they say so); all that is given holds together, is_causal included.
        keys_from: the tokens that keys and values are taken from; None = src itself.
    Shapes: src (T, B, d_model), with batch_first (B, T, d_model), or (T, d_model) → the same.
    Raises: what `mmha.nn.MultiheadAttention` raises for arguments that do not fit.
    Source: Vaswani et al. (2017), section 3.1; Xiong et al. (2020) for norm_first.

    >>> import mmha
    >>> from mmha.masks import Causal, KeyPadding
    >>> layer = mmha.nn.TransformerEncoderLayer(d_model=6, nhead=2, dim_feedforward=10, batch_first=True)
    >>> layer(torch.zeros(2, 5, 6), Causal(), KeyPadding([5, 3])).shape
    torch.Size([2, 5, 6])
    """

    def __init__(
        self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1,
        activation: Activation = F.relu, layer_norm_eps: float = 1e-5, batch_first: bool = False,
        norm_first: bool = False, bias: bool = True, device: Any = None, dtype: torch.dtype | None = None,
        *, num_kv_heads: int | None = None, rotary: Rotary | None = None,
    ) -> None:  # fmt: skip
        nn.Module.__init__(self)  # torch's own would draw weights for an attention that is then thrown away
        place: Any = {"device": device, "dtype": dtype}
        self.self_attn = MultiheadAttention(
            d_model, nhead, dropout, bias, batch_first=batch_first, num_kv_heads=num_kv_heads, rotary=rotary, **place
        )
        self.linear1 = nn.Linear(d_model, dim_feedforward, bias=bias, **place)
        self.dropout = Dropout(dropout)
        self.linear2 = nn.Linear(dim_feedforward, d_model, bias=bias, **place)
        self.norm_first = norm_first
        self.norm1 = nn.LayerNorm(d_model, eps=layer_norm_eps, bias=bias, **place)
        self.norm2 = nn.LayerNorm(d_model, eps=layer_norm_eps, bias=bias, **place)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.activation = activation_of(activation)
        self.activation_relu_or_gelu = 0  # by this torch's own encoder decides to hand nested tensors to its layers

    def forward(
        self, src: Tensor, src_mask: AnyMask = None, src_key_padding_mask: AnyMask = None, is_causal: bool = False,
        *, keys_from: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        masks, keys = (src_mask, src_key_padding_mask, is_causal), keys_from
        with checks.renamed(
            query="src", key="keys_from", attn_mask="src_mask", key_padding_mask="src_key_padding_mask"
        ):
            if self.norm_first:
                keys = None if keys is None else self.norm1(keys)
                x = src + self._attend(self.norm1(src), keys, *masks)
                x = x + self._ff_block(self.norm2(x))
            else:
                x = self.norm1(src + self._attend(src, keys, *masks))
                x = self.norm2(x + self._ff_block(x))
        return x

    def _ff_block(self, x: Tensor) -> Tensor:  # torch's method, as `_sa_block` is
        x = project(self.linear2, self.dropout(self.activation(project(self.linear1, x))))
        out: Tensor = self.dropout2(x)
        return out

    def _attend(self, x: Tensor, keys: Tensor | None, attn_mask: Any, padding: Any, is_causal: bool) -> Tensor:
        if keys is None:  # torch's method, which subclasses written for torch's class may have replaced
            return self._sa_block(x, attn_mask, padding, is_causal=is_causal)
        made = self.self_attn(x, keys, keys, padding, need_weights=False, attn_mask=attn_mask, is_causal=is_causal)
        out: Tensor = self.dropout1(made[0])
        return out


class TransformerEncoder(nn.TransformerEncoder):
    """Copies of one layer, one after the other, and a norm at the end: torch.nn.TransformerEncoder.

    x_0 = src, x_l = layer_l(x_{l-1}), out = norm(x_L). With exclude_self, out_i follows from every visible token but
    token i itself: x_0 = start + PE, a learned vector plus sinusoidal positions, x_l = layer_l(x_{l-1}) with the keys
    and values of all layers taken from src, and the mask joined with ~Window(0, 0): docs/exclude_self.md.

    Args: torch's. enable_nested_tensor and mask_check are accepted and have no effect: padded rows are neither cut off
        nor set to 0, in training and in evaluation alike. Batches are not packed, because torch's results are defined
        at padding, too; `mmha.pack` is for who does not need them. exclude_self needs layers of this package.
    Forward: torch's arguments; mask and src_key_padding_mask are tensors in torch's meaning (True = hidden, float =
        added) or masks as values. What they say is found once for all layers. is_causal=True alone is enough; a mask
        given beside it holds, too.
    Shapes: src (T, B, d_model), with batch_first (B, T, d_model), or (T, d_model) → the same.
    Raises: TypeError for exclude_self, and for masks as values, with layers that are not of this package.
    Source: Vaswani et al. (2017), section 3.1; exclude_self: Shin et al. (2020), *Fast and Accurate Deep
        Bidirectional Language Representations for Unsupervised Learning*, section 3 (T-TA).

    >>> import mmha
    >>> from mmha.masks import Causal
    >>> layer = mmha.nn.TransformerEncoderLayer(d_model=6, nhead=2, dim_feedforward=10, batch_first=True)
    >>> mmha.nn.TransformerEncoder(layer, num_layers=3)(torch.zeros(2, 5, 6), Causal()).shape
    torch.Size([2, 5, 6])
    """

    def __init__(
        self, encoder_layer: nn.Module, num_layers: int, norm: nn.Module | None = None,
        enable_nested_tensor: bool = True, mask_check: bool = True, *, exclude_self: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(encoder_layer, num_layers, norm, False, mask_check)  # type: ignore[arg-type]
        self.enable_nested_tensor = enable_nested_tensor
        self.exclude_self = exclude_self
        if exclude_self:
            if not isinstance(encoder_layer, TransformerEncoderLayer):
                wanted = "a mmha.nn.TransformerEncoderLayer with exclude_self"
                raise checks.type_error("encoder_layer", wanted, encoder_layer)
            weight = encoder_layer.norm1.weight
            self.start = nn.Parameter(nn.init.normal_(torch.empty_like(weight), std=0.02))

    def forward(
        self, src: Tensor, mask: AnyMask = None, src_key_padding_mask: AnyMask = None, is_causal: bool | None = None
    ) -> Tensor:
        required = self.exclude_self or isinstance(mask, Mask) or isinstance(src_key_padding_mask, Mask)
        if not take_values(self.layers, TransformerEncoderLayer, required):
            return super().forward(src, mask, src_key_padding_mask, is_causal)  # type: ignore[arg-type]
        others = Not(Window(0, 0)) if self.exclude_self else None
        with checks.renamed(query="src", attn_mask="mask", key_padding_mask="src_key_padding_mask"):
            pairs, padding = settle(
                self.layers[0].self_attn, src, src, mask, src_key_padding_mask, bool(is_causal), others
            )
        x, given = (self._without_tokens(src), {"keys_from": src}) if self.exclude_self else (src, {})
        for layer in self.layers:
            x = layer(x, src_mask=pairs, src_key_padding_mask=padding, is_causal=False, **given)
        return x if self.norm is None else self.norm(x)

    def _without_tokens(self, src: Tensor) -> Tensor:
        """What takes the place of src where a token must not see itself: start + PE, in the shape of src."""
        width = src.shape[-1]
        batched, batch_first = src.dim() == 3, self.layers[0].self_attn.batch_first
        length = src.shape[1 if batched and batch_first else 0]
        codes = sinusoidal(torch.arange(length), width + width % 2)[:, :width]  # sines and cosines come in pairs
        found = self.start + codes.to(src)
        return (found.unsqueeze(1) if batched and not batch_first else found).expand_as(src)
