"""`mmha translate`: every way in and out, the picture of the attention, and bad input in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmha.cli import app
from mmha.models.seq2seq import Beams, Seq2Seq, Tokenizer, load, save
from mmha.models.seq2seq.alignment import align
from mmha.models.seq2seq.text import translate_texts
from small_translator import TOKENIZER, trained

pytestmark = pytest.mark.usefixtures("one_thread")
LINES = ["it a b.", "", "tab bit. ", "  ", "a"]
Model = tuple[Seq2Seq, Tokenizer]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("translator")
    save(trained(), TOKENIZER, place / "seq2seq.json", {})
    return place


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return load(folder)


@pytest.fixture
def manual(tmp_path: Path) -> Path:
    path = tmp_path / "manual.txt"
    path.write_bytes("\r\n".join(LINES).encode() + b"\n")
    return path


def run(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> str:
    code = app.run(["translate", "--model", str(folder), *arguments])
    said = capsys.readouterr()
    assert (code, said.err) == (0, "")
    return said.out


def failing(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert app.run(["translate", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err.removeprefix("mmha: ").rstrip("\n")


def test_lines_keep_their_order_and_empty_ones_stay_empty(
    folder: Path, model: Model, manual: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, beams in (
        ((), Beams()),
        (("--beam", "1"), Beams(1)),
        (("--beam", "3", "--alpha", "2"), Beams(3, 2.0)),
    ):
        shown = [one.text for one in translate_texts(*model, LINES, beams)]
        assert shown[1] == shown[3] == ""
        assert "" not in shown[::2]
        for given in (("--file", str(manual)), tuple(LINES)):
            assert run(capsys, folder, *given, *options).split("\n") == [*shown, ""]


def test_ranked_translations(folder: Path, model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    found = list(translate_texts(*model, LINES, Beams(4, n_best=3)))
    rows = [row.split(" ||| ") for row in run(capsys, folder, *LINES, "--n-best", "3").splitlines()]
    wanted = [(i, w.text, f"{w.score:.4f}") for i, one in enumerate(found) for w in one.wordings]
    assert [(int(number), text, score) for number, text, score in rows] == wanted
    assert [number for number, _, _ in wanted] == [0, 0, 0, 2, 2, 2, 4, 4, 4]


def test_json(folder: Path, model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(run(capsys, folder, *LINES, "--json", "--n-best", "2", "--alpha", "1"))
    assert found["settings"] == {"beam": 4, "alpha": 1.0, "n_best": 2}
    for have, want in zip(found["translations"], translate_texts(*model, LINES, Beams(4, 1.0, 2)), strict=True):
        assert (have["source"], have["text"]) == (want.source, want.text)
        assert [one["text"] for one in have["hypotheses"]] == [w.text for w in want.wordings]
        assert [one["score"] for one in have["hypotheses"]] == pytest.approx([w.score for w in want.wordings])
        assert have["parts"] == [part.source for part in want.parts]


def test_a_file_is_written_whole_or_not_at_all(
    folder: Path, manual: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.txt"
    assert run(capsys, folder, "--file", str(manual), "--output", str(out)) == ""
    assert out.read_text("utf-8") == run(capsys, folder, "--file", str(manual))
    before = sorted(tmp_path.iterdir())
    manual.write_text("a\n" + "b" * 257, "utf-8")
    assert failing(capsys, "--model", str(folder), "--file", str(manual), "--output", str(out)).startswith(
        f"{manual}, line 2: expected sentences of at most 256 tokens, got 257 in 'bbb"
    )
    assert out.read_text("utf-8").count("\n") == len(LINES)
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_is_read_to_its_end_before_a_line_is_translated(
    folder: Path, manual: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for end, message in ((b"b" * 257, "line 6: expected sentences of at most 256 tokens, got 257 in"),
                         (b"\xe9", "expected UTF-8 text, got byte 0xe9 in line 6"),
                         (b"a\0", "expected UTF-8 text, got a binary file (a zero byte in line 6)"),
                         (b"a. " * 400_000, "line 6: expected at most 1048576 bytes, got more")):  # fmt: skip
        manual.write_bytes("\n".join([*LINES, ""]).encode() + end)
        assert message in failing(capsys, "--model", str(folder), "--file", str(manual))


def test_nothing_in_is_nothing_out(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").write_bytes(b"")
    given = ("--file", str(tmp_path / "empty"))
    assert run(capsys, folder, *given) == ""
    assert json.loads(run(capsys, folder, *given, "--json"))["translations"] == []
    (tmp_path / "empty").write_bytes(b"\n")
    assert run(capsys, folder, *given) == "\n"
    assert json.loads(run(capsys, folder, "", "--json"))["translations"] == [
        {"source": "", "text": "", "hypotheses": [], "parts": []}
    ]


def test_lines_of_a_pipe_are_translated_before_the_last_has_come(folder: Path) -> None:
    """More lines than are held at a time: 4096, of which a batch's worth is translated and printed first."""
    command = [sys.executable, "-m", "mmha", "translate", "--model", str(folder), "--beam", "1", "--batch", "1"]
    quiet = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=quiet) as run:
        assert run.stdin is not None
        assert run.stdout is not None
        run.stdin.write(b"a\n" + b"\n" * 4095)
        run.stdin.flush()
        first = run.stdout.readline()
        assert run.stdout.readline() == b"\n"
        run.stdin.write(b"a\n")
        run.stdin.close()
        assert run.stdout.read() == b"\n" * 4094 + first
    assert run.returncode == 0
    assert first.strip()


