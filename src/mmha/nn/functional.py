"""`torch.nn.functional`'s attention functions, computed by `mmha.attention`."""

from __future__ import annotations

from mmha.nn.multihead_functional import multi_head_attention_forward

__all__ = ["multi_head_attention_forward"]
