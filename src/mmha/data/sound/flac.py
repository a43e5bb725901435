"""FLAC files without samples (RFC 9639, section 8), which libsndfile neither writes nor reads."""

from __future__ import annotations

from pathlib import Path

MARK = b"fLaC"


def empty(rate: int, channels: int, bits: int) -> bytes:
    """A file that says what it would hold, and ends.

    >>> len(empty(44100, 2, 24))
    42
    """
    facts = (rate << 44 | (channels - 1) << 41 | (bits - 1) << 36).to_bytes(8, "big")
    sizes = (4096).to_bytes(2, "big") * 2 + bytes(6)
    streaminfo = sizes + facts + bytes(16)
    return MARK + b"\x80" + len(streaminfo).to_bytes(3, "big") + streaminfo


def read_empty(path: Path) -> tuple[int, int, int] | None:
    """(rate, channels, bits) of a file without samples; None when it is another."""
    with path.open("rb") as stream:
        if stream.read(4) != MARK:
            return None
        facts = 0
        last = False
        while not last and len(head := stream.read(4)) == 4:
            last, block = bool(head[0] & 0x80), stream.read(int.from_bytes(head[1:], "big"))
            facts = int.from_bytes(block[10:18], "big") if head[0] & 0x7F == 0 and len(block) == 34 else facts
        claimed = facts & (1 << 36) - 1
        if not last or not facts or claimed or stream.read(1):
            return None
    return facts >> 44, (facts >> 41 & 7) + 1, (facts >> 36 & 31) + 1
