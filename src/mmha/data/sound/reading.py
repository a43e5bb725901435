"""Sound files in: what a file holds, all of it, or block by block."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmha.data.sound import flac
from mmha.data.sound.whole import missing
from mmha.resampling import HIGHEST, LOWEST, resample

Samples = NDArray[np.float32]
BLOCK = 1 << 14  # samples a channel that are held at a time
# What libsndfile does not read, and libav's name of it. Given by name, a file cannot choose a format that opens others.
CONTAINERS = {
    ".g722": "g722",
    ".m4a": "mov",
    ".mp4": "mov",
    ".aac": "aac",
    ".amr": "amr",
    ".wma": "asf",
    ".mka": "matroska",
    ".webm": "matroska",
}
#: Endings of files that are looked for in folders.
ENDINGS = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".w64", ".caf", ".au", *CONTAINERS)
KINDS = "sound (WAV, FLAC, OGG, MP3, AIFF, G.722 as .g722, ...)"


class Info(NamedTuple):
    """What a file says of itself: Hz, channels, samples a channel, and the names of its container and its coding.

    `frames` is what is read; but .aac, .amr, .wma, .mka and .webm say how long they are in time, and nearly.
    """

    rate: int
    channels: int
    frames: int
    format: str
    subtype: str

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.frames / self.rate


def info(path: Path) -> Info:
    """What the file holds.

    Raises: as `read`, but for NaN and for losses that only reading finds.
    """
    with Reader(path) as reader:
        return reader.info


def read(path: Path, rate: int | None = 16000) -> Samples:
    """The whole file, float32 (channels, N), resampled to `rate` Hz; None = its own.

    Raises: OSError when it cannot be opened, ValueError when it is no sound, is cut off or damaged, or holds NaN or
        infinity: one line that begins with the path. ImportError naming the extra.
    """
    with Reader(path) as reader:
        blocks = list(reader.blocks())
        found = np.concatenate(blocks) if blocks else np.zeros((0, reader.info.channels), np.float32)
        own = reader.info.rate
    return np.ascontiguousarray((found if rate is None else resample(found, own, rate)).T)


class Reader:
    """A sound file read block by block: memory does not grow with its length. Used by `with`.

    Raises: as `read`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        kind = path.stat().st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):  # it is opened more than once, and read from the end, too
            raise ValueError(f"{path}: expected a file on a disk, got a pipe or a device")
        with path.open("rb"):  # what is not there or may not be read is said by the system itself
            pass
        self._source = _source(path)
        self.info: Info = self._source.info
        if not LOWEST <= self.info.rate <= HIGHEST:
            self._source.close()
            raise ValueError(f"{path}: expected a sound of {LOWEST} to {HIGHEST} Hz, got {self.info.rate} Hz")

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._source.close()

    def blocks(self, size: int = BLOCK) -> Iterator[Samples]:
        """float32 (n, channels) from the beginning to the end, n about `size`, at most that from libsndfile."""
        done = 0
        for block in self._source.blocks(size):
            if not np.isfinite(block).all():
                at = done + int(np.argmin(np.isfinite(block).all(1)))
                where = f"in sample {at} ({at / self.info.rate:.3f} s)"
                raise ValueError(f"{self.path}: expected finite numbers, got NaN or infinity {where}")
            done += len(block)
            yield block
        if done < (self.info.frames if self._source.exact else min(1, self.info.frames)):
            raise ValueError(f"{self.path}: expected {self.info.frames} samples, got {done}: the file is cut off")


def _source(path: Path) -> _Sndfile | _Container | _Empty:
    if path.suffix.lower() in CONTAINERS:
        return _Container(path)
    empty = flac.read_empty(path)
    return _Sndfile(path) if empty is None else _Empty(Info(empty[0], empty[1], 0, "FLAC", f"PCM_{empty[2]}"))


class _Empty:
    """A FLAC file without samples, which libsndfile takes for none."""

    exact = True

    def __init__(self, info: Info) -> None:
        self.info = info

    def blocks(self, size: int) -> Iterator[Samples]:
        return iter(())

    def close(self) -> None:
        """Nothing was opened."""


class _Sndfile:
    """What libsndfile reads."""

    exact = True

    def __init__(self, path: Path) -> None:
        try:
            import soundfile
        except ImportError:
            raise ImportError('sound needs soundfile: pip install "mmha[speech]"') from None
        lost = missing(path)
        if lost:
            raise ValueError(f"{path}: expected a whole file, got one that is cut off: {lost}")
        self.path, self.error = path, soundfile.LibsndfileError
        try:
            self.file = soundfile.SoundFile(path.absolute())  # "-" alone would be standard input
        except soundfile.LibsndfileError as error:
            raise _no_sound(path, error) from None
        file = self.file
        self.info = Info(file.samplerate, file.channels, file.frames, file.format, file.subtype)

    def blocks(self, size: int) -> Iterator[Samples]:
        while True:
            try:
                block: Samples = self.file.read(size, dtype="float32", always_2d=True)
            except self.error as error:
                raise _damaged(self.path, error) from None
            if not len(block):
                return
            yield block

    def close(self) -> None:
        self.file.close()


class _Container:
    """What libav reads: the first track of sound in it."""

    def __init__(self, path: Path) -> None:
        try:
            import av
        except ImportError:
            raise ImportError(f'{path}: needs av: pip install "mmha[speech]"') from None
        self.path, self.av, self.name = path, av, CONTAINERS[path.suffix.lower()]
        self.exact = self.name == "g722"
        self.size = path.stat().st_size
        if self.exact:  # nothing but samples: half a byte each
            self.info = Info(16000, 1, 2 * self.size, "G722", "G722")
            return
        with self._opened() as container:
            track = self._track(container)
            seconds = float(track.duration * track.time_base) if track.duration else (container.duration or 0) / 1e6
            context = track.codec_context
            if context is None:
                raise ValueError(f"{path}: expected sound of a kind that libav decodes, got one that it does not know")
            count = round(seconds * context.sample_rate)
            self.info = Info(context.sample_rate, context.channels, count, self.name.upper(), context.name.upper())

    def blocks(self, size: int) -> Iterator[Samples]:
        if not self.size:
            return
        with self._opened() as container:
            change = self.av.AudioResampler(format="flt")
            frames = container.decode(self._track(container))
            left = self.info.frames if self.name == "mov" else None  # a codec's last frame is filled up
            while True:
                try:
                    frame = next(frames, None)
                except self.av.error.FFmpegError as error:
                    raise _damaged(self.path, error) from None
                if frame is None:
                    return
                for part in change.resample(frame):
                    block: Any = part.to_ndarray().reshape(-1, self.info.channels)[:left]
                    left = None if left is None else left - len(block)
                    yield block

    def close(self) -> None:
        """Nothing stays open between calls."""

    def _opened(self) -> Any:
        try:
            return closing(self.av.open(str(self.path.absolute()), format=self.name, metadata_errors="replace"))
        except self.av.error.FFmpegError as error:
            raise _no_sound(self.path, error) from None

    def _track(self, container: Any) -> Any:
        if not container.streams.audio:
            raise ValueError(f"{self.path}: expected a track of sound, got none")
        return container.streams.audio[0]


def _no_sound(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path}: expected {KINDS}, got another or a damaged file ({_why(error)})")


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path}: expected a whole file, got a damaged one ({_why(error)})")


def _why(error: Exception) -> str:
    """What a library says, without its full stop and the path that stands before it."""
    text = str(getattr(error, "error_string", None) or getattr(error, "strerror", None) or error)
    return text.strip().rstrip(".")
