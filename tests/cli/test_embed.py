"""`mmha embed`: every way in and out, search, long files and lines, and bad input in one line."""

from __future__ import annotations

import io
import json
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from mmha.cli import app, lines
from mmha.models.bert import Bert, Config, Tokenizer, load, save
from mmha.models.bert.embedding import embed

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefg", *(f"##{letter}" for letter in "abcdefg")]
TEXTS = ["a bad cab", "", "bed", "é ! x", "fed a bee", "dad", "gab gag", "bad cab", "cab", "a"]
WIDTH = 14


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("bert")
    model = Bert(Config(len(PIECES), WIDTH, 2, 7, 11, positions=13))
    save(model, Tokenizer.of(PIECES), place / "bert.json", {})
    return place


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_bytes("\ufeff".encode() + "\n".join(TEXTS).replace("bed\n", "bed\r\n").encode() + b"\n")
    return path


def vectors(folder: Path, texts: list[str]) -> NDArray[np.float32]:
    return embed(*load(folder), texts).vectors.numpy()


def run(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: object) -> tuple[str, str]:
    code = app.run(["embed", "--model", str(folder), *map(str, arguments)])
    said = capsys.readouterr()
    assert code == 0, said.err
    return said.out, said.err


def failing(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert app.run(["embed", *map(str, arguments)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err.removeprefix("mmha: ").rstrip("\n")


def read(path: Path) -> NDArray[np.float32]:
    found: NDArray[np.float32] = np.load(path) if path.suffix == ".npy" else load_file(path)["embeddings"]
    return found


@pytest.mark.parametrize("ending", ["npy", "safetensors"])
@pytest.mark.parametrize("at_once", [3, 4096])
def test_lines_become_rows_of_a_file(
    folder: Path,
    file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    ending: str,
    at_once: int,
) -> None:
    monkeypatch.setattr(lines, "AT_ONCE", at_once)
    out = file.with_name(f"out.{ending}")
    said = run(capsys, folder, "--file", file, "--out", out)
    assert said == (f"{out}: 10 vectors of 14 numbers\n", "")
    found = read(out)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, vectors(folder, TEXTS), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), [text != "" for text in TEXTS], atol=1e-6)
    assert sorted(path.name for path in file.parent.iterdir()) == sorted([file.name, out.name])
    said = run(capsys, folder, "--file", file, "--out", out, "--json")
    assert json.loads(said[0]) == {"file": str(out), "shape": [10, 14], "cut": []}


def test_an_empty_file_gives_an_empty_array(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.txt").touch()
    for ending in ("npy", "safetensors"):
        out = tmp_path / f"out.{ending}"
        run(capsys, folder, "--file", tmp_path / "empty.txt", "--out", out)
        assert read(out).shape == (0, WIDTH)


def test_texts_are_printed_a_line_each_or_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = vectors(folder, TEXTS[:3])
    printed, _ = run(capsys, folder, *TEXTS[:3])
    np.testing.assert_allclose(np.loadtxt(io.StringIO(printed)), expected, atol=1e-6)
    found = json.loads(run(capsys, folder, *TEXTS[:3], "--json")[0])
    assert [one["text"] for one in found["embeddings"]] == TEXTS[:3]
    np.testing.assert_allclose([one["vector"] for one in found["embeddings"]], expected, atol=1e-6)


def test_the_encoder_that_ships_finds_the_nearest_line_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MMHA_DATA", str(tmp_path / "none"))
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection was opened"))
    texts = ["the train leaves at noon", "he said that he would not pay", "a cat sat there"]
    (tmp_path / "notes.txt").write_text("\n".join(texts))
    arguments = ["--file", str(tmp_path / "notes.txt"), "--query", "trains leave in the morning", "--json"]
    assert app.run(["embed", "--model", "shipped", *arguments]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    found = embed(*load(), [*texts, "trains leave in the morning"]).vectors
    scores = (found[:3] @ found[3]).tolist()
    assert [one["line"] for one in results] == sorted((1, 2, 3), key=lambda line: -scores[line - 1])
    assert [one["score"] for one in results] == pytest.approx(sorted(scores, reverse=True), abs=1e-5)


def test_standard_input_is_read_by_lines(
    folder: Path, file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(file.read_bytes())))
    printed, _ = run(capsys, folder)
    np.testing.assert_allclose(np.loadtxt(io.StringIO(printed)), vectors(folder, TEXTS), atol=1e-5)


@pytest.mark.parametrize("at_once", [3, 4096])
def test_a_query_finds_the_nearest_lines(
    folder: Path, file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(lines, "AT_ONCE", at_once)
    scores = vectors(folder, TEXTS).astype(np.float64) @ vectors(folder, ["cab bad"])[0]
    scores[1] = -2.0  # an empty line is never found
    best = np.argsort(-scores)[:4]
    printed, _ = run(capsys, folder, "--file", file, "--query", "cab bad", "--top", "4")
    assert [line.split()[1] for line in printed.splitlines()] == [str(i + 1) for i in best]
    found = json.loads(run(capsys, folder, "--file", file, "--query", "cab bad", "--top", "4", "--json")[0])
    assert [(one["line"], one["text"]) for one in found["results"]] == [(i + 1, TEXTS[i]) for i in best]
    np.testing.assert_allclose([one["score"] for one in found["results"]], scores[best], atol=1e-5)
    whole = json.loads(run(capsys, folder, "--file", file, "--query", "cab", "--top", "99", "--json")[0])
    assert len(whole["results"]) == 9


def test_what_is_too_long_is_cut_and_said_so(folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    long = "a b " * 9
    printed, said = run(capsys, folder, "a", long)
    np.testing.assert_allclose(np.loadtxt(io.StringIO(printed)), vectors(folder, ["a", "a b " * 5 + "a"]), atol=1e-5)
    assert said == "text: text 2 has more than the 13 tokens that the model takes: its end was cut off\n"
    (tmp_path / "x.txt").write_text(f"{long}\na\n" * 7)
    _, said = run(capsys, folder, "--file", tmp_path / "x.txt", "--query", "a")
    expected = (
        "lines 1, 3, 5, 7, 9 and 2 more have more than the 13 tokens that the model takes: their ends were cut off"
    )
    assert said == f"{tmp_path / 'x.txt'}: {expected}\n"


def test_a_line_without_end_is_read_in_bounded_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LONGEST", 7)
    monkeypatch.setattr(lines, "LETTERS", 9)
    read: list[int] = []
    data = b"abcdef\xc3\xa9tail of it\nshort\nabcdefg\nabcdef\nlast"
    found = list(lines.chunks(io.BytesIO(data), "x", read.append))
    assert found == [["abcdef", "short"], ["abcdefg", "abcdef"], ["last"]]
    assert sum(read) == len(data)


BAD = [
    (b"a\nb\xffc\n", "expected UTF-8 text, got byte 0xff in line 2"),
    (b"a\n\n\xc3", "expected UTF-8 text, got byte 0xc3 in line 3"),
    (b"a\n\0\n", "expected UTF-8 text, got a binary file (a zero byte in line 2)"),
]


@pytest.mark.parametrize(("content", "message"), BAD)
def test_what_is_no_text_leaves_the_file_of_before(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
    message: str,
) -> None:
    monkeypatch.setattr(lines, "AT_ONCE", 1)
    (tmp_path / "bad.txt").write_bytes(content)
    (tmp_path / "out.npy").write_text("before")
    said = failing(capsys, "--model", folder, "--file", tmp_path / "bad.txt", "--out", tmp_path / "out.npy")
    assert said == f"{tmp_path / 'bad.txt'}: {message}"
    assert (tmp_path / "out.npy").read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a", "--file", "x"), "--file: expected it without TEXT, got both"),
        (("a", "--query", "b", "--out", "x.npy"), "`--out`: expected it without --query, got both"),
        (("a", "--top", "3"), "`--top`: expected it with --query, got it alone"),
        (("a", "--query", "b", "--top", "0"), "`--top`: expected an integer >= 1, got 0"),
        (("a", "--query", " "), "--query: expected words to look for, got none"),
        (("a", "--out", "x.txt"), "`--out`: expected a file ending in .npy or .safetensors, got x.txt"),
        (("a", "--out", "nowhere/x.npy"), "nowhere: no such folder, for --out x.npy"),
        (("--file", "nowhere.txt"), "nowhere.txt: No such file or directory"),
        ((__file__,), f"text: expected a text, got the name of a file: try --file {__file__}"),
    ],
)
def test_bad_options_are_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert failing(capsys, "--model", folder, *arguments) == message


def test_a_model_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    expected = "--model: expected a file, a folder, shipped, albert-rxn or minilm, got 'minilmm'"
    assert failing(capsys, "a", "--model", "minilmm") == expected
    assert failing(capsys, "a", "--model", tmp_path).startswith(str(tmp_path))
