"""Whether a sound file has all the bytes that it says it has: libsndfile gives what is there and says nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO, Literal

# Written by programs that send a file into a pipe and do not know its length yet.
UNKNOWN = 0x7FFF0000
PAGE = 65307  # bytes of an Ogg page at most


def missing(path: Path) -> str:
    """What is missing at the end of a WAV, AIFF, W64, CAF, AU or OGG file, as words; empty when nothing is, or it is
    another kind."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(24)
        if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
            return _chunks(stream, size, "little", b"data")
        if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
            return _chunks(stream, size, "big", b"SSND")
        if head[:4] == b"riff":
            return _lost(int.from_bytes(head[16:], "little"), size)
        if path.suffix.lower() in (".au", ".snd") and head[:4] not in (b".snd", b"dns."):
            return "it has no header"  # libsndfile would take whatever it is for samples
        if head[:4] == b".snd":
            start, length = (int.from_bytes(head[at : at + 4], "big") for at in (4, 8))
            return _lost(length, size - start) if length != 0xFFFFFFFF else ""
        if head[:4] == b"caff":
            return _caf_chunks(stream, size)
        return _pages(stream, size) if head[:4] == b"OggS" else ""


def _lost(wanted: int, there: int) -> str:
    return f"{wanted - max(0, there)} of {wanted} bytes are missing" if there < wanted else ""


def _chunks(stream: BinaryIO, size: int, order: Literal["little", "big"], wanted: bytes) -> str:
    """The chunk of samples, which every other one may stand before, against the end of the file."""
    wide = 0
    stream.seek(12)
    while len(head := stream.read(8)) == 8:
        length = int.from_bytes(head[4:], order)
        if head[:4] == b"ds64":  # the sizes of a file beyond 4 GB
            wide = int.from_bytes(stream.read(16)[8:], "little")
            stream.seek(length - 16, os.SEEK_CUR)
            continue
        if head[:4] == wanted:
            length = wide if length == 0xFFFFFFFF and wide else length
            there = size - stream.tell()
            return _lost(length, there) if wide or length < UNKNOWN else ""
        stream.seek(length + length % 2, os.SEEK_CUR)
    return "it ends before its samples"


def _caf_chunks(stream: BinaryIO, size: int) -> str:
    """The same for Core Audio, whose chunk of samples may have the length -1: to the end of the file."""
    stream.seek(8)
    while len(head := stream.read(12)) == 12:
        length = int.from_bytes(head[4:], "big", signed=True)
        if head[:4] == b"data":
            return _lost(length, size - stream.tell())
        stream.seek(min(max(0, length), size), os.SEEK_CUR)  # a file system has a furthest place, too
    return "it ends before its samples"


def _pages(stream: BinaryIO, size: int) -> str:
    """The last page: its header names the lengths of what is in it."""
    stream.seek(max(0, size - 2 * PAGE))
    rest = stream.read()
    at = rest.rfind(b"OggS")
    segments = rest[at + 26] if at >= 0 and at + 26 < len(rest) else 256
    lengths = rest[at + 27 : at + 27 + segments]
    whole = len(lengths) == segments and at + 27 + segments + sum(lengths) <= len(rest)
    return "" if whole else "its last page is not whole"
