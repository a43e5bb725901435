"""Where torch and the compiled kernels meet: `mmha.attention` and the operators beneath it."""

from __future__ import annotations

from mmha.ops import library as library  # registers the operators
from mmha.ops.public import attention

__all__ = ["attention"]
