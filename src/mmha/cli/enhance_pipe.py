"""What `mmha enhance` does with raw samples in pipes: each piece goes on as soon as it can, in bounded memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np

from mmha import checks
from mmha.cli.enhance import PIPE
from mmha.cli.enhance_files import Samples, Source, pass_on, report, to_file
from mmha.cli.files import writable
from mmha.data import sound

if TYPE_CHECKING:
    from mmha.models.mhanet import Enhancer

# numpy's name, and what full scale is.
FORMATS = {"s16le": ("<i2", 2.0**15, "PCM_16"), "s32le": ("<i4", 2.0**31, "PCM_32"), "f32le": ("<f4", 1.0, "FLOAT")}
AT_A_TIME = 1024  # samples over which e^(n/0.2 s) stays small
PIECE = 1 << 16  # bytes that are taken at a time at most; a live stream brings fewer
RECOVERY = 0.2  # seconds in which a sound that was turned down comes back by a factor e


@dataclass(frozen=True)
class Raw:
    """Samples without a header: one of `FORMATS`, Hz, channels side by side. Raises: ValueError for others."""

    format: str
    rate: int
    channels: int

    def __post_init__(self) -> None:
        checks.one_of("--format", self.format, tuple(FORMATS))
        checks.integer("--rate", self.rate, 1)
        checks.integer("--channels", self.channels, 1)

    @property
    def frame(self) -> int:
        """Bytes of one sample of all channels."""
        return np.dtype(FORMATS[self.format][0]).itemsize * self.channels

    def decode(self, data: bytes) -> Samples:
        """Bytes → float32 (n, channels)."""
        name, full, _ = FORMATS[self.format]
        with np.errstate(invalid="ignore"):  # NaN is told as such
            return (np.frombuffer(data, name) / full).astype(np.float32).reshape(-1, self.channels)

    def encode(self, block: Samples) -> bytes:
        """The way back; what has been limited to full scale fits."""
        name, full, _ = FORMATS[self.format]
        if full == 1.0:
            return block.astype(name).tobytes()
        return np.rint(block * np.float64(full)).clip(-full, full - 1).astype(name).tobytes()


class Limiter:
    """Turns a sound down as far as a sample beyond full scale asks, at once, and up again slowly.

    g[n] = 1 − max over m ≤ n of (1 − 1/max(1, |x[m]|)) · e^(−(n−m)/(0.2 s)), over the loudest channel: |g[n]·x[n]| ≤ 1.

    >>> Limiter(16000).limit(np.array([[0.5], [2.0], [0.5]], np.float32)).round(2).T
    array([[0.5 , 1.  , 0.25]], dtype=float32)
    """

    def __init__(self, rate: int) -> None:
        self.step, self.down = 1 / (RECOVERY * rate), 0.0

    def limit(self, block: Samples) -> Samples:
        """More of the sound, float32 (n, channels), in pieces of any size."""
        pieces = [block[at : at + AT_A_TIME] for at in range(0, len(block), AT_A_TIME)]
        return np.concatenate([self._piece(piece) for piece in pieces]) if pieces else block

    def _piece(self, block: Samples) -> Samples:
        wanted = 1 - 1 / np.maximum(1.0, np.abs(block).max(1).astype(np.float64))
        if not self.down and not wanted.any():
            return block
        grown = np.exp(self.step * np.arange(1, len(block) + 1))
        down = np.maximum.accumulate(np.concatenate([[self.down], wanted * grown]))[1:] / grown
        self.down = float(down[-1]) if down[-1] > 1e-5 else 0.0
        limited: Samples = (block * (1 - down)[:, None]).astype(np.float32)
        return limited


def run(enhancer: Enhancer, noisy: str, clean: str, raw: Raw, json: bool) -> int:
    """Clean what comes in, to its end; the exit code is 0. A file on either side is what it is elsewhere."""
    target = None if clean == PIPE else Path(clean)
    if noisy == PIPE:
        checks.require(not sys.stdin.isatty(), "NOISY", "raw samples in a pipe", "a terminal")
    if target is None:
        checks.require(not sys.stdout.isatty(), "CLEAN", "a pipe or a file for raw samples", "a terminal")
    writable("CLEAN", target)
    with ExitStack() as stack:
        if noisy == PIPE:
            source: Source = _Input(cast("BufferedReader", sys.stdin.buffer), raw)
        else:
            source = stack.enter_context(sound.Reader(Path(noisy)))
        if target is None:
            pass_on(enhancer, noisy, source, _Output(sys.stdout.buffer, raw.format, source.info).write)
            return 0
        row = to_file(enhancer, noisy, source, target)
    report(enhancer, [row], json)
    return 0


class _Input:
    """Raw samples from a pipe, as a `Reader` gives those of a file."""

    def __init__(self, stream: BufferedReader, raw: Raw) -> None:
        self.stream, self.raw = stream, raw
        self.info = sound.Info(raw.rate, raw.channels, 0, "RAW", FORMATS[raw.format][2])

    def blocks(self) -> Iterator[Samples]:
        """What has come in, as soon as there is any."""
        held = b""
        while data := self.stream.read1(PIECE):
            held += data
            whole = len(held) - len(held) % self.raw.frame
            if whole:
                yield self.raw.decode(held[:whole])
            held = held[whole:]
        if held:
            expected = f"whole samples of {self.raw.frame} bytes ({self.raw.format}, {self.raw.channels} channels)"
            raise ValueError(f"standard input: expected {expected}, got {len(held)} bytes at its end")


class _Output:
    """Raw samples into a pipe; a piece waits for no other."""

    def __init__(self, stream: BinaryIO, format: str, info: sound.Info) -> None:
        self.stream, self.raw = stream, Raw(format, info.rate, info.channels)
        self.limiter = Limiter(info.rate) if FORMATS[format][1] != 1.0 else None

    def write(self, block: Samples) -> None:
        self.stream.write(self.raw.encode(block if self.limiter is None else self.limiter.limit(block)))
        self.stream.flush()
