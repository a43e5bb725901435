"""What a row of the table is: a `Case` with its sizes and the ratio to torch that is aimed at. No torch in here.

The rows themselves stand in `table`, the mask of each kind in `patterns`. Useful work counts visible pairs only, so a
masked row is not flattered by work that nobody needs: a pair costs 2·D operations for its score and 2·D for its value;
backward five such products instead of two; a training step is both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mmha.checks import nearest, value_error

Family = Literal["masks", "features", "irregular", "shapes", "call", "decode"]
Direction = Literal["forward", "recorded", "backward", "training"]
DType = Literal["f32", "bf16", "f16", "i8"]
Unit = Literal["GFLOP/s", "GB/s"]
Kind = Literal[
    "dense", "causal", "padding", "window", "documents",
    "dropout", "alibi", "relative", "softcap", "sinks",
    "random", "bigbird", "blocks", "longformer", "tree",
    "padded", "packed",
    "token", "step", "prefill", "guesses",
]  # fmt: skip

FAMILIES: dict[Family, str] = {
    "masks": "masks",
    "features": "features",
    "irregular": "irregular masks",
    "shapes": "short, few and odd shapes",
    "call": "a small call on one thread",
    "decode": "decode from a cache",
}
TORCH_NAMES: dict[DType, str] = {"f32": "float32", "bf16": "bfloat16", "f16": "float16", "i8": "int8"}
READING: tuple[Kind, ...] = ("token", "step")
"""Kinds that do two operations or less a byte: what they can reach at all is set by memory, not by arithmetic."""
FLOP_PER_PAIR: dict[Direction, int] = {"forward": 4, "recorded": 4, "backward": 10, "training": 14}


@dataclass(frozen=True)
class Sizes:
    """How large a problem is: B, H, Hk, Tq, Tk and D (Dv is D)."""

    batch: int
    heads: int
    kv_heads: int
    q_len: int
    k_len: int
    dim: int

    @property
    def heads_text(self) -> str:
        """Batch and heads, e.g. "1x8", or "1x8/2" when 8 query heads share 2 key/value heads."""
        shared = "" if self.heads == self.kv_heads else f"/{self.kv_heads}"
        return f"{self.batch}x{self.heads}{shared}"

    @property
    def length_text(self) -> str:
        """The lengths, e.g. "4096", or "64x4096" when there are fewer queries than keys."""
        return str(self.k_len) if self.q_len == self.k_len else f"{self.q_len}x{self.k_len}"

    @property
    def pairs(self) -> int:
        """All pairs of a query and a key, visible or not."""
        return self.batch * self.heads * self.q_len * self.k_len


def sizes(
    length: int, *, q_len: int = 0, batch: int = 1, heads: int = 8, kv_heads: int = 0, dim: int = 64
) -> Sizes:  # fmt: skip
    """The sizes of most rows, one batch of 8 heads of 64, but for what is said; `length` is Tk, and Tq unless said.

    >>> sizes(4096, q_len=64, kv_heads=2)
    Sizes(batch=1, heads=8, kv_heads=2, q_len=64, k_len=4096, dim=64)
    """
    return Sizes(batch, heads, kv_heads or heads, q_len or length, length, dim)


@dataclass(frozen=True)
class Case:
    """One row: what is computed, how large, in which direction, and the least ratio to torch that satisfies us.

    forward: nothing asks for gradients; recorded: forward while autograd writes it down; backward: that alone, from
    a graph that is kept; training: forward and backward. dtype: of all inputs, or in the family `decode` of the cache.
    threads: 0 = as many as the run has. least_share: the least share of the machine's limit that satisfies us; 0: any.
    """

    family: Family
    direction: Direction
    kind: Kind
    sizes: Sizes
    aim: float
    dtype: DType = "f32"
    threads: int = 0
    least_share: float = 0.0

    @property
    def unit(self) -> Unit:
        """What the row's rate and its limit are counted in."""
        return "GB/s" if self.kind in READING else "GFLOP/s"

    @property
    def group(self) -> tuple[Family, Direction, Unit]:
        """The rows that stand together under one heading."""
        return self.family, self.direction, self.unit

    @property
    def heading(self) -> str:
        """The heading of the group, for people.

        >>> Case("irregular", "backward", "tree", sizes(512), aim=1.0).heading
        'irregular masks: backward'
        """
        unit = f", {self.unit}" if self.unit == "GB/s" else ""
        return f"{FAMILIES[self.family]}: {self.direction}{unit}"

    @property
    def name(self) -> str:
        """What `--filter` looks at and what a row is known by.

        >>> Case("masks", "forward", "window", sizes(8192, dim=128), aim=34).name
        'masks forward window 8192 f32 1x8 d128'
        """
        size = self.sizes
        shape = f"{size.length_text} {self.dtype} {size.heads_text} d{size.dim}"
        return f"{self.family} {self.direction} {self.kind} {shape}"

    def flop(self, pairs: int) -> float:
        """Useful floating point operations for this many visible pairs: 4·D a pair forward, 10·D backward, or both.

        >>> Case("masks", "backward", "causal", sizes(512), aim=2.4).flop(pairs=1000)
        640000.0
        """
        return float(FLOP_PER_PAIR[self.direction] * self.sizes.dim * pairs)


def select(words: str, cases: Sequence[Case]) -> tuple[Case, ...]:
    """The cases in whose name every one of the words is, or, where it is in none, begins a word; in their order.

    Raises:
        ValueError: no case matches; the message says what can be asked for.

    >>> wanted = [Case("masks", "forward", kind, sizes(512), aim=1.0) for kind in ("causal", "window")]
    >>> [case.kind for case in select("forward win", wanted)]
    ['window']
    """
    names = {case: case.name.split() for case in cases}
    known = list(dict.fromkeys(part for column in zip(*names.values(), strict=True) for part in column))
    chosen = tuple(cases)
    for word in words.lower().split():
        meant = {word} if word in known else {part for part in known if part.startswith(word)}
        if not meant:
            raise value_error("filter", "words out of: " + " ".join(known), repr(word) + nearest(word, known))
        chosen = tuple(case for case in chosen if not meant.isdisjoint(names[case]))
    if not chosen:
        raise value_error("filter", "words that stand together in a row of mmha bench", repr(words))
    return chosen
