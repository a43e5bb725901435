"""The sizes of a BERT, and the named ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmha import checkpoint, checks

SHIPPED = Path(__file__).parents[2] / "weights" / "bert.json"
ACTIVATIONS = ("gelu", "gelu_new", "relu")
PARTS = ("pooler", "words", "next")
MOST_LAYERS = 1024  # layers that share their weights are bounded by no file's size


@dataclass(frozen=True)
class Config:
    """Sizes of a BERT.

    `vocabulary` counts the tokens, `positions` the longest sequence, `segments` the kinds of sentence (A and B);
    a head has width / heads numbers; `hidden` is the width inside the feed-forward half. `attention_dropout` drops
    attention weights; None = as `dropout`, which drops the rest. `activation` is "gelu", "gelu_new" (its tanh
    approximation) or "relu". `parts` are those of "pooler", "words" (masked words) and "next" (next sentence) that
    stand on the encoder.

    What ALBERT has of its own: embeddings of `embedding` numbers, projected to the width (None = none, they have the
    width); `groups` different layers, each repeated layers / groups times in a row (None = every layer is its own).

    Raises: ValueError or TypeError for sizes that do not fit together.
    """

    vocabulary: int
    width: int
    layers: int
    heads: int
    hidden: int
    positions: int = 512
    segments: int = 2
    dropout: float = 0.1
    attention_dropout: float | None = None
    embedding: int | None = None
    groups: int | None = None
    activation: str = "gelu"
    norm_eps: float = 1e-12
    parts: tuple[str, ...] = PARTS

    def __post_init__(self) -> None:
        for name in ("vocabulary", "width", "heads", "hidden", "positions", "segments"):
            checks.integer(name, getattr(self, name), minimum=1)
        checks.integer("layers", self.layers, 1, MOST_LAYERS)
        checks.require(self.width % self.heads == 0, "width", f"a multiple of heads = {self.heads}", self.width)
        if self.embedding is not None:
            checks.integer("embedding", self.embedding, minimum=1)
        if self.groups is not None:
            fits = self.layers % checks.integer("groups", self.groups, minimum=1) == 0
            checks.require(fits, "groups", f"a divisor of layers = {self.layers}", self.groups)
        for name in ("dropout", "attention_dropout"):
            p = getattr(self, name)
            fits = p is None or 0 <= checks.number(name, p) < 1
            checks.require(fits and (p is not None or name != "dropout"), name, "a number in [0, 1)", p)
        checks.one_of("activation", self.activation, ACTIVATIONS)
        checks.require(checks.number("norm_eps", self.norm_eps) > 0, "norm_eps", "a number > 0", self.norm_eps)
        known = isinstance(self.parts, (tuple, list)) and all(part in PARTS for part in self.parts)
        checks.require(known, "parts", f"some of {checks.listed(PARTS)}", self.parts)
        object.__setattr__(self, "parts", tuple(part for part in PARTS if part in self.parts))

    @property
    def shared(self) -> bool:
        """Whether layers share their weights, as ALBERT's do."""
        return self.groups is not None and self.groups < self.layers

    @property
    def parameters(self) -> int:
        """How many weights a model of these sizes has."""
        narrow, wide = self.embedding or self.width, self.width
        embeddings = (self.vocabulary + self.positions + self.segments + 2) * narrow
        if self.embedding is not None:
            embeddings += (narrow + 1) * wide
        layer = 4 * (wide + 1) * wide + 2 * wide * self.hidden + self.hidden + 5 * wide
        sizes = {
            "pooler": (wide + 1) * wide,
            "words": (wide + 3) * narrow + self.vocabulary,
            "next": 2 * (wide + 1),
        }
        return embeddings + (self.groups or self.layers) * layer + sum(sizes[part] for part in self.parts)


def nano(vocabulary: int = 4500) -> Config:
    """4 layers of 160 numbers, for sequences of 128 tokens: the one that ships; too small and short to need dropout."""
    return Config(vocabulary, width=160, layers=4, heads=5, hidden=640, positions=128, dropout=0.0)


def tiny(vocabulary: int = 30522) -> Config:
    """2 layers of 128 numbers: seconds a thousand sentences."""
    return Config(vocabulary, width=128, layers=2, heads=2, hidden=512)


def mini(vocabulary: int = 30522) -> Config:
    """4 layers of 256 numbers."""
    return Config(vocabulary, width=256, layers=4, heads=4, hidden=1024)


def small(vocabulary: int = 30522) -> Config:
    """4 layers of 512 numbers."""
    return Config(vocabulary, width=512, layers=4, heads=8, hidden=2048)


def base(vocabulary: int = 30522) -> Config:
    """BERT-base: 12 layers of 768 numbers, 110 million weights."""
    return Config(vocabulary, width=768, layers=12, heads=12, hidden=3072)


def large(vocabulary: int = 30522) -> Config:
    """BERT-large: 24 layers of 1024 numbers, 336 million weights."""
    return Config(vocabulary, width=1024, layers=24, heads=16, hidden=4096)


BUILDERS = {"nano": nano, "tiny": tiny, "mini": mini, "small": small, "base": base, "large": large}


def read_config(document: dict[str, Any], path: Path) -> Config:
    """The sizes in a checkpoint's document.

    Raises: ValueError when they are not those of a BERT.
    """
    return checkpoint.sizes(document, path, Config, "bert", "a BERT")
