"""Filled caches beside their models, and a mask and a bias of every kind that fit them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import mmha
from cache_model import ListModel, expected, near
from mmha import KVCache
from mmha.bias import Additive, ALiBi, Relative
from mmha.masks import (
    Causal,
    Chunked,
    Dense,
    Dilated,
    Documents,
    Full,
    Global,
    KeyPadding,
    Keys,
    Mask,
    PerHead,
    Predicate,
    Prefix,
    Queries,
    QueryPadding,
    StrictCausal,
    Tree,
    Window,
)

B, H, HK, D, DV = 3, 6, 3, 17, 13
LENGTHS = (53, 67, 41)  # of each row, at least the largest Tq
LONGEST = max(LENGTHS)
Q_LENS = [1, 3, 7, 33]
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.int8]


def filled(
    dtype: torch.dtype = torch.float32,
    lengths: tuple[int, ...] = LENGTHS,
    kv_heads: int = HK,
    dim: int = D,
    value_dim: int = DV,
) -> tuple[KVCache, ListModel]:
    """A cache of these lengths, whose unused slots hold NaN (in float), and its model."""
    cache = KVCache(len(lengths), kv_heads, max(lengths) + 7, dim, value_dim=value_dim, dtype=dtype)
    model = ListModel.empty(len(lengths), kv_heads, dim, value_dim, dtype)
    sizes = (len(lengths), kv_heads, max(lengths) + 7)
    if dtype != torch.int8:
        cache.append(torch.full((*sizes, dim), math.nan), torch.full((*sizes, value_dim), math.nan))
        cache.truncate(0)
    k, v = torch.randn(*sizes, dim), torch.randn(*sizes, value_dim)
    cache.append(k, v, torch.tensor(lengths))
    model.append(k, v, lengths)
    return cache, model


def compare(q: Tensor, cache: Any, model: ListModel, mask: Mask | None, rule: Any = (), **arguments: Any) -> None:
    out, lse = mmha.attention(q, cache, mask=mask, return_lse=True, **arguments)
    want, want_lse = expected(q, model, mask, **dict(rule))
    assert out.dtype == q.dtype
    assert lse.dtype == torch.float32
    stored = model.stored
    assert stored is not None
    near(out, want, stored)
    slack = {torch.float32: 1e-5, torch.bfloat16: 0.02, torch.float16: 0.005, torch.int8: 0.02}
    torch.testing.assert_close(lse.double(), want_lse, rtol=1e-5, atol=max(slack[stored], slack[q.dtype]))
    assert not out[lse == -math.inf].any()
    assert torch.equal(out, mmha.attention(q, cache, mask=mask, **arguments))


def random_bools(*shape: int, share: float = 0.5) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(7)) < share


def _far(b: Tensor, h: Tensor, p: Tensor, j: Tensor) -> Tensor:
    return (p - j + h + b) % 5 < 2


MASKS: dict[str, Callable[[int], Mask | None]] = {
    "None": lambda n: None,
    "Full": lambda n: Full(),
    "Causal": lambda n: Causal(),
    "StrictCausal": lambda n: StrictCausal(),
    "Window": lambda n: Window(11),
    "Window ahead": lambda n: Window(3, 2),
    "Dilated": lambda n: Causal() & Dilated(3),
    "Chunked": lambda n: Causal() & Chunked(19),
    "Prefix": lambda n: (Causal() & Window(5)) | Prefix(torch.tensor([9, 0, 4])),
    "KeyPadding": lambda n: Causal() & KeyPadding([40, 61, 2]),
    "KeyPadding.left": lambda n: Causal() & KeyPadding.left([13, 0, 40]),
    "Keys": lambda n: Causal() & Keys(random_bools(B, LONGEST)),
    "Documents": lambda n: Causal() & Documents(torch.arange(LONGEST) // 11),
    "Documents per row": lambda n: Causal() & Documents(torch.arange(LONGEST) // torch.tensor([[5], [17], [29]])),
    "Queries": lambda n: Causal() & Queries(random_bools(B, n)),
    "QueryPadding": lambda n: Causal() & QueryPadding([52, 60, 41]),
    "Global": lambda n: Causal() & (Window(4) | Global([0, 31])),
    "Tree": lambda n: Tree([-1, 0, 0, 1, 2, -1, 5][:n]),
    "Dense": lambda n: Dense(random_bools(B, H, n, LONGEST)),
    "Dense per key": lambda n: Dense(random_bools(B, 1, 1, LONGEST, share=0.9)) & Causal(),
    "PerHead": lambda n: PerHead([Causal(), Full(), Window(5), StrictCausal(), ~Full(), Causal() & Dilated(7)]),
    "Predicate": lambda n: Predicate(_far),
    "nothing": lambda n: ~Full(),
}


def rules() -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """What is given to `attention`, and to the reference."""
    random = torch.Generator().manual_seed(11)
    slopes, table = torch.rand(H, generator=random), torch.randn(H, 2 * 9 + 1, generator=random)
    sinks, added = torch.randn(H, generator=random), torch.randn(B, H, 1, LONGEST, generator=random)
    holed = torch.randn(H, 1, LONGEST, generator=random).masked_fill(random_bools(H, 1, LONGEST, share=0.3), -math.inf)
    numbers = {"softcap": 2.5, "scale": 0.4}
    return {
        "alibi": ({"bias": ALiBi(slopes)}, {"slopes": slopes}),
        "relative": ({"bias": Relative(table)}, {"table": table}),
        "additive": ({"bias": Additive(added)}, {"additive": added}),
        "additive with -inf": ({"bias": Additive(holed)}, {"additive": holed}),
        "additive in half": ({"bias": Additive(added.half())}, {"additive": added.half()}),
        "softcap": ({"softcap": 1.5}, {"softcap": 1.5}),
        "scale": ({"scale": -0.3}, {"scale": -0.3}),
        "sinks": ({"sinks": sinks}, {"sinks": sinks}),
        "everything": (
            {"bias": ALiBi(slopes) + Relative(table) + Additive(added) + Additive(holed), "sinks": sinks, **numbers},
            {"slopes": slopes, "table": table, "additive": (added, holed), "sinks": sinks, **numbers},
        ),
    }  # fmt: skip
