"""`mmha train tagger` from the outside: killed and resumed, on one's own data, and bad input."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmha.cli import app
from mmha.data.conllu import block_of

WORDS = ("the", "dog", "runs", ".")
TAGS = ("DET", "NOUN", "VERB", "PUNCT")


@pytest.fixture
def treebank(tmp_path: Path) -> Path:
    path = tmp_path / "bank.conllu"
    path.write_text("".join(block_of((*WORDS[:1], f"n{i}", *WORDS[2:])).tagged(TAGS) for i in range(67)))
    return path


def command(treebank: Path, out: Path, epochs: int = 40) -> list[str]:
    sizes = ["--size", "small", "--tokens", "16", "--epochs", str(epochs), "--threads", "1", "--json"]
    files = ["--train", str(treebank), "--dev", str(treebank), "--test", str(treebank)]
    return ["train", "tagger", "--out", str(out), *sizes, *files]


def test_killed_and_resumed_it_writes_the_same_tagger(treebank: Path, tmp_path: Path) -> None:
    program = [sys.executable, "-m", "mmha"]
    whole = subprocess.run(
        [*program, *command(treebank, tmp_path / "whole")], capture_output=True, text=True, check=True
    )
    result = json.loads(whole.stdout)
    assert result["test_accuracy"] == 1.0
    with subprocess.Popen([*program, *command(treebank, tmp_path / "parts")], stderr=subprocess.PIPE, text=True) as run:
        while not (tmp_path / "parts" / "state.json").exists() and run.poll() is None:
            time.sleep(0.01)
        run.send_signal(signal.SIGINT)
        _, said = run.communicate()
    assert run.returncode == 130, said
    assert "go on with --resume" in said
    assert not (tmp_path / "parts" / "tagger.json").exists()
    subprocess.run([*program, *command(treebank, tmp_path / "parts"), "--resume"], check=True, capture_output=True)
    weights = [tmp_path / name / "tagger.safetensors" for name in ("whole", "parts")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_trained_tagger_tags(treebank: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(command(treebank, tmp_path / "out", epochs=12)) == 0
    assert json.loads(capsys.readouterr().out)["model"] == str(tmp_path / "out" / "tagger.json")
    assert app.run(["tag", "the dog runs.", "--model", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == "the/DET  dog/NOUN  runs/VERB  ./PUNCT\n"
    assert app.run(["tag", str(treebank), "--score", "--model", str(tmp_path / "out" / "tagger.json")]) == 0
    assert capsys.readouterr().out == "100.00 % (268 of 268)\n"


def test_a_tag_set_of_ones_own_is_learned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "own.conllu"
    path.write_text("".join(block_of(WORDS).tagged(("CONJ", "PRT", "ONOM", "_X")) for _ in range(19)))
    assert app.run(command(path, tmp_path / "out", epochs=20)) == 0
    assert json.loads(capsys.readouterr().out)["test_accuracy"] == 1.0
    assert app.run(["tag", "the dog runs .", "--model", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == "the/CONJ  dog/PRT  runs/ONOM  ./_X\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume"], "--resume: expected a stopped run in {out}, got none"),
        (["--size", "bas"], "`size`: expected 'base' or 'small', got 'bas'; did you mean 'base'?"),
        (["--dev", "x.conllu"], "--train: expected a CoNLL-U file together with --dev and --test, got none"),
        (["--train", "x.conllu"], "--dev: expected a CoNLL-U file to choose the best epoch on, got none"),
        (["--train", "{missing}", "--dev", "{missing}"], "{missing}: No such file or directory"),
        (["--train", "{plain}", "--dev", "{plain}"], "{plain}, line 1: expected 10 columns with a tab"),
        (["--train", "{untagged}", "--dev", "{untagged}"], "{untagged}: expected sentences with a tag for every word"),
        (["--rate", "nan"], "`rate`: expected a finite number, got nan"),
        (["--rate", "0"], "`rate`: expected a learning rate > 0, got 0.0"),
        (["--train", "{empty}", "--dev", "{empty}"], "{empty}: expected CoNLL-U sentences, got none"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plain").write_text("I saw a saw.\n")
    (tmp_path / "untagged").write_text(block_of(WORDS).tagged("____"))
    (tmp_path / "empty").write_text("")
    names = {name: str(tmp_path / name) for name in ("out", "missing", "plain", "untagged", "empty")}
    given = [argument.format(**names) for argument in arguments]
    assert app.run(["train", "tagger", "--out", names["out"], *given]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("mmha: " + message.format(**names))
    assert said.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_fewer_words_than_a_step_are_one_step(treebank: Path, tmp_path: Path) -> None:
    arguments = command(treebank, tmp_path / "out", epochs=1)
    arguments[arguments.index("--tokens") + 1] = "100000"
    assert app.run(arguments) == 0
    state = json.loads((tmp_path / "out" / "state.json").read_text())
    assert state["progress"]["step"] == 1


def test_other_words_are_not_gone_on_with(treebank: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = command(treebank, tmp_path / "out", epochs=1)
    assert app.run(arguments) == 0
    treebank.write_text(treebank.read_text().replace("n1\t", "n99\t"))
    assert app.run([*arguments, "--resume"]) == 2
    assert "expected a run with digest = " in capsys.readouterr().err


def test_a_run_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "state.json").write_text("{}")
    assert app.run(["train", "tagger", "--out", str(tmp_path)]) == 2
    assert "holds a run already: go on with --resume" in capsys.readouterr().err
    assert (tmp_path / "state.json").read_text() == "{}"
