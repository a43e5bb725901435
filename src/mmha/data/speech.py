"""Voices and noises to train a speech enhancer on, to choose on and to report on: which files, and their samples.

Of the sets that mmha fetches, the Italian man is what is reported on; of the eight other voices, two of them men's, one
file in twenty is chosen on. The noises of a town are held out by kind, so that every clip of traffic, of a
market, of trains, of windmills and of crowds is heard for the first time when reporting. No clip of one part repeats
one of another part (the set holds three clips twice). Of folders of one's own, one file in ten is chosen on.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmha.data import sound

RATE = 16000  # Hz
Samples = NDArray[np.int16]

VOICES = ("prompts-en", "prompts-fr", "prompts-es", "prompts-ru", "dialogues-cs", "dialogues-nl")
TEST_VOICE = "prompts-it"
NOISES = ("city-noise", "ambience")
TEST_KINDS = (
    "TraficHigh", "TraficLow", "MarketEmpty", "MarketFull", "MarketLow", "MarketMed", "RailTrain", "WindMill",
    "SportsCroud",
)  # fmt: skip
DEV_KINDS = ("IndustryHigh", "IndustryLight", "Mill", "School")
DEV_VOICES, DEV_OWN = 0.05, 0.1  # shares of files that are chosen on
SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".g722")


class Split(NamedTuple):
    """Files to train on, to choose on and to report on."""

    train: list[Path]
    dev: list[Path]
    test: list[Path]


def files(folder: Path) -> list[Path]:
    """The sound files below a folder, in the order of their names; prompts of silence (`silence/`) are left out.

    Raises: ValueError when there are none.
    """
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.parent.name != "silence")
    if not found:
        raise ValueError(f"{folder}: expected a folder with sound files ({', '.join(SUFFIXES)}), got none")
    return found


def voices(folders: Mapping[str, Path]) -> Split:
    """The split of `VOICES` and `TEST_VOICE`. Args: folders, of each set by its name."""
    parts = [_share(folders[name], DEV_VOICES) for name in VOICES]
    return Split(
        [path for train, _ in parts for path in train],
        [path for _, dev in parts for path in dev],
        files(folders[TEST_VOICE]),
    )


def noises(folders: Mapping[str, Path]) -> Split:
    """The split of `NOISES`. Args: folders, of each set by its name."""
    town = files(folders["city-noise"])
    ambience = files(folders["ambience"] / "sounds")
    return Split(
        [path for path in town if kind(path) not in TEST_KINDS + DEV_KINDS] + ambience,
        [path for path in town if kind(path) in DEV_KINDS],
        [path for path in town if kind(path) in TEST_KINDS],
    )


def kind(path: Path) -> str:
    """What a clip of noise is of: its name without the number.

    >>> kind(Path("RailTrain2.wav"))
    'RailTrain'
    """
    return re.sub(r"\d+$", "", path.stem)


def own(folders: Sequence[Path]) -> Split:
    """The files of folders of one's own; none are reported on, and one is chosen on at least.

    Raises: ValueError when there are fewer than two.
    """
    parts = [_share(folder, DEV_OWN) for folder in folders]
    train, dev = [path for train, _ in parts for path in train], [path for _, dev in parts for path in dev]
    if len(train) + len(dev) < 2:
        names = ", ".join(map(str, folders))
        raise ValueError(f"{names}: expected two sound files or more, to train on and to choose on, got one")
    if not dev:
        dev = [train.pop()]
    if not train:
        train = [dev.pop()]
    return Split(train, dev, [])


def load(paths: Iterable[Path], report: Callable[[], None] = lambda: None) -> list[Samples]:
    """The samples of files at 16 kHz, channels averaged, in 16 bits: an hour takes 115 MB.

    Args: report, called after each file.
    Raises: ValueError or OSError naming a file that cannot be read; ImportError naming the extra.
    """
    loaded = []
    for path in paths:
        mono = sound.read(path, RATE).mean(axis=0, dtype=np.float64)
        loaded.append(np.rint(mono * 32768).clip(-32768, 32767).astype(np.int16))
        report()
    return [samples for samples in loaded if samples.any()]


def digest(parts: Sequence[Sequence[Samples]]) -> str:
    """Sixteen hexadecimal digits of what was loaded: other sounds, or another order, give others."""
    whole = hashlib.sha256()
    for part in parts:
        for samples in part:
            whole.update(len(samples).to_bytes(8, "little"))
            whole.update(samples.tobytes())
    return whole.hexdigest()[:16]


def _share(folder: Path, share: float) -> tuple[list[Path], list[Path]]:
    """The files of a folder without so many of them, and these, by a digest of their names."""
    parts: tuple[list[Path], list[Path]] = ([], [])
    for path in files(folder):
        name = path.relative_to(folder).as_posix()
        place = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 2**32
        parts[place < share].append(path)
    return parts
