"""Caches of keys and values, and the fused step that decodes with them."""

from mmha.cache.contiguous import KVCache
from mmha.cache.paged import PagedKVCache
from mmha.cache.step import masked_multihead_attention

__all__ = ["KVCache", "PagedKVCache", "masked_multihead_attention"]
