"""A text file read line by line, however long it is: what a command that works on lines streams through."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO

LONGEST = 1 << 20  # bytes of a line that are kept; what follows them is skipped
AT_ONCE, LETTERS = 4096, 1 << 22  # lines, and letters in them, that are held at a time


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
