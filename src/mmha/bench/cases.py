"""What is measured: one `Case` per row of the table, with the ratio to torch that is aimed at.

The rows are those of the design's speed table that exist so far: float32, forward and backward, one batch of 8 heads.
Useful work counts visible pairs only, so a masked row is not flattered by work that nobody needs:
a pair costs 2·D operations for its score and 2·D for its value; backward five such products instead of two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from mmha.masks import Mask

Direction = Literal["forward", "backward"]
Kind = Literal["dense", "causal", "padding", "window", "documents"]

BATCH, HEADS, WINDOW, DOCUMENTS = 1, 8, 256, 8
QUICK_LENGTH = 2048
FLOP_PER_PAIR = {"forward": 4, "backward": 10}


@dataclass(frozen=True)
class Case:
    """One row: which mask, how long, which direction, and the least ratio to torch that satisfies us."""

    direction: Direction
    kind: Kind
    length: int
    aim: float
    head_dim: int = 64

    @property
    def name(self) -> str:
        """What `--filter` looks at, e.g. "forward window 8192 d128".

        >>> Case("forward", "window", 8192, 34, head_dim=128).name
        'forward window 8192 d128'
        """
        return f"{self.direction} {self.kind} {self.length} d{self.head_dim}"

    def flop(self, pairs: int) -> float:
        """Useful floating point operations for this many visible pairs: 4·D a pair forward, 10·D backward.

        >>> Case("backward", "causal", 512, 2.4).flop(pairs=1000)
        640000.0
        """
        return float(FLOP_PER_PAIR[self.direction] * self.head_dim * pairs)

    def mask(self) -> Mask | None:
        """The mask as a value; None for the row without a mask."""
        return build_mask(self.kind, self.length)


CASES: tuple[Case, ...] = (
    Case("forward", "dense", 2048, aim=1.4),
    Case("forward", "dense", 4096, aim=1.4),
    Case("forward", "causal", 512, aim=2.4),
    Case("forward", "causal", 1024, aim=1.5),
    Case("forward", "causal", 2048, aim=1.5),
    Case("forward", "causal", 4096, aim=1.5),
    Case("forward", "padding", 4096, aim=2.0),
    Case("forward", "window", 4096, aim=18.5),
    Case("forward", "window", 8192, aim=34.0, head_dim=128),
    Case("forward", "documents", 2048, aim=9.0),
    Case("forward", "documents", 4096, aim=16.0),
    Case("backward", "dense", 2048, aim=1.4),
    Case("backward", "dense", 4096, aim=1.3),
    Case("backward", "causal", 512, aim=2.4),
    Case("backward", "causal", 2048, aim=1.5),
    Case("backward", "causal", 4096, aim=1.5),
    Case("backward", "padding", 4096, aim=1.9),
    Case("backward", "window", 4096, aim=18.0),
    Case("backward", "documents", 2048, aim=8.6),
    Case("backward", "documents", 4096, aim=14.6),
)


def build_mask(kind: Kind, length: int) -> Mask | None:
    """The mask that a kind of row stands for, at this length.

    padding: the last quarter of the keys is padding; window: each token sees itself and the 255 before it;
    documents: 8 packed documents of uneven length (the same at every run), causal within each.

    >>> build_mask("window", 4096)
    Window(255)
    """
    from mmha import masks

    if kind == "dense":
        return None
    if kind == "causal":
        return masks.Causal()
    if kind == "padding":
        return masks.KeyPadding([length * 3 // 4])
    if kind == "window":
        return masks.Window(WINDOW - 1)
    return masks.Causal() & masks.Documents.from_lengths(document_lengths(length))


def document_lengths(length: int, count: int = DOCUMENTS, seed: int = 0) -> list[int]:
    """Uneven lengths that sum to `length`, drawn once from a fixed seed.

    >>> sum(document_lengths(2048)), len(document_lengths(2048))
    (2048, 8)
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    cuts = torch.randperm(length - 1, generator=generator)[: count - 1].add(1).sort().values.tolist()
    return [stop - start for start, stop in zip([0, *cuts], [*cuts, length], strict=True)]


def select(words: str, cases: tuple[Case, ...] = CASES) -> tuple[Case, ...]:
    """The cases whose name contains every one of the words, in table order.

    Raises:
        ValueError: no case matches; the message says what can be asked for.

    >>> [case.name for case in select("backward causal 4096")]
    ['backward causal 4096 d64']
    """
    wanted = words.lower().split()
    chosen = tuple(case for case in cases if all(word in case.name for word in wanted))
    if not chosen:
        names = [case.name.split() for case in cases]
        from mmha.checks import nearest, value_error

        known = list(dict.fromkeys(part for column in zip(*names, strict=True) for part in column))
        unknown = next((word for word in wanted if not any(word in part for part in known)), None)
        if unknown is None:
            raise value_error("filter", "words that stand together in a row of mmha bench", repr(words))
        raise value_error("filter", "words out of: " + " ".join(known), repr(unknown) + nearest(unknown, known))
    return chosen
