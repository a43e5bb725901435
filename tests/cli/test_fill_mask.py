"""`mmha fill-mask`: every way in and out, and bad input in one line."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmha.cli import app
from mmha.models.bert import Bert, Config, Tokenizer, load, save
from mmha.models.bert.filling import fill, looks

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "##s", "sat", "cat", "!"]


def small(parts: tuple[str, ...] = ("words",)) -> tuple[Bert, Tokenizer]:
    model = Bert(Config(len(PIECES), width=21, layers=2, heads=3, hidden=13, positions=11, parts=parts))
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.5)
    return model.half().float().eval(), Tokenizer.of(PIECES)


@pytest.fixture(scope="module")
def bert() -> tuple[Bert, Tokenizer]:
    torch.manual_seed(5)
    return small()


@pytest.fixture(scope="module")
def folder(bert: tuple[Bert, Tokenizer], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    save(*bert, folder / "bert.json", {})
    return folder


def run(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> str:
    code = app.run(["fill-mask", "--model", str(folder), *arguments])
    said = capsys.readouterr()
    assert (code, said.err) == (0, "")
    return said.out


def failing(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert app.run(["fill-mask", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err.removeprefix("mmha: ").rstrip("\n")


def test_a_text_and_its_probabilities(
    bert: tuple[Bert, Tokenizer], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "The [MASK] sat[MASK]!"
    (filling,) = fill(*bert, [text], top=3)
    lines = run(capsys, folder, text, "--top", "3").splitlines()
    assert lines[0] == text
    assert lines[1:10:4] == ["  [MASK] 1 of 2", "  [MASK] 2 of 2"]
    for number, blank in enumerate(filling.blanks):
        for line, candidate in zip(lines[2 + 4 * number :][:3], blank.candidates, strict=True):
            token, percent, sign, *drawn = line.split()
            assert (token, percent, sign) == (candidate.token, f"{100 * candidate.probability:.1f}", "%")
            assert abs(len("".join(drawn)) - 24 * candidate.probability) <= 1
    (found,) = json.loads(run(capsys, folder, text, "--top", "3", "--json"))
    assert (found["text"], found["filled"]) == (text, filling.filled)
    assert found["tokens"] == ["[CLS]", "the", "[MASK]", "sat", "[MASK]", "!", "[SEP]"]
    assert [blank["position"] for blank in found["blanks"]] == [2, 4]
    for shown, blank in zip(found["blanks"], filling.blanks, strict=True):
        for row, candidate in zip(shown["candidates"], blank.candidates, strict=True):
            assert (row["token"], row["number"]) == (candidate.token, candidate.number)
            assert row["probability"] == pytest.approx(candidate.probability, abs=1e-6)


def test_the_model_that_ships_needs_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MMHA_DATA", str(tmp_path / "none"))
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection was opened"))
    assert app.run(["fill-mask", "the [MASK] sat"]) == 0
    said = capsys.readouterr()
    (filling,) = fill(*load(), ["the [MASK] sat"])
    title, *lines = said.out.splitlines()
    assert (title, said.err) == ("the [MASK] sat", "")
    assert [line.split()[:2] for line in lines] == [
        [candidate.token, f"{100 * candidate.probability:.1f}"] for candidate in filling.blanks[0].candidates
    ]
    assert len(lines) == 5
    assert not list(tmp_path.iterdir())


def test_lines_keep_their_order_and_empty_ones_stay_empty(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["[MASK] sat", "", "the [MASK]", "  ", "[MASK]!"]
    (tmp_path / "texts.txt").write_bytes("\r\n".join(texts).encode() + b"\r\n")
    found = json.loads(run(capsys, folder, "--file", str(tmp_path / "texts.txt"), "--json", "--top", "1"))
    assert [row["text"] for row in found] == texts
    assert [len(row["blanks"]) for row in found] == [1, 0, 1, 0, 1]
    assert (found[1]["filled"], found[3]["filled"]) == ("", "  ")
    several = run(capsys, folder, *[text for text in texts if text.strip()], "--top", "1")
    assert [part.splitlines()[0] for part in several.split("\n\n")] == texts[::2]
    shown = run(capsys, folder, "--file", str(tmp_path / "texts.txt"), "--top", "1").splitlines()
    assert [line for line in shown if not line.startswith("  ")] == [texts[0], "", "", texts[2], "", "", texts[4]]


def test_where_the_mask_looked(bert: tuple[Bert, Tokenizer], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = run(capsys, folder, "the [MASK] sat", "--attention").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("each word's row"))
    rows = [line.split()[:2] for line in lines[start + 2 : start + 7]]
    assert rows == [[str(n), t] for n, t in enumerate(["[CLS]", "the", "[MASK]", "sat", "[SEP]"], start=1)]
    (found,) = json.loads(run(capsys, folder, "the [MASK] sat", "--attention", "--json"))
    torch.testing.assert_close(torch.tensor(found["attention"]), looks(*bert, "the [MASK] sat"))


def test_standard_input_and_what_need_not_be_imported(folder: Path) -> None:
    code = (
        "import sys; from mmha.cli import app; code = app.run(['fill-mask', '--top', '1', '--model', sys.argv[1]]); "
        "print(code, 'torch._dynamo' in sys.modules, 'transformers' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], input=b"[MASK]!\n\nthe [MASK]\n", capture_output=True, check=True
    )
    assert [line for line in done.stdout.decode().splitlines() if line[:2] != "  "] == ["[MASK]!", "", "", "the [MASK]"]
    assert done.stderr == b"0 False False\n"  # torch's compiler alone would take longer than everything else


def test_bad_input_is_one_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(*small(("pooler",)), tmp_path / "bare.json", {})
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "third.txt").write_text("[MASK]\n\nno mask\n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 [MASK]")
    model = ("--model", str(folder))
    no_mask = "expected a text with at least one [MASK], got"
    for arguments, message in (
        (("the cat", *model), f"`text`: {no_mask} str 'the cat'"),
        (("", *model), f"text: {no_mask} none"),
        (("[MASK]", "cat", *model), f"`text 2`: {no_mask} str 'cat'"),
        (("[MASK]" * 10, *model), "`text`: expected at most 11 tokens, [CLS] included, got 12"),
        (("[MASK]", *model, "--top", "0"), "`top`: expected an integer >= 1, got 0"),
        (("[MASK]", *model, "--file", "x"), "--file: expected it without TEXT, got both"),
        (
            ("--file", str(tmp_path / "third.txt"), *model),
            f"`{tmp_path / 'third.txt'}, line 3`: {no_mask} str 'no mask'",
        ),
        (("--file", str(tmp_path / "empty.txt"), *model), f"{tmp_path / 'empty.txt'}: {no_mask} none"),
        (("--file", str(tmp_path / "none.txt"), *model), f"{tmp_path / 'none.txt'}: No such file or directory"),
        (
            ("--file", str(tmp_path / "latin.txt"), *model),
            f"{tmp_path / 'latin.txt'}: expected UTF-8 text, got byte 0xe9 at offset 3 (line 1)",
        ),
        (
            ("[MASK]", "--model", str(tmp_path / "bare.json")),
            "`model`: expected one with a head for masked words, got one without",
        ),
        (
            ("[MASK]", "--model", "bert-bass"),
            "--model: expected a file, a folder, shipped, albert-rxn or minilm, got 'bert-bass'",
        ),
        (("[MASK]", "--model", str(tmp_path)), f"{tmp_path}: expected bert.json or config.json in it, got neither"),
    ):
        assert failing(capsys, *arguments) == message


@pytest.mark.network
def test_a_molecule(capsys: pytest.CaptureFixture[str], fetched: object) -> None:
    fetched("albert-rxn")  # type: ignore[operator]
    code = app.run(["fill-mask", "CC(=O)O.OCC>>CC[MASK]C(C)=O", "--model", "albert-rxn", "--top", "1"])
    assert code == 0
    assert capsys.readouterr().out.splitlines()[1].split()[0] == "O"
