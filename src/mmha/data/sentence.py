"""One tagged or untagged sentence, the value that readers give and writers take."""

from __future__ import annotations

from dataclasses import dataclass

UPOS = (
    "ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM",
    "PART", "PRON", "PROPN", "PUNCT", "SCONJ", "SYM", "VERB", "X",
)  # fmt: skip
"""The 17 universal part-of-speech tags (universaldependencies.org/u/pos), in alphabetical order."""


@dataclass(frozen=True)
class Sentence:
    """Words in order and, where they are known, one tag for each.

    >>> Sentence(("I", "saw"), ("PRON", "VERB")).words
    ('I', 'saw')
    """

    words: tuple[str, ...]
    tags: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.tags is not None and len(self.tags) != len(self.words):
            raise ValueError(f"tags: expected one tag for each of the {len(self.words)} words, got {len(self.tags)}")

    def __len__(self) -> int:
        return len(self.words)
