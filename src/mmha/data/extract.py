"""Taking chosen files out of an archive that is not trusted.

Only regular files are written, only below the target, with ordinary permissions, and never more bytes than announced:
a link, a device, an absolute path, a `..` or an archive that swells is refused.
"""

from __future__ import annotations

import stat
import struct
import subprocess
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO

_CHUNK = 1 << 20
# RuntimeError: a member that is encrypted, or packed in an unknown way; IndexError: one without a name.
_DAMAGED = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, IndexError,
    UnicodeError,
)  # fmt: skip


def extract(archive: Path, target: Path, inside: str, keep: Sequence[str], limit: int) -> None:
    """Write the files below `inside` that match a pattern of `keep` into `target`, which is made when it is not there.

    Args: archive a .tgz, .tar.gz, .zip, .whl or .deb; limit the most bytes that all files together may have.
    Raises: ValueError for another kind of file, a damaged one, a path that leaves the target, or too many bytes.
    """
    target.mkdir(exist_ok=True)
    room = limit
    try:
        for name, stream in _members(archive):
            relative = _inside(name, inside)
            if relative is not None and any(fnmatchcase(relative.as_posix(), pattern) for pattern in keep):
                room = _write(stream, target / relative, room, limit)
    except _DAMAGED as error:
        raise ValueError(f"expected a whole archive, got a damaged one: {archive.name} ({error})") from None


def _inside(name: str, folder: str) -> PurePosixPath | None:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in path.as_posix().partition("/")[0]:
        raise ValueError(f"expected paths inside the package, got {name!r}; nothing was kept")
    return path.relative_to(folder) if path.is_relative_to(folder) and path != PurePosixPath(folder) else None


def _write(stream: IO[bytes], path: Path, room: int, limit: int) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as out:
        while chunk := stream.read(_CHUNK):
            room -= len(chunk)
            if room < 0:
                raise ValueError(f"expected at most {limit:,} bytes of files, got more; nothing was kept")
            out.write(chunk)
    return room


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    name = archive.name
    if name.endswith((".tgz", ".tar.gz")):
        yield from _tar_members(archive)
    elif name.endswith((".zip", ".whl")):
        yield from _zip_members(archive)
    elif name.endswith(".deb"):
        yield from _deb_members(archive)
    else:
        raise ValueError(f"expected a .tgz, .tar.gz, .zip, .whl or .deb file, got {name}")


def _tar_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            stream = tar.extractfile(member) if member.isreg() else None
            if stream is not None:
                yield member.name, stream


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(archive) as packed:
        for info in packed.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if not info.is_dir() and kind in (0, stat.S_IFREG):
                with packed.open(info) as stream:
                    yield info.filename, stream


def _deb_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """A .deb holds a tar that dpkg-deb writes to its output, so that nothing lands on the disk unseen."""
    with tempfile.TemporaryFile() as tape:
        done = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=tape, check=False)
        if done.returncode:
            raise ValueError(f"expected a whole archive, got a damaged one: {archive.name}")
        tape.seek(0)
        with tarfile.open(fileobj=tape, mode="r:") as tar:
            for member in tar:
                stream = tar.extractfile(member) if member.isreg() else None
                if stream is not None:
                    yield member.name.removeprefix("./"), stream
