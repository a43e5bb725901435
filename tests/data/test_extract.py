"""Archives that try to write where they must not, or more than they said."""

from __future__ import annotations

import io
import re
import shutil
import stat
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from mmha.data.extract import extract


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def file(
    name: str, content: bytes = b"abc", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, 0o777
    return info, content if kind == tarfile.REGTYPE else b""


def test_only_the_chosen_regular_files_are_written(tmp_path: Path) -> None:
    archive = tar_of(
        tmp_path / "a.tgz",
        file("package/a.txt"),
        file("package/sub/b.txt", b"de"),
        file("package/c.bin"),
        file("other/a.txt"),
        file("package/link.txt", kind=tarfile.SYMTYPE, link="/etc/passwd"),
        file("package/hard.txt", kind=tarfile.LNKTYPE, link="package/a.txt"),
        file("package/pipe.txt", kind=tarfile.FIFOTYPE),
    )
    extract(archive, tmp_path / "out", "package", ("*.txt",), limit=5)
    written = sorted(p for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert [p.relative_to(tmp_path / "out").as_posix() for p in written] == ["a.txt", "sub/b.txt"]
    assert [p.read_bytes() for p in written] == [b"abc", b"de"]
    assert not any(p.stat().st_mode & stat.S_IXUSR for p in written)


@pytest.mark.parametrize(
    "name", ["../evil.txt", "package/../../evil.txt", "/evil.txt", "package\\..\\..\\evil.txt", "C:/evil.txt"]
)
def test_a_path_that_leaves_the_package_is_refused(tmp_path: Path, name: str) -> None:
    archive = tar_of(tmp_path / "a.tgz", file(name))
    with pytest.raises(ValueError, match="expected paths inside the package"):
        extract(archive, tmp_path / "out", "package", ("*.txt",), limit=99)
    assert not list(tmp_path.rglob("evil.txt"))


def test_more_bytes_than_announced_are_refused(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "a.tgz", file("package/a.txt", b"x" * 7), file("package/b.txt", b"x" * 7))
    with pytest.raises(ValueError, match="expected at most 13 bytes of files, got more"):
        extract(archive, tmp_path / "out", "package", ("*.txt",), limit=13)


def test_a_wheel_is_read_and_its_links_are_not(tmp_path: Path) -> None:
    archive = tmp_path / "a.whl"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("data/a.txt", b"abc")
        link = zipfile.ZipInfo("data/link.txt")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        packed.writestr(link, b"/etc/passwd")
    extract(archive, tmp_path / "out", "data", ("*",), limit=3)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a.txt"]


@pytest.mark.parametrize("name", ["a.tgz", "a.zip", "a.whl"])
@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x1f\x8b\x08\x00broken", b"PK\x03\x04broken"])
def test_a_damaged_archive_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"expected a whole archive, got a damaged one: {re.escape(name)}"):
        extract(tmp_path / name, tmp_path / "out", "package", ("*",), limit=9)


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    content = bytes(range(256)) * 999
    whole = tar_of(tmp_path / "a.tgz", file("package/a.txt", content)).read_bytes()
    (tmp_path / "a.tgz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="got a damaged one"):
        extract(tmp_path / "a.tgz", tmp_path / "out", "package", ("*",), limit=len(content))


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected a \.tgz, .* got a\.rar"):
        extract(tmp_path / "a.rar", tmp_path / "out", "package", ("*",), limit=9)


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed")
def test_a_debian_package_is_read(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        "Package: a\nVersion: 1\nArchitecture: all\nMaintainer: a <a@example.org>\nDescription: a\n"
    )
    (tree / "usr").mkdir()
    (tree / "usr" / "a.txt").write_text("abc")
    (tree / "usr" / "link.txt").symlink_to("/etc/passwd")
    subprocess.run(
        ["dpkg-deb", "--build", "-Znone", str(tree), str(tmp_path / "a.deb")], check=True, capture_output=True
    )
    extract(tmp_path / "a.deb", tmp_path / "out", "usr", ("*.txt",), limit=3)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a.txt"]
    (tmp_path / "b.deb").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"got a damaged one: b\.deb"):
        extract(tmp_path / "b.deb", tmp_path / "out2", "usr", ("*.txt",), limit=3)
