"""What a command that works on lines is given: texts, or the lines of a file, which may be longer than memory."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
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

    if texts and file is not None:
        raise ValueError("--file: expected it without TEXT, got both")
    if texts:
        return (["text"] if len(texts) == 1 else [f"text {i + 1}" for i in range(len(texts))]), list(texts)
    if file is None and sys.stdin.isatty():
        raise ValueError(f"text: expected a text, a file or standard input, got none: try {example}")
    content = text.read(file) if file else text.decode(sys.stdin.buffer.read(), "standard input")
    lines = content.removesuffix("\n").split("\n")
    name = str(file) if file else "standard input"
    return [f"{name}, line {i + 1}" for i in range(len(lines))], [line.removesuffix("\r") for line in lines]


def chunks(stream: BinaryIO, name: str, read: Callable[[int], object] = lambda size: None) -> Iterator[list[str]]:
    """The lines of a UTF-8 stream, without their ends, some thousand at a time; `read` is told the bytes of each chunk.

    Raises: ValueError when it is binary or not UTF-8, naming the line.
    """
    held: list[str] = []
    letters = size = number = 0
    while line := stream.readline(LONGEST):
        number, size = number + 1, size + len(line)
        whole = line.endswith(b"\n")
        rest = line
        while not rest.endswith(b"\n") and (rest := stream.readline(LONGEST)):
            size += len(rest)
        held.append(_decoded(line, name, number, len(line) < LONGEST or whole))
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
