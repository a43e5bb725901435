"""What `mmha enhance` does with files: one, or all of a folder, each by blocks in bounded memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from mmha import checks
from mmha.cli.files import writable
from mmha.cli.printing import console, print_json, worded
from mmha.data import sound
from mmha.models.mhanet import Recording

if TYPE_CHECKING:
    from mmha.models.mhanet import Enhancer

Samples = NDArray[np.float32]
Told = Callable[[float], object]


class Source(Protocol):
    """What a sound is read from, block by block: a file's `Reader`, or a pipe."""

    info: sound.Info

    def blocks(self) -> Iterator[Samples]:
        """float32 (n, channels) from the beginning to the end."""


SHORT = 30.0  # seconds of sound for which no bar is drawn


def run(enhancer: Enhancer, noisy: Path, clean: Path, plot: Path | None, json: bool) -> int:
    """Clean a file or a folder and say what was done; the exit code is 2 when a file of a folder could not be."""
    if noisy.is_dir():
        checks.require(plot is None, "--plot", "it with a file", "it with a folder")
        rows = list(_folder(enhancer, noisy, clean))
        checks.require(bool(rows), "NOISY", f"a folder with sound files ({', '.join(sound.ENDINGS)})", str(noisy))
    else:
        target = clean / _name(noisy) if clean.is_dir() else clean
        writable("CLEAN", target)
        with _bar(_seconds(noisy)) as told:
            rows = [one(enhancer, noisy, target, told)]
        if plot is not None:
            from mmha.cli.enhance_plot import draw

            draw(enhancer, noisy, target, plot)
            rows[0]["plot"] = str(plot)
    report(enhancer, rows, json)
    return 2 if any("error" in row for row in rows) else 0


def one(enhancer: Enhancer, noisy: Path, clean: Path, told: Told = lambda seconds: None) -> dict[str, Any]:
    """Clean a file; `told` hears of the seconds that are done. Returns what was done, as JSON values."""
    with sound.Reader(noisy) as reader:
        return to_file(enhancer, str(noisy), reader, clean, told)


def to_file(
    enhancer: Enhancer, name: str, source: Source, clean: Path, told: Told = lambda seconds: None
) -> dict[str, Any]:
    """Clean what comes from a file or a pipe into a file. Returns what was done, as JSON values."""
    start = time.perf_counter()
    info = source.info
    with checks.renamed(output="CLEAN"), sound.Writer(clean, info) as writer:
        pass_on(enhancer, name, source, writer.write, told)
    return {
        "noisy": name,
        "clean": str(clean),
        "rate": info.rate,
        "channels": info.channels,
        "samples": writer.count,
        "seconds": writer.count / info.rate,
        "coding": writer.subtype,
        "peak": writer.peak,
        "lowered_db": writer.lowered,
        "took_seconds": time.perf_counter() - start,
    }


def pass_on(
    enhancer: Enhancer, name: str, source: Source, write: Callable[[Samples], object], told: Told = lambda seconds: None
) -> None:
    """Block by block from the source through the network to `write`."""
    rate, channels = source.info.rate, source.info.channels
    with checks.renamed(**{part: f"{name}: {part}" for part in ("channels", "rate", "sound")}):
        recording = Recording(enhancer, rate, channels)
        for block in source.blocks():
            write(recording.push(torch.from_numpy(block.T)).T.numpy())
            told(len(block) / rate)
        write(recording.finish().T.numpy())


def _folder(enhancer: Enhancer, noisy: Path, clean: Path) -> Iterator[dict[str, Any]]:
    """Each sound file below `noisy` to the same place below `clean`; one that fails is told, and the next is done."""
    within = clean.resolve()
    checks.require(within != noisy.resolve(), "CLEAN", "another folder than NOISY", str(clean))
    checks.require(not clean.is_file(), "CLEAN", "a folder, as NOISY is one", str(clean))
    files = sorted(path for path in noisy.rglob("*") if path.is_file() and path.suffix.lower() in sound.ENDINGS)
    files = [path for path in files if within not in path.resolve().parents]
    with _bar(sum(map(_seconds, files))) as told:
        for path in files:
            target = clean / path.relative_to(noisy).with_name(_name(path))
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                yield one(enhancer, path, target, told)
            except (ValueError, TypeError, OSError) as error:
                console(stderr=True).print(f"mmha: {worded(error)}", markup=False)
                yield {"noisy": str(path), "error": worded(error)}


def _name(path: Path) -> str:
    """What a cleaned file is called."""
    return f"{path.stem}{sound.output_suffix(path)}"


def _seconds(path: Path) -> float:
    """How long a file is, for the bar; 0 where that is not known."""
    try:
        return sound.info(path).seconds
    except (ValueError, OSError):
        return 0.0  # said when it is its turn


@contextmanager
def _bar(seconds: float) -> Iterator[Told]:
    """A bar on a terminal with the time left, for what is long; hears of seconds of sound that are done."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    err = console(stderr=True)
    text = TextColumn("{task.description}")
    columns = (text, BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), TextColumn("left"))
    shown = err.is_terminal and seconds > SHORT
    with Progress(*columns, console=err, disable=not shown, transient=True) as progress:
        task = progress.add_task("cleaning", total=seconds)
        yield lambda done: progress.advance(task, done)


def report(enhancer: Enhancer, rows: list[dict[str, Any]], json: bool) -> None:
    """What was done: a line a file, or JSON."""
    if json:
        print_json({"gain": enhancer.gain, "window": enhancer.window, "files": rows})
        return
    out = console()
    for row in rows:
        if "error" in row:
            continue
        speed = row["seconds"] / max(1e-3, row["took_seconds"])
        lowered = f", made {row['lowered_db']:.1f} dB quieter so that nothing clips" if row["lowered_db"] else ""
        out.print(f"{row['clean']}: {_time(row['seconds'])} of sound, {speed:.0f} x real time{lowered}", markup=False)
        if "plot" in row:
            out.print(f"wrote {row['plot']}", markup=False)
    failed = sum("error" in row for row in rows)
    if len(rows) > 1 or failed:
        out.print(f"{len(rows) - failed} of {len(rows)} files cleaned", markup=False)


def _time(seconds: float) -> str:
    """Hours and minutes where there are any.

    >>> _time(7.25), _time(61), _time(10805)
    ('7.2 s', '1 min 01 s', '3 h 00 min 05 s')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if not minutes and not hours:
        return f"{seconds:.1f} s"
    return f"{hours} h {minutes:02} min {rest:02} s" if hours else f"{minutes} min {rest:02} s"
