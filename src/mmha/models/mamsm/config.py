"""The sizes of a MAMSM, and the named ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmha import checkpoint, checks


@dataclass(frozen=True)
class Config:
    """Sizes of a masked sequence model of values.

    `vocabulary` counts the tokens, 4 markers among them; the model is `width` numbers wide, each of its `heads` has
    `head_dim` numbers, its feed-forward part `hidden`; `positions` is the longest sequence, markers included;
    `segments` the kinds of part of a sequence. `window`: how many tokens to either side a token sees, beside the first,
    [CLS], which sees all and is seen by all; None = all tokens. `faithful`: nothing is added to the feed-forward part's
    output, and nothing normalises it, as in the released code; else as in BERT.

    Raises: ValueError or TypeError for sizes that make no model.
    """

    vocabulary: int
    width: int
    layers: int
    heads: int
    head_dim: int
    hidden: int
    positions: int = 2048
    segments: int = 1
    window: int | None = None
    dropout: float = 0.0
    faithful: bool = False

    def __post_init__(self) -> None:
        for name in ("width", "layers", "heads", "head_dim", "hidden", "segments"):
            checks.integer(name, getattr(self, name), minimum=1)
        checks.integer("vocabulary", self.vocabulary, minimum=5)
        checks.integer("positions", self.positions, minimum=3)
        if self.window is not None:
            checks.integer("window", self.window, minimum=0)
        checks.require(0 <= checks.number("dropout", self.dropout) < 1, "dropout", "a number in [0, 1)", self.dropout)
        if not isinstance(self.faithful, bool):
            raise checks.type_error("faithful", "True or False", self.faithful)

    @property
    def parameters(self) -> int:
        """How many weights a model of these sizes has."""
        wide, inner = self.width, self.heads * self.head_dim
        embeddings = (self.vocabulary + self.positions + self.segments + 2) * wide
        attention = 3 * (wide + 1) * inner + (inner + 1) * wide + 2 * wide
        feed_forward = 2 * wide * self.hidden + self.hidden + wide + (0 if self.faithful else 2 * wide)
        return embeddings + self.layers * (attention + feed_forward) + (wide + 3) * wide + self.vocabulary


def published(vocabulary: int = 1005, **other: Any) -> Config:
    """3 layers of 400 numbers, 6 heads of 64 (He et al. 2023); `other` are fields of `Config` to be set otherwise."""
    sizes: dict[str, Any] = {"width": 400, "layers": 3, "heads": 6, "head_dim": 64, "hidden": 1600}
    return Config(vocabulary, **sizes | other)


def small(vocabulary: int = 1005, **other: Any) -> Config:
    """2 layers of 96 numbers, 6 heads of 16, windows of 8: minutes for half a thousand voxels on 2 cores."""
    sizes: dict[str, Any] = {"width": 96, "layers": 2, "heads": 6, "head_dim": 16, "hidden": 384, "window": 8}
    return Config(vocabulary, **sizes | other)


BUILDERS = {"published": published, "small": small}


def read_config(document: dict[str, Any], path: Path) -> Config:
    """The sizes in a checkpoint's document.

    Raises: ValueError when they are not those of a MAMSM.
    """
    return checkpoint.sizes(document, path, Config, "mamsm", "a MAMSM")
