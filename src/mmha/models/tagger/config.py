"""The sizes of a tagger, and the named ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmha import checkpoint, checks
from mmha.models.tagger.lexicon import Lexicon

SHIPPED = Path(__file__).parents[2] / "weights" / "tagger.json"
LONGEST = 256  # words; a longer sentence is tagged in parts, whose words do not see the other parts


@dataclass(frozen=True)
class Config:
    """Sizes of a tagger. `words`, `pieces` and `tags` are the sizes of the lexicon, entry 0 included.

    Raises: ValueError or TypeError for sizes that do not fit together.
    """

    words: int
    pieces: int
    tags: int
    embedding: int
    width: int
    heads: int
    hidden: int
    layers: int
    taps: tuple[int, ...]
    dropout: float
    word_dropout: float

    def __post_init__(self) -> None:
        for name in ("words", "pieces", "tags", "embedding", "width", "heads", "hidden", "layers"):
            checks.integer(name, getattr(self, name), minimum=1)
        checks.require(self.width % self.heads == 0, "heads", f"a divisor of width = {self.width}", self.heads)
        checks.require(self.width % 2 == 0, "width", "an even number, for sines and cosines", self.width)
        object.__setattr__(self, "taps", tuple(checks.integer("taps", tap) for tap in self.taps))
        fits = len(self.taps) <= self.heads and 0 not in self.taps
        checks.require(fits, "taps", f"at most {self.heads} distances to a neighbour, none of them 0", self.taps)
        for name in ("dropout", "word_dropout"):
            value = getattr(self, name)
            checks.require(0 <= checks.number(name, value) < 1, name, "a number in [0, 1)", value)

    def stored(self) -> dict[str, tuple[int, ...]]:
        """The names and shapes of the weights in a checkpoint."""
        wide, narrow = self.width, self.embedding
        found: dict[str, tuple[int, ...]] = {"position_scale": ()}
        for table, rows in zip(TABLES, (self.words, self.pieces), strict=True):
            found |= {table: (rows, narrow), checkpoint.scale_name(table): (rows, 1)}
        linear = {"mix": (wide, 2 * narrow), "head": (self.tags, wide)}
        norms = ["norm"]
        for n in range(self.layers):
            norms += [f"blocks.{n}.norm_attention", f"blocks.{n}.norm_feed_forward"]
            linear |= {
                f"blocks.{n}.attention.project_in": (3 * wide, wide),
                f"blocks.{n}.attention.project_out": (wide, wide),
                f"blocks.{n}.feed_forward.up": (self.hidden, wide),
                f"blocks.{n}.feed_forward.down": (wide, self.hidden),
            }
        for name in norms:
            found |= {f"{name}.weight": (wide,), f"{name}.bias": (wide,)}
        for name, shape in linear.items():
            found |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
        return found


def small(lexicon: Lexicon) -> Config:
    """A tagger for tests and slow machines; seconds to train, less exact."""
    return Config(*lexicon.sizes, 16, 32, 4, 48, 1, (-1, 1), dropout=0.0, word_dropout=0.1)


def base(lexicon: Lexicon) -> Config:
    """The tagger that ships."""
    return Config(*lexicon.sizes, 96, 192, 8, 512, 2, (-1, 1, -2, 2), dropout=0.15, word_dropout=0.1)


#: Most of the weights: stored in 8 bits, each row with a scale of its own under the name below.
TABLES = ("word.weight", "piece.weight")


BUILDERS = {"small": small, "base": base}


def read_document(document: dict[str, Any], path: Path) -> tuple[Config, Lexicon]:
    """The sizes and the lexicon in a checkpoint's document.

    Raises: ValueError when they are not those of a tagger.
    """
    config = checkpoint.sizes(document, path, Config, "tagger", "a tagger")
    try:
        words, pieces, tags = (document["lexicon"][k].split("\n") for k in ("words", "pieces", "tags"))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: expected a tagger, got a document that does not fit ({error!r})") from None
    lexicon = Lexicon(words, pieces, tags)
    if lexicon.sizes != (config.words, config.pieces, config.tags):
        raise ValueError(
            f"{path}: expected a lexicon of {config.words, config.pieces, config.tags}, got {lexicon.sizes}"
        )
    return config, lexicon


def check_weights(config: Config, found: Mapping[str, Any], path: Path) -> None:
    """Raise ValueError unless these are the weights of these sizes, as they are stored."""
    wanted = config.stored() if config.layers <= len(found) else {}
    have = {name: tuple(weight.shape) for name, weight in found.items()}
    if have != wanted:
        name = min(name for name in have.keys() | wanted.keys() if have.get(name) != wanted.get(name))
        expected, got = wanted.get(name, "none"), have.get(name, "none")
        raise ValueError(f"{path}: expected a tagger's weights, got others ({name}: expected {expected}, got {got})")
