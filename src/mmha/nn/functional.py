"""`torch.nn.functional`'s attention functions, computed by `mmha.attention`."""

from __future__ import annotations

from mmha.nn.multihead_functional import multi_head_attention_forward
from mmha.nn.sdpa import scaled_dot_product_attention

__all__ = ["multi_head_attention_forward", "scaled_dot_product_attention"]
