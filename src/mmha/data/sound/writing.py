"""Sound files out: block by block, never clipped, there when whole and not before."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from mmha import checkpoint, checks
from mmha.data.sound import flac
from mmha.data.sound.reading import BLOCK, Info, Samples

# By a file's ending: what it may be inside, the usual one first.
FORMATS = {
    ".wav": ("WAV", "WAVEX", "RF64"),
    ".flac": ("FLAC",),
    ".ogg": ("OGG",),
    ".oga": ("OGG",),
    ".opus": ("OGG",),
    ".mp3": ("MP3",),
    ".aiff": ("AIFF",),
    ".aif": ("AIFF",),
    ".w64": ("W64",),
    ".caf": ("CAF",),
    ".au": ("AU",),
    ".g722": ("G722",),
}
WIDEST = 4_000_000_000  # bytes of samples in a WAV file; RF64 holds more
UNBOUNDED = ("FLOAT", "DOUBLE")  # codings in which samples beyond full scale are kept
FULL = 1 - 2.0**-15  # the largest sample of 16 bits


def output_suffix(path: Path) -> str:
    """The ending of the file that a cleaned `path` goes to: its own, or, where that can only be read, .wav behind it.

    >>> output_suffix(Path("a.flac")), output_suffix(Path("a.m4a"))
    ('.flac', '.m4a.wav')
    """
    own = path.suffix
    return own if own.lower() in FORMATS else f"{own}.wav"


class Writer:
    """A sound file of the rate, channels and, where its kind can hold it, the coding of `source`. Used by `with`.

    Codings other than float end at full scale. Samples that would not fit make the whole sound quieter by `lowered` dB,
    so that nothing is clipped: until its peak is known, it waits in a file beside `path`, as float32. An exception
    inside `with` leaves no file, and one that stood there before as it was.

    Args: path, by whose ending the format is chosen (`FORMATS`); source, what a `Reader` says.
    Raises: ValueError for another ending or a rate that the format does not have; OSError when it cannot be written.
    """

    lowered = 0.0

    def __init__(self, path: Path, source: Info) -> None:
        checks.require(
            path.suffix.lower() in FORMATS, "output", f"a file ending in {checks.listed(FORMATS)}", path.name
        )
        self.path, self.source = path, source
        self.format, self.subtype = _kind(path, source)
        if self.format == "G722":
            fits = (source.rate, source.channels) == (16000, 1)
            checks.require(fits, "output", "16000 Hz and one channel for G.722", f"{source.rate} Hz, {source.channels}")
        self.peak = 0.0
        self.count = 0

    def __enter__(self) -> Writer:
        with self._file(io.BytesIO()):  # a rate that the format does not have is said before the work
            pass
        self._part = checkpoint.part_of(self.path)
        self._waiting: IO[bytes] = tempfile.TemporaryFile(dir=self.path.parent)
        return self

    def write(self, block: Samples) -> None:
        """More: float32 (n, channels)."""
        self.peak = max(self.peak, float(np.abs(block).max(initial=0.0)))
        self.count += len(block)
        self._waiting.write(np.ascontiguousarray(block, np.float32).tobytes())

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._clean()

    def _clean(self) -> None:
        self._waiting.close()
        self._part.unlink(missing_ok=True)

    def _finish(self) -> None:
        holds_none = self.format != "MP3" and self.subtype != "OPUS"
        checks.require(self.count > 0 or holds_none, "output", "a format for sound without samples", self.path.name)
        if self.format in ("WAV", "WAVEX") and 8 * self.count * self.source.channels > WIDEST:
            self.format = "RF64"
        factor = 1.0
        if self.subtype not in UNBOUNDED and self.peak > FULL:
            factor = FULL / self.peak
            self.lowered = float(-20 * np.log10(factor))
        self._waiting.seek(0)
        with self._part.open("wb") as stream:
            self._encode(stream, self._blocks(factor))
            stream.flush()
            os.fsync(stream.fileno())
        self._part.replace(self.path)

    def _blocks(self, factor: float) -> Iterator[Samples]:
        channels = self.source.channels
        while data := self._waiting.read(4 * BLOCK * channels):
            block = np.frombuffer(data, np.float32).reshape(-1, channels)
            yield block if factor == 1.0 else block * np.float32(factor)

    def _encode(self, stream: IO[bytes], blocks: Iterator[Samples]) -> None:
        if self.format == "G722":
            _encode_g722(stream, blocks)
        elif self.format == "FLAC" and not self.count:
            bits = int(self.subtype.removeprefix("PCM_").removeprefix("S"))
            stream.write(flac.empty(self.source.rate, self.source.channels, bits))
        else:
            with self._file(stream) as file:
                for block in blocks:
                    file.write(block)

    def _file(self, stream: IO[bytes]) -> Any:
        import contextlib

        import soundfile

        if self.format == "G722":
            return contextlib.nullcontext()
        try:
            return soundfile.SoundFile(
                stream, "w", self.source.rate, self.source.channels, self.subtype, format=self.format
            )
        except soundfile.LibsndfileError:
            what = f"{self.source.rate} Hz, {self.source.channels} channels, {self.subtype}"
            raise checks.value_error("output", f"a format that holds {what}", self.path.name) from None


def _kind(path: Path, source: Info) -> tuple[str, str]:
    """Format and coding: those of the source where they fit the path's ending, else the usual ones."""
    import soundfile

    formats = FORMATS[path.suffix.lower()]
    if formats == ("G722",):
        return "G722", "G722"
    format = source.format if source.format in formats else formats[0]
    usual = "OPUS" if path.suffix.lower() == ".opus" else soundfile.default_subtype(format)
    subtype = source.subtype if soundfile.check_format(format, source.subtype) else usual
    return format, subtype


def _encode_g722(stream: IO[bytes], blocks: Iterator[Samples]) -> None:
    """Two samples a byte; an odd last one gets a partner of silence."""
    import av

    with av.open(stream, "w", format="g722") as container:
        track = container.add_stream("g722", rate=16000, layout="mono")
        done = 0
        for block in blocks:
            whole = np.pad(block[:, 0], (0, len(block) % 2))
            data = np.rint(whole * 32767).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(data, format="s16", layout="mono")
            frame.sample_rate, frame.pts = 16000, done
            done += len(whole)
            container.mux(track.encode(frame))
        container.mux(track.encode(None))
