"""Running text as documents of sentences: what is pretrained on, where the order of sentences means something.

A document is the tuple of its sentences, each a string. Files of the Brown corpus are documents as they are; works of
Shakespeare are cut into scenes (and sonnets); texts of one's own are one sentence a line, as BERT's authors wrote
theirs, or plain text whose sentences are found by `text.sentences`.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from mmha import checks
from mmha.data import brown as corpus
from mmha.data import shakespeare as works
from mmha.data import text

Document = tuple[str, ...]

_QUOTES = {"``": '"', "''": '"'}
_DOUBLED = (";", "?", "!")  # Brown ends a clause in two of them


def brown(paths: Iterable[Path]) -> list[Document]:
    """The files of the Brown corpus, a document each, with the marks of a keyboard: " for `` and '', ; for ; ;."""
    return [tuple(_as_typed(sentence.words) for sentence in corpus.read([path])) for path in paths]


def shakespeare(paths: Iterable[Path]) -> list[Document]:
    """The scenes of the works, a document each; what stands before the first scene, the persons, is one too."""
    return [found for work in works.read(paths) for scene in works.scenes(work) if (found := _sentences(scene))]


def plain(content: str) -> list[Document]:
    """Plain text: a document ends where two or more lines in a row are empty, as between chapters.

    >>> plain("One. And two.\\n\\nThree\\ngoes on.\\n\\n\\nA new chapter!")
    [('One .', 'And two .', 'Three goes on .'), ('A new chapter !',)]
    """
    chapters: list[list[str]] = [[]]
    empty = 0
    for line in content.splitlines():
        empty = 0 if line.strip() else empty + 1
        if empty == 2:
            chapters.append([])
        chapters[-1].append(line)
    return [found for chapter in chapters if (found := _sentences("\n".join(chapter)))]


def lines(content: str) -> list[Document]:
    """One sentence a line: a document ends at an empty line.

    >>> lines("One.\\nTwo.\\n\\nAnother document.\\n")
    [('One.', 'Two.'), ('Another document.',)]
    """
    found: list[list[str]] = [[]]
    for line in io.StringIO(content, newline=None):  # at the ends of lines alone, not at U+2028 and the like
        if line.strip():
            found[-1].append(" ".join(line.split()))
        elif found[-1]:
            found.append([])
    return [tuple(document) for document in found if document]


def split(documents: Sequence[Document]) -> tuple[list[Document], list[Document], list[Document]]:
    """(train, dev, test): a tenth of the documents, at least two, is test, as many dev, spread evenly.

    Two, because a next sentence is told from one of another document of the same part.

    Raises: ValueError for fewer than 6 documents, two a part.

    >>> train, dev, test = split([(str(i),) for i in range(20)])
    >>> len(train), dev, test
    (16, [('1',), ('11',)], [('0',), ('10',)])
    """
    count = len(documents)
    checks.require(count >= 6, "documents", "at least 6, two each to train on, to choose on and to test", count)
    held = max(2, count // 10)
    test = {number * count // held for number in range(held)}
    dev = {number + 1 for number in test}
    train = [document for i, document in enumerate(documents) if i not in test | dev]
    return train, [documents[i] for i in sorted(dev)], [documents[i] for i in sorted(test)]


def _as_typed(words: Sequence[str]) -> str:
    once = (word for word, before in zip(words, ("", *words), strict=False) if word != before or word not in _DOUBLED)
    return " ".join(_QUOTES.get(word, word) for word in once)


def _sentences(content: str) -> Document:
    return tuple(" ".join(words) for words in text.sentences(content))
