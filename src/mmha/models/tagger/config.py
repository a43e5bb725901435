"""The sizes of a tagger, and the named ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmha.models.tagger.lexicon import Lexicon

SHIPPED = Path(__file__).parents[2] / "weights" / "tagger.json"
LONGEST = 256  # words; a longer sentence is tagged in parts, whose words do not see the other parts


@dataclass(frozen=True)
class Config:
    """Sizes of a tagger. `words`, `pieces` and `tags` are the sizes of the lexicon, entry 0 included."""

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
    if document.get("model") != "tagger":
        raise ValueError(f"{path}: expected a tagger, got {document.get('model')!r}")
    try:
        sizes = document["config"]
        config = Config(**sizes | {"taps": tuple(sizes["taps"])})
        words, pieces, tags = (document["lexicon"][k].split("\n") for k in ("words", "pieces", "tags"))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: expected a tagger, got a document that does not fit ({error!r})") from None
    lexicon = Lexicon(words, pieces, tags)
    if lexicon.sizes != (config.words, config.pieces, config.tags):
        raise ValueError(
            f"{path}: expected a lexicon of {config.words, config.pieces, config.tags}, got {lexicon.sizes}"
        )
    return config, lexicon
