"""`mmha tag`: every way in and out, how fast it starts, and bad input in one line."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmha.cli import app
from mmha.data.conllu import block_of
from mmha.models.tagger import SHIPPED

TAGGED = "I/PRON  saw/VERB  a/DET  saw/NOUN\n"
WORDS = ("I", "saw", "a", "saw")
TAGS = ["PRON", "VERB", "DET", "NOUN"]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    code = app.run(["tag", *arguments])
    said = capsys.readouterr()
    assert (code, said.err) == (0, "")
    return said.out


def failing(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert app.run(["tag", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err.removeprefix("mmha: ").rstrip("\n")


def piped(text: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "mmha", "tag", *arguments], input=text, capture_output=True, check=False
    )


def test_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "I saw a saw") == TAGGED
    assert run(capsys, "I", "saw", "a", "saw") == TAGGED
    assert json.loads(run(capsys, "I saw a saw", "--json")) == [{"words": list(WORDS), "tags": TAGS}]
    assert run(capsys, "I saw a saw", "--format", "conllu") == block_of(WORDS).tagged(TAGS)


def test_it_starts_fast() -> None:
    def seconds() -> float:
        begun = time.perf_counter()
        assert piped(b"", "I saw a saw").stdout.decode() == TAGGED
        return time.perf_counter() - begun

    assert min(seconds() for _ in range(5)) < 2.0


def test_a_file_and_standard_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a b.txt"
    path.write_text("I saw a saw.\nI saw a saw!\n\nI saw a saw", encoding="utf-8-sig")
    wanted = [TAGGED.rstrip() + "  ./PUNCT", TAGGED.rstrip() + "  !/PUNCT", TAGGED.rstrip()]
    assert run(capsys, str(path)).splitlines() == wanted
    for arguments in ((), ("-",)):
        assert piped(path.read_bytes(), *arguments).stdout.decode().splitlines() == wanted


def test_conllu_comes_out_as_it_went_in_but_for_the_tags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "# sent_id = 7\n1-2\tIsaw" + "\t_" * 8 + "\n" + block_of(WORDS).tagged("____")
    wanted = "# sent_id = 7\n1-2\tIsaw" + "\t_" * 8 + "\n" + block_of(WORDS).tagged(TAGS)
    path = tmp_path / "a.conllu"
    path.write_text(text)
    assert run(capsys, str(path)) == wanted
    assert piped(text.encode()).stdout.decode() == wanted
    assert run(capsys, str(path), "--format", "text") == TAGGED
    path.write_text(wanted)
    assert run(capsys, str(path), "--score") == "100.00 % (4 of 4)\n"
    assert json.loads(run(capsys, str(path), "--score", "--json")) == {"correct": 4, "total": 4, "accuracy": 1.0}


def test_attention_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    lines = run(capsys, "I saw a saw", "--attention").splitlines()
    assert [line.split()[:3] for line in lines[2:6]] == [
        [str(i), word, tag] for i, (word, tag) in enumerate(zip(WORDS, TAGS, strict=True), start=1)
    ]
    assert all("%" in line for line in lines[2:6])
    (drawn,) = json.loads(run(capsys, "I saw a saw", "--attention", "--json"))
    assert [sum(row) for row in drawn["attention"]] == pytest.approx([1.0] * 4, abs=1e-5)


def test_few_words_and_many_go_different_ways_to_the_same_tags(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "The old man the boat , and time flies like an arrow ."
    few = run(capsys, line, "--text")
    (tmp_path / "many.txt").write_text(f"{line}\n\n" * 101)
    assert run(capsys, str(tmp_path / "many.txt")) == few * 101


def test_a_text_without_a_full_stop_is_tagged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "long.txt").write_text("saw " * 3001)
    assert run(capsys, str(tmp_path / "long.txt")).count("saw/") == 3001


def test_a_missing_file_is_not_taken_for_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("missing.txt", "folder/missing.conllu", "./missing"):
        assert failing(capsys, name) == f"{name}: no such file (a sentence that looks like one: add --text)"
    assert run(capsys, "missing.txt", "--text").startswith("missing.txt/")
    assert run(capsys, "U.S.A.").startswith("U.S.A./")
    assert run(capsys, "Hello.").endswith("  ./PUNCT\n")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", b"", "expected words to tag, got an empty text"),
        ("blank.txt", b" \n\n\t\n", "expected words to tag, got only white space"),
        ("program", b"\x7fELF\x02\0\0", "expected UTF-8 text, got a binary file (a zero byte at offset 5)"),
        ("latin.txt", b"caf\xe9", "expected UTF-8 text, got byte 0xe9 at offset 3 (line 1)"),
        ("comments.conllu", b"# only\n# comments\n\n", "expected CoNLL-U sentences, got none"),
        ("plain.conllu", b"I saw\n", ", line 1: expected 10 columns with a tab between them, got 1"),
    ],
)
def test_a_bad_file_is_one_line(
    name: str, content: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    line = failing(capsys, str(tmp_path / name))
    assert line.replace(": ,", ",") == f"{tmp_path / name}{'' if message[0] == ',' else ': '}{message}"


def test_a_broken_line_is_named_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "broken.conllu"
    path.write_text(block_of(WORDS).tagged(TAGS) * 3 + "1\tbroken\n\n")
    assert failing(capsys, str(path)) == f"{path}, line 19: expected 10 columns with a tab between them, got 2"
    done = piped(path.read_bytes())
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"mmha: standard input, line 19: expected 10 columns with a tab between them, got 2\n"


def test_a_folder_or_empty_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(capsys, str(tmp_path)) == f"{tmp_path}: Is a directory"
    assert failing(capsys, "") == "text: expected words to tag, got an empty text"
    done = piped(b"")
    assert (done.returncode, done.stderr) == (2, b"mmha: standard input: expected words to tag, got an empty text\n")


def test_untagged_conllu_cannot_be_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.conllu"
    path.write_text(block_of(WORDS).tagged("____"))
    assert "expected CoNLL-U with a tag for every word" in failing(capsys, str(path), "--score")


def test_two_files_are_not_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("I saw.")
    line = failing(capsys, str(path), str(path))
    assert line == f"text: expected a sentence or one file, got 2 words, and {path} is a file"


@pytest.mark.parametrize("options", [("--score", "--attention"), ("--json", "--format", "text")])
def test_options_that_exclude_each_other(options: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(capsys, "I saw", *options) == f"{options[0]}: expected it without {options[1]}, got both"


@pytest.mark.parametrize("option", ["--format", "--input"])
def test_an_unknown_choice_is_named(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(capsys, "I saw", option, "conlu").endswith("got 'conlu'; did you mean 'conllu'?")


@pytest.mark.parametrize("extra", [[], ["--attention"]])
def test_a_damaged_or_missing_checkpoint_is_one_line(
    extra: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("I saw", "--model", str(tmp_path / "tagger.json"), *extra)
    assert failing(capsys, *arguments) == f"{tmp_path / 'tagger.json'}: No such file or directory"
    (tmp_path / "tagger.json").write_bytes(SHIPPED.read_bytes()[:-9])
    assert "expected a checkpoint, got a damaged document" in failing(capsys, *arguments)
    (tmp_path / "tagger.json").write_bytes(SHIPPED.read_bytes())
    (tmp_path / "tagger.safetensors").write_bytes(SHIPPED.with_suffix(".safetensors").read_bytes()[:-1])
    line = failing(capsys, *arguments)
    assert line == f"{tmp_path / 'tagger.safetensors'}: expected the tensors that tagger.json names, got a damaged file"
