"""One mask of every kind and some of their combinations, at sizes that cross a kernel's tile (32 queries, 256 keys)."""

from __future__ import annotations

import torch
from torch import Tensor

from mmha.masks import (
    Blocks,
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
)  # fmt: skip

B, H, HK, TQ, TK = 2, 6, 3, 37, 283


def _random(*shape: int, share: float = 0.5) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.rand(shape, generator=generator) < share


def _far(b: Tensor, h: Tensor, p: Tensor, j: Tensor) -> Tensor:
    return (p - j + h) % 5 < 2


_DOCUMENTS = torch.arange(TK).mul(7).div(TK, rounding_mode="floor")

ZOO: dict[str, Mask] = {
    "Full": Full(),
    "Causal": Causal(),
    "StrictCausal": StrictCausal(),
    "Window": Window(11, 3),
    "Dilated": Dilated(3),
    "Chunked": Chunked(29),
    "Prefix": Prefix(torch.tensor([19, 0])),
    "KeyPadding": KeyPadding([TK - 20, 3]),
    "KeyPadding.left": KeyPadding.left([0, TK - 7]),
    "Keys": Keys(_random(B, TK)),
    "Queries": Queries(_random(B, TQ)),
    "QueryPadding": QueryPadding([TK - 5, TK - TQ + 2]),
    "Documents": Documents(_DOCUMENTS),
    "Documents per row": Documents(torch.stack([_DOCUMENTS, torch.zeros(TK, dtype=torch.int64)])),
    "Global": Global([0, TK - 3]),
    "Blocks": Blocks(_random(18, 18), 16),
    "Tree": Tree([-1, 0, 0, 1, 2, -1]),
    "PerHead": PerHead([Causal(), Full(), Window(5), Keys(_random(B, TK, share=0.1)), ~Full(), Dilated(7)]),
    "Dense": Dense(_random(B, H, TQ, TK, share=0.1)),
    "Dense per query": Dense(_random(TQ, 1)),
    "Predicate": Predicate(_far),
    "nothing": ~Full(),
    "causal window with padding": Causal() & Window(64) & KeyPadding([TK, TK - 31]),
    "prefix LM": Causal() | Prefix(9),
    "window and global": (Window(9, 9) | Global([0, 100])) & ~Dilated(4),
    "documents, causal, padded queries": Documents(_DOCUMENTS) & Causal() & Queries(_random(B, TQ)),
}


def zoo_mask(name: str) -> Mask:
    """The mask of that name."""
    return ZOO[name]
