"""Fetching: all of a set or nothing, and one line that says what to do. The client here is `cp`, a real program."""

from __future__ import annotations

import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mmha.data import clients, registry
from mmha.data.extract import extract


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> registry.Entry:
    """A set of two files in an archive on this machine, with `cp` for a client."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "a.txt").write_text("abc")
    (package / "b.txt").write_text("defgh")
    with tarfile.open(tmp_path / "set.tgz", "w:gz") as tar:
        tar.add(package, "package")
    made = registry.Entry(
        name="set", what="two files", client="cp", package=str(tmp_path / "set.tgz"), version="1", licence="none",
        inside="package", keep=("*.txt",), size=8, files=2, checksum=registry.digest(package),
    )  # fmt: skip
    monkeypatch.setenv("MMHA_DATA", str(tmp_path / "data"))
    monkeypatch.setitem(registry.ENTRIES, "set", made)
    monkeypatch.setitem(clients.COMMANDS, "cp", lambda package, version: ["cp", package, "."])
    return made


def change(monkeypatch: pytest.MonkeyPatch, entry: registry.Entry, **other: object) -> None:
    monkeypatch.setitem(registry.ENTRIES, "set", registry.Entry(**{**vars(entry), **other}))  # type: ignore[arg-type]


def left(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def test_a_set_is_fetched_verified_and_found_again(entry: registry.Entry, tmp_path: Path) -> None:
    with pytest.raises(registry.DataError, match=r"set: .* is not here yet: run `mmha data get set`"):
        registry.path("set")
    said: list[str] = []
    folder = registry.get("set", said.append)
    assert folder == registry.path("set") == tmp_path / "data" / "set"
    assert left(folder) == ["a.txt", "b.txt"]
    assert left(tmp_path / "data") == ["set"]
    assert said == [f"fetching {entry.package} 1 with cp", "extracting set.tgz", "verifying"]
    (tmp_path / "set.tgz").unlink()  # what is here is not fetched again
    assert registry.get("set") == folder


def test_files_of_several_packages_lie_side_by_side(
    entry: registry.Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = tmp_path / "more"
    more.mkdir()
    (more / "c.txt").write_text("ij")
    with tarfile.open(tmp_path / "more.tgz", "w:gz") as tar:
        tar.add(more, "package")
    (tmp_path / "package" / "c.txt").write_text("ij")
    change(monkeypatch, entry, also=(str(tmp_path / "more.tgz"),), checksum=registry.digest(tmp_path / "package"))
    assert left(registry.get("set")) == ["a.txt", "b.txt", "c.txt"]
    assert left(tmp_path / "data") == ["set"]


@pytest.mark.parametrize("damaged", [False, True])
def test_many_may_fetch_one_set_at_a_time(entry: registry.Entry, tmp_path: Path, damaged: bool) -> None:
    if damaged:
        (registry.get("set") / "a.txt").write_text("abd")
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(registry.get, ["set"] * 8))
    assert folders == [registry.path("set")] * 8
    assert left(tmp_path / "data") == ["set"]


def test_changed_files_are_noticed_and_replaced(entry: registry.Entry, tmp_path: Path) -> None:
    folder = registry.get("set")
    (folder / "a.txt").write_text("abd")
    with pytest.raises(registry.DataError, match=r"set: .* was changed: run `mmha data get set`"):
        registry.path("set")
    registry.get("set")
    assert (folder / "a.txt").read_text() == "abc"
    assert left(tmp_path / "data") == ["set"]


def test_a_wrong_checksum_keeps_nothing(entry: registry.Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change(monkeypatch, entry, checksum="0" * 64)
    with pytest.raises(
        registry.DataError, match=r"^set: expected files of sha256 000000000000…, got .*nothing was kept"
    ):
        registry.get("set")
    assert left(tmp_path / "data") == []


def test_a_failing_client_is_quoted_and_keeps_nothing(
    entry: registry.Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(monkeypatch, entry, package="/nowhere.tgz")
    with pytest.raises(registry.DataError, match=r"^set: cp could not fetch it \(cp: .*nowhere.*\): check the network"):
        registry.get("set")
    assert left(tmp_path / "data") == []


def test_a_client_that_hangs_is_stopped(entry: registry.Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(clients.COMMANDS, "cp", lambda package, version: ["sleep", "60"])
    monkeypatch.setattr(clients, "TIMEOUT", 0.1)
    with pytest.raises(registry.DataError, match=r"cp did not finish in 0\.1 s"):
        registry.get("set")
    assert left(tmp_path / "data") == []


KILLED = """
from mmha.data import clients, registry
registry.ENTRIES["set"] = registry.Entry(**{entry})
clients.COMMANDS["cp"] = lambda package, version: ["sh", "-c", "kill -TERM $PPID; sleep 0.2"]
registry.get("set")
"""


def test_what_a_fetch_left_that_was_killed_is_removed_by_the_next(entry: registry.Entry, tmp_path: Path) -> None:
    died = subprocess.run([sys.executable, "-c", KILLED.format(entry=vars(entry))], check=False)
    assert died.returncode == -signal.SIGTERM
    [part] = left(tmp_path / "data")
    assert part.startswith(".set.")
    registry.get("set")
    assert left(tmp_path / "data") == ["set"]


@pytest.mark.parametrize(("client", "hint"), [("npm", "install Node.js"), ("apt", "Debian and Ubuntu only")])
def test_a_missing_client_says_what_to_install(
    entry: registry.Entry, monkeypatch: pytest.MonkeyPatch, client: str, hint: str
) -> None:
    change(monkeypatch, entry, client=client)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(registry.DataError, match=rf"^set: needs {client}.*, which was not found: .*{hint}"):
        registry.get("set")


def test_a_folder_that_cannot_be_written_is_an_error(entry: registry.Entry, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    with pytest.raises(registry.DataError, match=r"^MMHA_DATA: expected a folder that can be written, got .*data"):
        registry.get("set")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(registry.DataError, match=r"name: expected one of brown, turkish, .*, haxby, got 'browm'"):
        registry.entry("browm")


def test_the_digest_depends_on_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    first = registry.digest(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    second = registry.digest(tmp_path)
    (tmp_path / "b").write_text("y")
    assert len({first, second, registry.digest(tmp_path)}) == 3


@pytest.mark.network
@pytest.mark.parametrize("name", list(registry.ENTRIES))
def test_every_listed_set_is_what_it_says(name: str, fetched: Callable[[str], Path]) -> None:
    files = [p for p in fetched(name).rglob("*") if p.is_file()]
    entry = registry.ENTRIES[name]
    assert (len(files), sum(p.stat().st_size for p in files)) == (entry.files, entry.size)


@pytest.mark.parametrize("name", [name for name in registry.ENTRIES if name.startswith("prompts-")])
def test_prompts_are_kept_without_the_silences(name: str, tmp_path: Path) -> None:
    kept = ["agent-user.g722", "digits/1.g722", "screen-callee.g722", "someone.g722", "six/silence.g722"]
    root = registry.entry(name).inside
    with zipfile.ZipFile(tmp_path / "package.zip", "w") as packed:
        for path in [*kept, "silence/1.g722", "silence/10.g722", "notes.txt"]:
            packed.writestr(f"{root}/{path}", "ab")
    extract(tmp_path / "package.zip", tmp_path / "out", root, registry.entry(name).keep, 1000)
    found = [p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert sorted(found) == sorted(kept)