def test_standard_input(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "mmha", "translate", "--model", str(folder)]
    quiet = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, input=b"it a b.\n\na\n", capture_output=True, check=True, env=quiet)
    assert done.stdout.decode() == run(capsys, folder, "it a b.", "", "a")


def test_where_the_translation_looked(
    folder: Path, model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = run(capsys, folder, "it a b.", "", "a", "--attention", "--layer", "0", "--head", "2").split("\n")
    found = list(translate_texts(*model, ["it a b.", "a"]))
    seen = align(*model, "it a b.", found[0].wordings[0].tokens, 0, 2)
    assert lines[:2] == ["it a b.", found[0].text]
    high = max(map(len, seen.source))
    heads = [line.ljust(100) for line in lines[2 : 2 + high]]
    left = max(map(len, seen.target)) + 1
    for j, word in enumerate(seen.source):
        assert "".join(line[left + 2 * j] for line in heads).strip() == word
    rows = lines[2 + high : 2 + high + len(seen.target)]
    assert [row.split()[0] for row in rows] == list(seen.target)
    for row, weights in zip(rows, seen.weights, strict=True):
        best = int(weights.argmax())
        assert f"{seen.source[best]} {100 * float(weights[best]):.0f} %" in row
    end = 2 + high + len(seen.target)
    assert lines[end : end + 3] == ["", "a", found[1].text]


def test_the_picture_as_json_and_as_a_drawing(
    folder: Path, model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "look.png"
    found = json.loads(run(capsys, folder, "", "it a b.", "--attention", "--json", "--plot", str(path)))
    assert [one["attention"] for one in found["translations"][:1]] == [[]]
    (seen,) = found["translations"][1]["attention"]
    (translated,) = translate_texts(*model, ["it a b."])
    wanted = align(*model, "it a b.", translated.wordings[0].tokens)
    assert (tuple(seen["source"]), tuple(seen["target"])) == (wanted.source, wanted.target)
    torch.testing.assert_close(torch.tensor(seen["weights"]), wanted.weights)
    assert path.read_bytes().startswith(b"\x89PNG")
    run(capsys, folder, "it a b.", "--attention", "--plot", str(path.with_suffix(".svg")))
    drawn = path.with_suffix(".svg").read_text("utf-8")
    assert all(f">{word}</text>" in drawn for word in ("it", "b", "."))


def test_letters_without_a_font_are_said_and_drawn_as_boxes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from mmha.cli.alignment import draw
    from mmha.models.seq2seq.alignment import Alignment

    nowhere = "\U0001343f"  # a hieroglyph's joiner, given to no font that anybody has installed
    draw(Alignment(("a",), (nowhere,), torch.ones(1, 1)), tmp_path / "x.png")
    assert capsys.readouterr().err.startswith(f"mmha: no font here has {nowhere}, which become boxes: install one")
    assert (tmp_path / "x.png").stat().st_size > 0


def test_errors_are_one_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "latin.txt").write_bytes(b"a\ncaf\xe9")
    document = json.loads((folder / "seq2seq.json").read_text("utf-8"))
    (tmp_path / "broken.json").write_text(json.dumps(document), "utf-8")
    (tmp_path / document["tensors"]).write_bytes(b"xyz")
    (tmp_path / "other.json").write_text("{}", "utf-8")
    model, nowhere = ("--model", str(folder)), str(tmp_path / "none" / "x")
    for arguments, message in (
        (["--file", nowhere, *model], f"{nowhere}: No such file or directory"),
        (["--file", str(tmp_path / "latin.txt"), *model],
         f"{tmp_path / 'latin.txt'}: expected UTF-8 text, got byte 0xe9 in line 2"),
        (["x", "--to", "dee"], "`--to`: expected 'de' or 'zh', got 'dee'; did you mean 'de'?"),
        (["x", "--to", "de", *model], "`--to`: expected it without --model, got both"),
        (["x", "--model", str(tmp_path / "broken.json")],
         f"{tmp_path / document['tensors']}: expected the tensors that broken.json names, got a damaged file"),
        (["x", "--model", str(tmp_path / "other.json")],
         f"{tmp_path / 'other.json'}: expected a checkpoint, got a damaged document ('tensors')"),
        (["x", "--model", nowhere], f"{nowhere}: No such file or directory"),
        (["x", *model, "--beam", "0"], "`--beam`: expected an integer >= 1, got 0"),
        (["x", *model, "--n-best", "5"], "`--n-best`: expected an integer >= 1 and <= 4, got 5"),
        (["x", *model, "--n-best", "0"], "`--n-best`: expected an integer >= 1 and <= 4, got 0"),
        (["x", *model, "--alpha", "inf"], "`--alpha`: expected a finite number, got inf"),
        (["x", *model, "--batch", "0"], "`--batch`: expected an integer >= 1, got 0"),
        (["x", *model, "--file", "y"], "--file: expected it without TEXT, got both"),
        (["x" * 300, *model], f"text: expected sentences of at most 256 tokens, got 300 in '{'x' * 39}…'"),
        (["x", *model, "--output", nowhere], f"{tmp_path / 'none'}: no such folder, for --output x"),
        (["x", *model, "--plot", "a.png"], "`--plot`: expected it with --attention, got it alone"),
        (["x", *model, "--head", "0"], "`--head`: expected it with --attention, got it alone"),
        (["x", *model, "--attention", "--n-best", "2"], "`--n-best`: expected it without --attention, got both"),
        (["x", *model, "--attention", "--output", "a"], "`--output`: expected it without --attention, got both"),
        (["x", *model, "--attention", "--layer", "2"], "`--layer`: expected an integer >= -2 and <= 1, got 2"),
        (["x", *model, "--attention", "--head", "7"], "`--head`: expected an integer >= -7 and <= 6, got 7"),
        (["x", *model, "--attention", "--plot", "a.xyz"], "`--plot`: expected a file ending in "),
        (["a", "b", *model, "--attention", "--plot", str(tmp_path / "a.png")],
         "`--plot`: expected one sentence, got 2"),
    ):  # fmt: skip
        assert failing(capsys, *arguments).startswith(message)
    assert not (tmp_path / "a.png").exists()
