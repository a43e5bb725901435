"""`attn_implementation="mmha"` in transformers: its models, its masks and its generation on mmha's kernels."""

from mmha.huggingface.registry import register, unregister

__all__ = ["register", "unregister"]
