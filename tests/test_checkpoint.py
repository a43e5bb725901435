"""Checkpoints: what is written comes back, damage is noticed, and a crash leaves the old one whole."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mmha import checkpoint

STATE = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(3)}


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "new" / "state.json", {"t": STATE["a"].T}, {"step": 3, "name": "é"})
    document, tensors = checkpoint.load(tmp_path / "new" / "state.json")
    assert (document["step"], document["name"]) == (3, "é")
    assert torch.equal(tensors["t"], STATE["a"].T)


def test_the_tensors_of_the_one_before_are_deleted_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "mine.safetensors").write_bytes(b"x")
    for step in range(3):
        checkpoint.save(tmp_path / "state.json", {"a": STATE["a"] + step}, {"step": step})
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names[0] == "mine.safetensors"
    assert len(names) == 3
    assert checkpoint.load(tmp_path / "state.json")[1]["a"][0, 0] == 2


def test_a_crash_while_writing_leaves_the_old_one_whole(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "state.json", STATE, {"step": 1})
    with pytest.raises(TypeError):  # the tensors of step 2 are written, the document never is
        checkpoint.save(tmp_path / "state.json", {"a": STATE["a"] + 1}, {"step": object()})
    document, tensors = checkpoint.load(tmp_path / "state.json")
    assert document["step"] == 1
    assert torch.equal(tensors["a"], STATE["a"])


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    parts = [f".state-{'0' * 12}.safetensors", ".state.json", ".t.safetensors"]
    host = checkpoint.part_of(tmp_path / "x").name.split(".")[2]
    for part in parts:
        (tmp_path / f"{part}.{host}.{gone.pid}.part").write_bytes(b"x")
    others = {
        f"{parts[0]}.{host}.{os.getppid()}.part", f".statement.json.{host}.{gone.pid}.part",
        f".state.json.{host}.mine.part", f".state.json.another-{host}.{gone.pid}.part",
    }  # fmt: skip
    for name in others:
        (tmp_path / name).write_bytes(b"x")
    checkpoint.save(tmp_path / "state.json", STATE, {})
    checkpoint.save(tmp_path / "t.json", STATE, {}, "t.safetensors")
    assert {p.name for p in tmp_path.iterdir() if p.name.startswith(".")} == others


def test_any_name_of_a_machine_makes_a_file_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "a.b/c [d]*")
    assert checkpoint.part_of(tmp_path / "x").name == f".x.a_b_c__d__.{os.getpid()}.part"


def test_pieces_that_end_early_leave_the_old_file_whole(tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "x", iter([b"ab", b"", b"c"]))

    def broken() -> Iterator[bytes]:
        yield b"new"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoint.write(tmp_path / "x", broken())
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"abc"]


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"tensors": 3, "sha256": ""}', '{"tensors": "../x", "sha256": ""}',
     pytest.param("[" * 200_000, id="deep")],
)  # fmt: skip
def test_a_damaged_document_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "state.json").write_text(content)
    with pytest.raises(ValueError, match=r"state\.json: expected a checkpoint, got a damaged document"):
        checkpoint.load(tmp_path / "state.json")


def test_a_document_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="got a damaged document"):
        checkpoint.load(tmp_path / "state.json")


def test_damaged_tensors_are_named(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "state.json", STATE, {}, "w.safetensors")
    data = bytearray((tmp_path / "w.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "w.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match=r"w\.safetensors: expected the tensors that state\.json names, got a damaged"):
        checkpoint.load(tmp_path / "state.json")
    (tmp_path / "w.safetensors").unlink()
    with pytest.raises(FileNotFoundError):
        checkpoint.load(tmp_path / "state.json")
    with pytest.raises(ValueError, match="expected safetensors, got a damaged file"):
        checkpoint.tensors(b"nonsense", tmp_path)
