"""Masked multi-head attention for PyTorch: masks as values, and kernels that compute only what is visible.

>>> import torch, mmha
>>> from mmha.masks import Causal, Window
>>> q = k = v = torch.ones(1, 2, 5, 4)
>>> mmha.attention(q, k, v, Causal() & Window(2)).shape
torch.Size([1, 2, 5, 4])
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import bias as bias
    from . import cache as cache
    from . import huggingface as huggingface
    from . import masks as masks
    from . import nn as nn
    from .cache import KVCache as KVCache
    from .cache import PagedKVCache as PagedKVCache
    from .cache import masked_multihead_attention as masked_multihead_attention
    from .nn import Rotary as Rotary
    from .nn import pack as pack
    from .nn import unpack as unpack
    from .ops import attention as attention
    from .patching import patch as patch

__version__ = "0.1.0"

# Public names are imported at their first use: `import mmha`, and with it `mmha --help`, must not wait for torch.
_HOME = {
    "KVCache": "mmha.cache", "PagedKVCache": "mmha.cache", "Rotary": "mmha.nn", "attention": "mmha.ops",
    "masked_multihead_attention": "mmha.cache", "pack": "mmha.nn",
    "patch": "mmha.patching", "unpack": "mmha.nn",
}  # fmt: skip
_MODULES = ("bias", "cache", "huggingface", "masks", "nn", "reference")

__all__ = [
    "KVCache", "PagedKVCache", "Rotary", "__version__", "attention", "bias", "cache", "huggingface",
    "masked_multihead_attention", "masks", "nn", "pack", "patch", "reference", "unpack",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"mmha.{name}")
    if name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'mmha' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
