"""The sizes of a cache, checked."""

from __future__ import annotations

from typing import Any

import torch

from mmha import checks
from mmha.ops.caches import CACHE_DTYPES, MAX_HEAD_DIM, Memory


def memory(blocks: int, slots: int, kv_heads: Any, head_dim: Any, value_dim: Any, dtype: Any) -> Memory:
    """Room for `blocks` blocks of `slots` tokens. Raises TypeError, ValueError or MemoryError naming the argument."""
    if not isinstance(dtype, torch.dtype) or dtype not in CACHE_DTYPES:
        expected = checks.listed([str(x) for x in CACHE_DTYPES])
        got = str(dtype) if isinstance(dtype, torch.dtype) else checks.describe(dtype)
        raise TypeError(checks.message("dtype", expected, got))
    heads = checks.integer("kv_heads", kv_heads, 1)
    dim = checks.integer("head_dim", head_dim, 1, MAX_HEAD_DIM)
    width = dim if value_dim is None else checks.integer("value_dim", value_dim, 1, MAX_HEAD_DIM)
    try:
        return Memory(blocks, slots, heads, (dim, width), dtype)
    except RuntimeError:  # torch's allocator
        numbers = blocks * slots * heads * (dim + width)
        raise MemoryError(
            f"a cache of {numbers * torch.empty(0, dtype=dtype).element_size():.3g} bytes does not fit"
        ) from None
