"""What cannot be written is said before the work."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmha.cli.files import writable


@pytest.fixture
def ordinary() -> Iterator[None]:
    """Root may write anywhere: it is nobody meanwhile."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    yield
    os.seteuid(before)


def test_a_folder_that_may_not_be_written_is_named(ordinary: None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        with pytest.raises(PermissionError) as told:
            writable("--plot", Path(folder) / "a.png")
        assert (told.value.filename, told.value.strerror) == (folder, "Permission denied, for --plot a.png")
        assert list(Path(folder).iterdir()) == []


def test_what_can_be_written_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(b"old")
    for name in ("a.png", "b.png"):
        writable("--plot", tmp_path / name)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"b.png": b"old"}
