"""The mask of every kind of row under one. What is random is drawn from a fixed seed: the same at every run."""

from __future__ import annotations

from collections.abc import Callable

import torch

from mmha import masks
from mmha.bench.cases import Kind, Sizes
from mmha.masks import Mask

WINDOW, DOCUMENTS = 256, 8
BLOCK, GLOBAL_EVERY = 64, 512
SHARE_OF_PAIRS, SHARE_OF_BLOCKS, RANDOM_BLOCKS = 0.1, 0.2, 3


def mask_of(kind: Kind, size: Sizes) -> Mask | None:
    """The mask that a kind of row stands for, at this size; None where nothing is hidden.

    >>> from mmha.bench.cases import sizes
    >>> mask_of("window", sizes(4096))
    Window(255)
    """
    return PATTERNS[kind](size)


def causal(size: Sizes) -> Mask:
    """Each token sees itself and what came before."""
    return masks.Causal()


def padding(size: Sizes) -> Mask:
    """The last quarter of the keys is padding."""
    return masks.KeyPadding([size.k_len * 3 // 4] * size.batch)


def window(size: Sizes) -> Mask:
    """Each token sees itself and the 255 before it."""
    return masks.Window(WINDOW - 1)


def documents(size: Sizes) -> Mask:
    """8 packed documents of uneven length, causal within each."""
    return masks.Causal() & masks.Documents.from_lengths(document_lengths(size.k_len))


def random(size: Sizes) -> Mask:
    """A tenth of all pairs, drawn one by one: no kernel can skip a tile."""
    return masks.Dense(torch.rand(size.q_len, size.k_len, generator=seeded()) < SHARE_OF_PAIRS)


def bigbird(size: Sizes) -> Mask:
    """A window of three blocks' width, one block of global tokens, and three random blocks for each block of queries.

    Source: Zaheer et al. 2020, "Big Bird", section 2.
    """
    count = -(-size.k_len // BLOCK)
    chosen = torch.rand(count, count, generator=seeded()).argsort(1)[:, :RANDOM_BLOCKS]
    layout = torch.zeros(count, count, dtype=torch.bool).scatter_(1, chosen, True)
    reach = 3 * BLOCK // 2
    return masks.Window(reach, reach) | masks.Global(range(BLOCK)) | masks.Blocks(layout, BLOCK)


def blocks(size: Sizes) -> Mask:
    """A fifth of the blocks of 64 x 64, and the diagonal."""
    count = -(-size.k_len // BLOCK)
    drawn = torch.rand(count, count, generator=seeded()) < SHARE_OF_BLOCKS
    return masks.Blocks(drawn | torch.eye(count, dtype=torch.bool), BLOCK)


def longformer(size: Sizes) -> Mask:
    """256 tokens on both sides, and every 512th token sees all and is seen by all.

    Source: Beltagy et al. 2020, "Longformer", section 3.1.
    """
    return masks.Window(WINDOW, WINDOW) | masks.Global(range(0, size.k_len, GLOBAL_EVERY))


def tree(size: Sizes) -> Mask:
    """The queries are the nodes of a binary tree of guesses; each sees the past, its ancestors and itself."""
    return masks.Tree([(node - 1) // 2 for node in range(size.q_len)])


def padded(size: Sizes) -> Mask:
    """Sequences of uneven length, side by side: half of the batch is padding, on the side of the queries too."""
    lengths = half_full(size.batch, size.k_len)
    return masks.KeyPadding(lengths) & masks.QueryPadding(lengths)


def packed(size: Sizes) -> Mask:
    """The same sequences laid end to end in one row."""
    return masks.Documents.from_lengths(half_full(size.batch, size.k_len))


PATTERNS: dict[Kind, Callable[[Sizes], Mask | None]] = {
    "dense": lambda size: None,
    "causal": causal,
    "padding": padding,
    "window": window,
    "documents": documents,
    "random": random,
    "bigbird": bigbird,
    "blocks": blocks,
    "longformer": longformer,
    "tree": tree,
    "padded": padded,
    "packed": packed,
}


def document_lengths(length: int, count: int = DOCUMENTS) -> list[int]:
    """Uneven lengths that sum to `length`.

    >>> sum(document_lengths(2048)), len(document_lengths(2048))
    (2048, 8)
    """
    cuts = torch.randperm(length - 1, generator=seeded())[: count - 1].add(1).sort().values.tolist()
    return [stop - start for start, stop in zip([0, *cuts], [*cuts, length], strict=True)]


def half_full(batch: int, length: int) -> list[int]:
    """Uneven lengths of which each has a partner that makes up the full length, so that half of the batch is filled.

    >>> sum(half_full(16, 512)) == 16 * 512 // 2
    True
    """
    drawn: list[int] = torch.randint(1, length, (batch // 2,), generator=seeded()).tolist()
    return [*drawn, *(length - n for n in drawn), *[length // 2] * (batch % 2)]


def seeded(seed: int = 0) -> torch.Generator:
    """A generator of its own, so that a row does not depend on what ran before it."""
    return torch.Generator().manual_seed(seed)
