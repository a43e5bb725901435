"""The sizes of a causal language model, and the named ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmha import checkpoint, checks

SHIPPED = Path(__file__).parents[2] / "weights" / "causal_lm.json"


@dataclass(frozen=True)
class Config:
    """Sizes of a causal language model.

    `vocabulary` counts the tokens, the end of a document included; a head has width / heads numbers, all rotated;
    `hidden` is the width inside the feed-forward half; `context` the tokens of a training window, which is no limit.

    Raises: ValueError or TypeError for sizes that do not fit together.
    """

    vocabulary: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    hidden: int
    context: int
    rotary_base: float = 10000.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("vocabulary", "width", "layers", "heads", "kv_heads", "hidden", "context"):
            checks.integer(name, getattr(self, name), minimum=1)
        checks.require(
            self.width % (2 * self.heads) == 0, "width", f"a multiple of 2 · heads = {2 * self.heads}", self.width
        )
        checks.require(self.heads % self.kv_heads == 0, "kv_heads", f"a divisor of heads = {self.heads}", self.kv_heads)
        checks.require(
            checks.number("rotary_base", self.rotary_base) > 0, "rotary_base", "a number > 0", self.rotary_base
        )
        checks.require(0 <= checks.number("dropout", self.dropout) < 1, "dropout", "a number in [0, 1)", self.dropout)

    @property
    def head_dim(self) -> int:
        """The size of a head."""
        return self.width // self.heads

    @property
    def parameters(self) -> int:
        """How many weights a model of these sizes has."""
        attention = self.width * (2 * self.width + 2 * self.kv_heads * self.head_dim)
        layer = attention + 3 * self.width * self.hidden + 2 * self.width
        return self.vocabulary * self.width + self.layers * layer + self.width


def small(vocabulary: int) -> Config:
    """For tests and short texts: seconds to train."""
    return Config(vocabulary, width=48, layers=2, heads=4, kv_heads=2, hidden=96, context=32)


def base(vocabulary: int) -> Config:
    """The model that ships."""
    return Config(vocabulary, width=192, layers=6, heads=6, kv_heads=2, hidden=512, context=256)


BUILDERS = {"small": small, "base": base}


def read_config(document: dict[str, Any], path: Path) -> Config:
    """The sizes in a checkpoint's document.

    Raises: ValueError when they are not those of a causal language model.
    """
    return checkpoint.sizes(document, path, Config, "causal_lm", "a causal language model")
