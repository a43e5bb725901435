"""Plain text into sentences and words, the way the Brown corpus cuts them.

Words are cut at white space, then punctuation comes off their ends. `don't`, `I'll`, `man's`, `1961-62` and `U.S.`
stay whole, as in Brown. A sentence ends at `.`, `?` or `!` (quotes and brackets after it belong to it) and at an
empty line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

_OPEN = "([{<\"“‘«„`¿¡'"
_CLOSE = ")]}>\"”’»'"
_STOP = ".?!…"
_AFTER = ",;:" + _STOP + _CLOSE
_SHORT = frozenset(
    """mr. mrs. ms. dr. prof. st. jr. sr. rev. gen. col. capt. lt. sgt. gov. sen. rep. pres. hon. messrs. mt. ft. co.
    corp. inc. ltd. no. vs. etc. e.g. i.e. a.m. p.m. jan. feb. mar. apr. jun. jul. aug. sept. sep. oct. nov. dec. vol.
    fig. pp. cf. al.""".split()  # noqa: SIM905
)
_INITIALS = re.compile(r"(?:[^\W\d_]\.)+")
_DASHES = re.compile(r"(--+|—|–(?!\d)|\.\.\.)")
_EDGE_APOSTROPHE = re.compile(r"['’](?:\d0s|tis|twas|em|til|cause|bout|round)\b.*", re.IGNORECASE)


def read(path: Path) -> str:
    """The text of a UTF-8 file, a byte-order mark taken off.

    Raises: ValueError when the file is binary or not UTF-8, naming the byte; OSError when it cannot be read.
    """
    return decode(path.read_bytes(), str(path))


def decode(data: bytes, name: str) -> str:
    """Bytes as UTF-8 text.

    >>> decode(b"caf\\xe9", "menu.txt")
    Traceback (most recent call last):
    ...
    ValueError: menu.txt: expected UTF-8 text, got byte 0xe9 at offset 3 (line 1)
    """
    if (zero := data.find(b"\0")) >= 0:
        raise ValueError(f"{name}: expected UTF-8 text, got a binary file (a zero byte at offset {zero})")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{name}: expected UTF-8 text, got byte 0x{data[error.start]:02x} at offset {error.start} (line {line})"
        ) from None


def sentences(text: str) -> Iterator[tuple[str, ...]]:
    """The sentences of a text, each the tuple of its words.

    >>> list(sentences('"I saw a saw," said Mr. Hill. He did!'))
    [('"', 'I', 'saw', 'a', 'saw', ',', '"', 'said', 'Mr.', 'Hill', '.'), ('He', 'did', '!')]
    """
    words: list[str] = []
    ended = False
    for line in text.splitlines():
        if not line.strip():
            if words:
                yield tuple(words)
            words, ended = [], False
        for chunk in line.split():
            if ended:
                yield tuple(words)
                words, ended = [], False
            found = tokens(chunk)
            words += found
            # Only marks may follow the stop: `(Why?)` ends a sentence, `Yahoo!'s` and `yes!--no` do not.
            ends = reversed([word for word in found if not all(c in _CLOSE for c in word)])
            last = next(ends, "")
            ended = bool(last) and last != "..." and all(c in _STOP for c in last)
    if words:
        yield tuple(words)


def tokens(chunk: str) -> list[str]:
    """The words in a stretch of text without white space.

    >>> tokens("(don't,"), tokens("U.S."), tokens("yes--no"), tokens("3.5%.")
    (['(', "don't", ','], ['U.S.'], ['yes', '--', 'no'], ['3.5%', '.'])
    """
    return [word for part in _DASHES.split(chunk) if part for word in _edges(part)]


def _edges(part: str) -> list[str]:
    if _DASHES.fullmatch(part):
        return [part]
    start, end = 0, len(part)
    while start < end and part[start] in _OPEN and not _EDGE_APOSTROPHE.fullmatch(part, start):
        start += 1
    ends: list[str] = []
    while end > start and part[end - 1] in _AFTER and not _keeps_stop(part[start:end]):
        end -= 1
        ends.append(part[end])
    body = [part[start:end]] if end > start else []
    return [*_marks(part[:start]), *body, *_marks("".join(reversed(ends)))]


def _keeps_stop(word: str) -> bool:
    """Whether the full stop at the end is part of the word: Mr., U.S., J."""
    return word[-1] == "." and (word.lower() in _SHORT or (_INITIALS.fullmatch(word) is not None and word != "I."))


def _marks(marks: str) -> list[str]:
    """Single marks, with '' and `` (and repeated stops) kept together."""
    return re.findall(r"''|``|[.?!…]+|.", marks)
