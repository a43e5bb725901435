"""CoNLL-U, the format of Universal Dependencies (universaldependencies.org/format.html): read, and written back tagged.

A file is kept as it is: comments, multiword ranges (`1-2`), empty nodes (`1.1`) and all columns come out as they went
in, only column 4 (UPOS) of the words changes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mmha.data.sentence import Sentence

COLUMNS = 10
_ID = re.compile(r"([1-9]\d*)(-[1-9]\d*|\.[1-9]\d*)?|0\.[1-9]\d*")


@dataclass(frozen=True)
class Block:
    """One sentence as it stands in the file: its lines, and which of them are words."""

    lines: tuple[str, ...]
    at: tuple[int, ...]

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(self.lines[i].split("\t")[1] for i in self.at)

    @property
    def tags(self) -> tuple[str, ...]:
        """Column 4 of the words; `_` where there is none."""
        return tuple(self.lines[i].split("\t")[3] for i in self.at)

    def sentence(self) -> Sentence:
        """Words, and tags when every word has one."""
        tags = self.tags
        return Sentence(self.words, None if "_" in tags else tags)

    def tagged(self, tags: Sequence[str]) -> str:
        """The block with these tags, as text with the blank line that ends it."""
        lines = list(self.lines)
        for i, tag in zip(self.at, tags, strict=True):
            columns = lines[i].split("\t")
            columns[3] = tag
            lines[i] = "\t".join(columns)
        return "\n".join(lines) + "\n\n"


def parse(lines: Iterable[str], name: str = "input") -> Iterator[Block]:
    """The sentences of CoNLL-U text.

    Raises: ValueError naming the line that is not CoNLL-U.

    >>> [b.words for b in parse(["# text = I saw", "1\\tI" + 8 * "\\t_", "2\\tsaw" + 8 * "\\t_", ""])]
    [('I', 'saw')]
    """
    block: list[str] = []
    words: list[int] = []
    for number, raw in enumerate(lines, start=1):
        line = raw.rstrip("\r\n")
        if not line.strip():
            if words:
                yield Block(tuple(block), tuple(words))
            elif any(not held.startswith("#") for held in block):
                raise ValueError(f"{name}, line {number}: expected a word before the sentence ends, got none")
            block, words = [], []
            continue
        if not line.startswith("#") and _is_word(line, len(words) + 1, f"{name}, line {number}"):
            words.append(len(block))
        block.append(line)
    if words:
        yield Block(tuple(block), tuple(words))


def _is_word(line: str, expected: int, where: str) -> bool:
    """Whether the line is a word and not a range or an empty node; raises for what is none of them."""
    columns = line.split("\t")
    if len(columns) != COLUMNS:
        raise ValueError(f"{where}: expected {COLUMNS} columns with a tab between them, got {len(columns)}")
    found = _ID.fullmatch(columns[0])
    if not found:
        raise ValueError(f"{where}: expected a word's number such as {expected}, 1-2 or 1.1, got {columns[0]!r}")
    if found[1] is None or found[2] is not None:
        return False
    if columns[0] != str(expected):
        raise ValueError(f"{where}: expected word number {expected}, got {columns[0]}")
    if not columns[1].strip():
        raise ValueError(f"{where}: expected a word in column 2, got none")
    return True


def block_of(words: Sequence[str]) -> Block:
    """Plain words as a CoNLL-U sentence with every other column empty."""
    lines = [f"# text = {' '.join(words)}"]
    lines += ["\t".join([str(i), word, *"_" * 8]) for i, word in enumerate(words, start=1)]
    return Block(tuple(lines), tuple(range(1, len(words) + 1)))
