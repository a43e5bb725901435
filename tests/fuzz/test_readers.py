"""Damaged files: success or one line that names the file, never another exception, a crash, a hang or a pickle.

`python tests/fuzz/readers.py` reads any number of them, each reader in a process of its own.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz import readers
from fuzz.kinds import HEAVY, READERS, Reader
from fuzz.mutations import damaged_json
from fuzz.readers import campaign, finding, spoil

# The readers that need no package beside torch's and numpy's take a millisecond; the others are read less often.
LIGHT = ("conllu", "text", "columns", "html", "brown", "confounds", "raw", "zip", "tgz", "notation", "checkpoint")


@pytest.fixture(scope="module", autouse=True)
def _libraries() -> None:
    """Imported once, and not in the time of a file."""
    for module in HEAVY:
        pytest.importorskip(module)


@pytest.mark.parametrize("name", READERS)
def test_valid_files_are_read(name: str, tmp_path: Path) -> None:
    assert finding(name, READERS[name].make(tmp_path)) == ""


@pytest.mark.parametrize("name", LIGHT)
@settings(max_examples=15, deadline=None, derandomize=True, database=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(number=st.integers(0, 10**6))
def test_damaged_files_are_refused_in_one_line(name: str, number: int, tmp_path: Path) -> None:
    seed = tmp_path / "seed"
    if not seed.exists():
        seed.mkdir()
        READERS[name].make(seed)
    start = next(iter(seed.glob("*.json"))) if name == "checkpoint" else next(seed.iterdir())
    spoil(name, number, seed, tmp_path / "case")
    assert finding(name, tmp_path / "case" / start.name) == ""


@pytest.mark.parametrize("name", [name for name in READERS if name not in LIGHT])
def test_damaged_files_of_libraries_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    assert campaign(name, 0, 3, tmp_path) == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_many_damaged_files(name: str) -> None:
    assert readers.run(name, 1_000_000, 300) == {}


def test_what_is_not_permitted_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"

    def fails(error: BaseException) -> str:
        def read(path: Path) -> None:
            raise error

        monkeypatch.setitem(READERS, "x", Reader(lambda folder: path, ("*",), read))
        return finding("x", path)

    assert fails(ValueError("a.txt: expected more")) == ""
    assert fails(ValueError("expected more")) == "ValueError that names no file: expected more"
    assert fails(ValueError("a.txt: two\nlines")).startswith("ValueError of several lines")
    assert fails(KeyError("a.txt")) == "KeyError: 'a.txt'"
    monkeypatch.setattr(readers, "SECONDS", 0.05)

    def hang(path: Path) -> None:
        while True:
            pass

    monkeypatch.setitem(READERS, "x", Reader(lambda folder: path, ("*",), hang))
    assert finding("x", path) == "more than 5 seconds"


def test_a_case_is_the_same_whatever_came_before() -> None:
    document = json.dumps({"a": [{"b": [1, 2]}, "c"], "d": {"e": 3}, "f": [0]}).encode()
    first, again = ([damaged_json(random.Random(number), document) for number in range(2000)] for _ in range(2))
    assert first == again


def test_a_process_that_ends_is_a_finding(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no files today")

    monkeypatch.setattr(readers, "_work", broken)
    assert readers.run("text", 0, 1) == {"before": "the process ended with status 256"}
    assert "no files today" in capfd.readouterr().err
