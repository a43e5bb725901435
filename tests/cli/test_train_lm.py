"""`mmha train lm` from the outside: killed and resumed, on one's own texts, and bad input."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmha.cli import app
from mmha.models import causal_lm


@pytest.fixture
def verses(tmp_path: Path) -> Path:
    path = tmp_path / "verses.txt"
    path.write_text("".join(f"{n} green bottles, hanging on the wall;\n" for n in range(97, 0, -1)))
    return path


def command(text: Path, out: Path, steps: int = 60) -> list[str]:
    sizes = ["--size", "small", "--vocabulary", "311", "--rows", "5", "--steps", str(steps), "--threads", "1"]
    return ["train", "lm", str(text), "--test", str(text), "--out", str(out), *sizes, "--json"]


def test_killed_and_resumed_it_writes_the_same_model(verses: Path, tmp_path: Path) -> None:
    program = [sys.executable, "-m", "mmha"]
    whole = subprocess.run([*program, *command(verses, tmp_path / "whole")], capture_output=True, text=True, check=True)
    result = json.loads(whole.stdout)
    assert result["steps"] == 60
    with subprocess.Popen([*program, *command(verses, tmp_path / "parts")], stderr=subprocess.PIPE, text=True) as run:
        while not (tmp_path / "parts" / "state.json").exists() and run.poll() is None:
            time.sleep(0.01)
        run.send_signal(signal.SIGINT)
        _, said = run.communicate()
    assert run.returncode == 130, said
    assert "go on with --resume" in said
    stopped = json.loads((tmp_path / "parts" / "state.json").read_text())["progress"]
    assert 0 < stopped["step"] < 60
    if stopped["epoch"]:  # what was best until then can be used
        about = json.loads((tmp_path / "parts" / "causal_lm.json").read_text())["about"]
        assert about["step"] == 3 * stopped["best_epoch"]
        assert causal_lm.load(tmp_path / "parts")[0].config == causal_lm.load(tmp_path / "whole")[0].config
    again = command(verses, tmp_path / "parts")
    at = again.index("--steps")
    del again[at : at + 2]  # the run knows
    subprocess.run([*program, *again, "--resume"], check=True, capture_output=True)
    weights = [tmp_path / name / "causal_lm.safetensors" for name in ("whole", "parts")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_what_it_learns_shows_in_its_score(verses: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run([*command(verses, tmp_path / "out", steps=300), "--rate", "0.01", "--dev", str(verses)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["model"] == str(tmp_path / "out" / "causal_lm.json")
    assert result["test_bits_per_byte"] == result["dev_bits_per_byte"] < 0.5
    model, tokenizer = causal_lm.load(tmp_path / "out")
    assert tokenizer.vocab_size == model.config.vocabulary <= 311
    document = json.loads((tmp_path / "out" / "causal_lm.json").read_text())
    assert {k: v for k, v in result.items() if k != "model"} == document["about"]


def test_minutes_become_steps(verses: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = command(verses, tmp_path / "out")
    at = arguments.index("--steps")
    arguments[at : at + 2] = ["--minutes", "0.02"]
    begun = time.monotonic()
    assert app.run(arguments) == 0
    assert time.monotonic() - begun < 60
    assert json.loads(capsys.readouterr().out)["steps"] >= 1


def test_without_dev_the_end_of_each_file_is_held_out(
    verses: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(command(verses, tmp_path / "out", steps=1)) == 0
    size = verses.stat().st_size
    assert json.loads(capsys.readouterr().out)["train_bytes"] == size - size // 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume"], "--resume: expected a stopped run in {out}, got none"),
        (["--size", "bas"], "`size`: expected 'base' or 'small', got 'bas'; did you mean 'base'?"),
        (["--data", "brown"], "`data`: expected 'shakespeare', got 'brown'"),
        (["--rate", "0"], "`rate`: expected a learning rate > 0, got 0.0"),
        (["--minutes", "-1"], "`minutes`: expected a number > 0, got -1.0"),
        (["--minutes", "3", "--steps", "7"], "`--minutes`: expected no --steps beside it, got --steps 7"),
        (["--test", "{text}"], "FILES: expected texts to train on together with --dev and --test, got none"),
        (["{missing}"], "{missing}: No such file or directory"),
        (["{folder}"], "{folder}: Is a directory"),
        (["{empty}"], "{empty}: expected a text, got an empty file"),
        (["{text}", "--dev", "{empty}"], "{empty}: expected a text, got an empty file"),
        (["{binary}"], "{binary}: expected UTF-8 text, got a binary file (a zero byte at offset 2)"),
        (["{latin}"], "{latin}: expected UTF-8 text, got byte 0xe9 at offset 3 (line 1)"),
        (["{tiny}"], "FILES: expected at least 10 letters of text, or --dev, got fewer"),
        (["{short}", "--size", "small"], "`text`: expected at least 33 tokens, got "),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text").write_text("To be, or not to be\n" * 99)
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "binary").write_bytes(b"ab\0cd")
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    (tmp_path / "tiny").write_text("to be")
    (tmp_path / "short").write_text("To be, or not to be")
    (tmp_path / "folder").mkdir()
    kinds = ("out", "missing", "text", "empty", "binary", "latin", "tiny", "short", "folder")
    names = {name: str(tmp_path / name) for name in kinds}
    given = [argument.format(**names) for argument in arguments]
    assert app.run(["train", "lm", "--out", names["out"], *given]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("mmha: " + message.format(**names))
    assert said.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_run_of_another_kind_is_not_gone_on_with(
    verses: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mmha import checkpoint

    checkpoint.save(tmp_path / "state.json", {}, {"run": {"data": "brown"}})
    assert app.run(["train", "lm", str(verses), "--out", str(tmp_path), "--resume"]) == 2
    assert "expected a stopped run of `mmha train lm`, got another" in capsys.readouterr().err


def test_another_text_is_not_gone_on_with(verses: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = command(verses, tmp_path / "out", steps=1)
    assert app.run(arguments) == 0
    verses.write_text(verses.read_text() + "There were none.\n")
    assert app.run([*arguments, "--resume"]) == 2
    assert "expected a run with digest = " in capsys.readouterr().err
