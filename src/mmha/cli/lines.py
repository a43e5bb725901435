"""What a command that works on lines is given: texts, or the lines of a file, which may be longer than memory."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO

LONGEST = 1 << 20  # bytes of a line that are kept; what follows them is skipped
AT_ONCE, LETTERS = 4096, 1 << 22  # lines, and letters in them, that are held at a time


def given(texts: Sequence[str], file: Path | None, example: str) -> tuple[list[str], list[str]]:
    """What messages call each text, and the texts: the arguments, or the lines of the file or of standard input.

    Raises: ValueError when there are both or neither, which names an example, or for text that is not UTF-8; OSError
        when the file cannot be read.
    """
    from mmha.data import text

    expect_one(texts, file, example)
    if texts:
        return named(texts), list(texts)
    content = text.read(file) if file else text.decode(sys.stdin.buffer.read(), "standard input")
    lines = content.removesuffix("\n").split("\n")
    name = str(file) if file else "standard input"
    return [f"{name}, line {i + 1}" for i in range(len(lines))], [line.removesuffix("\r") for line in lines]


def streamed(texts: Sequence[str], file: Path | None, example: str) -> Iterator[tuple[list[str], list[str]]]:
    """The same, some thousand at a time, of input of any length; a line that is longer than `LONGEST` is refused.

    Raises: as `given`, but when reading comes to it for what the lines hold.
    """
    expect_one(texts, file, example)
    if texts:
        return iter([(named(texts), list(texts))])
    return _numbered(file)


def _numbered(file: Path | None) -> Iterator[tuple[list[str], list[str]]]:
    name, number = str(file) if file else "standard input", 1
    with nullcontext(sys.stdin.buffer) if file is None else file.open("rb") as stream:
        for lines in chunks(stream, name, whole=True):
            yield [f"{name}, line {number + i}" for i in range(len(lines))], lines
            number += len(lines)


def expect_one(texts: Sequence[str], file: Path | None, example: str) -> None:
    """Raise ValueError when there are texts and a file, or neither and nobody but a terminal to read from."""
    if texts and file is not None:
        raise ValueError("--file: expected it without TEXT, got both")
    if not texts and file is None and sys.stdin.isatty():
        raise ValueError(f"text: expected a text, a file or standard input, got none: try {example}")


def named(texts: Sequence[str]) -> list[str]:
    """What messages call texts that are arguments."""
    return ["text"] if len(texts) == 1 else [f"text {i + 1}" for i in range(len(texts))]


def chunks(
    stream: BinaryIO, name: str, read: Callable[[int], object] = lambda size: None, whole: bool = False
) -> Iterator[list[str]]:
    """The lines of a UTF-8 stream, without their ends, some thousand at a time; `read` is told the bytes of each chunk.

    Raises: ValueError when it is binary or not UTF-8 or, where lines must be `whole`, one is longer than `LONGEST`;
        naming the line.
    """
    held: list[str] = []
    letters = size = number = 0
    while line := stream.readline(LONGEST):
        number, size = number + 1, size + len(line)
        ended = line.endswith(b"\n")
        rest = line
        while not rest.endswith(b"\n") and (rest := stream.readline(LONGEST)):
            size += len(rest)
            if whole:
                raise ValueError(f"{name}, line {number}: expected at most {LONGEST} bytes, got more")
        held.append(_decoded(line, name, number, len(line) < LONGEST or ended))
        letters += len(held[-1])
        if len(held) >= AT_ONCE or letters >= LETTERS:
            yield held
            read(size)
            held, letters, size = [], 0, 0
    if held:
        yield held
        read(size)


def _decoded(line: bytes, name: str, number: int, whole: bool) -> str:
    """A line as text; one that was cut off may end inside a letter."""
    import codecs

    if b"\0" in line:
        raise ValueError(f"{name}: expected UTF-8 text, got a binary file (a zero byte in line {number})")
    decoder = codecs.getincrementaldecoder("utf-8-sig" if number == 1 else "utf-8")()
    try:
        return decoder.decode(line, final=whole).removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise ValueError(f"{name}: expected UTF-8 text, got byte 0x{byte:02x} in line {number}") from None
