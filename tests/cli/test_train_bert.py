"""`mmha train bert` from the outside: it learns what a text says, is killed and resumed, and names bad input."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmha import checkpoint
from mmha.cli import app
from mmha.models import bert


@pytest.fixture
def stories(tmp_path: Path) -> Path:
    """Documents of sentences whose last word the first one tells, across two words that tell nothing."""
    draw = random.Random(7)
    ends = {"today": "rain", "tonight": "stars", "now": "bread", "soon": "snow"}
    documents = [
        "\n".join(f"{word} finds some {ends[word]}" for word in draw.choices(list(ends), k=17)) for _ in range(12)
    ]
    path = tmp_path / "stories.txt"
    path.write_text("\n\n".join(documents))
    return path


def command(text: Path, out: Path, steps: int = 23) -> list[str]:
    sizes = ["--size", "nano", "--length", "23", "--vocabulary", "97", "--rows", "5", "--steps", str(steps)]
    return ["train", "bert", str(text), "--lines", "--out", str(out), *sizes, "--threads", "1", "--json"]


@pytest.mark.usefixtures("one_thread")
def test_it_learns_what_the_text_says(stories: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*command(stories, tmp_path / "out", 80), "--size", "tiny", "--rate", "0.003", "--rows", "17"]
    assert app.run(arguments) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["test_words"] > result["test_words_most_frequent"] + 0.15
    assert result["test_words_neighbours"] > result["test_words_most_frequent"]
    assert 0.5 <= result["test_next_majority"] <= 1
    assert result["model"] == str(tmp_path / "out" / "bert.json")
    document = json.loads((tmp_path / "out" / "bert.json").read_text())
    assert {k: v for k, v in result.items() if k != "model"} == document["about"]
    assert document["about"]["command"] == (
        f"mmha train bert {stories} --lines --size tiny --vocabulary 97 --length 23 --rows 17 --rate 0.003"
        " --threads 1 --steps 80"
    )
    model, tokenizer = bert.load(tmp_path / "out")
    assert tokenizer.vocabulary == model.config.vocabulary <= 97
    assert model.config.positions == 23


@pytest.mark.slow
def test_killed_and_resumed_it_writes_the_same_model(stories: Path, tmp_path: Path) -> None:
    program = [sys.executable, "-m", "mmha"]
    subprocess.run([*program, *command(stories, tmp_path / "whole")], capture_output=True, check=True)
    with subprocess.Popen([*program, *command(stories, tmp_path / "parts")], stderr=subprocess.PIPE, text=True) as run:
        while not (tmp_path / "parts" / "state.json").exists() and run.poll() is None:
            time.sleep(0.01)
        run.send_signal(signal.SIGINT)
        _, said = run.communicate()
    assert run.returncode == 130, said
    assert "go on with --resume" in said
    again = command(stories, tmp_path / "parts")
    at = again.index("--steps")
    del again[at : at + 2]  # the run knows
    subprocess.run([*program, *again, "--resume"], check=True, capture_output=True)
    names = [json.loads((tmp_path / run / "bert.json").read_text())["tensors"] for run in ("whole", "parts")]
    assert names[0] == names[1]  # a digest of what is in them
    assert (tmp_path / "whole" / names[0]).read_bytes() == (tmp_path / "parts" / names[1]).read_bytes()


@pytest.mark.usefixtures("one_thread")
def test_minutes_become_steps_and_options_reach_the_run(
    stories: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command(stories, tmp_path / "out")
    at = arguments.index("--steps")
    arguments[at : at + 2] = ["--minutes", "0.001", "--whole-word", "--static-masking", "--accumulate", "2"]
    assert app.run([*arguments, "--precision", "bf16-mixed", "--checkpoint-activations"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["step"] == result["steps"] >= 1
    assert result["whole_word"] is result["static_masking"] is True
    assert result["precision"] == "bf16-mixed"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume"], "--resume: expected a stopped run in {out}, got none"),
        (["--size", "bas"], "`size`: expected 'nano', 'tiny', 'mini', 'small', 'base' or 'large', got 'bas'; did you"),
        (["--data", "brwn"], "`data`: expected 'brown' or 'shakespeare', got 'brwn'; did you mean 'brown'?"),
        (["--lines"], "--lines: expected FILES beside it, got none"),
        (["--minutes", "-1"], "`minutes`: expected a number > 0, got -1.0"),
        (["--minutes", "3", "--steps", "7"], "`--minutes`: expected no --steps beside it, got --steps 7"),
        (["--minutes", "3", "--devices", "2"], "`--minutes`: expected one process (more take --steps), got 2"),
        (["{text}", "--rate", "0"], "`rate`: expected a learning rate > 0, got 0.0"),
        (["{text}", "--precision", "16"], "`precision`: expected '32-true' or 'bf16-mixed', got '16'"),
        (["{text}", "--accumulate", "64"], "`accumulate`: expected at most 32 parts, as there are rows, got 64"),
        (["{missing}"], "{missing}: No such file or directory"),
        (["{empty}"], "{empty}: expected a text, got an empty file"),
        (["{latin}"], "{latin}: expected UTF-8 text, got byte 0xe9 at offset 3 (line 1)"),
        (["{one}"], "`documents`: expected at least 6, two each to train on, to choose on and to test, got 1"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text").write_text("To be, or not to be.\nThat is it.\n\n\n" * 99)
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    (tmp_path / "one").write_text("To be, or not to be.\n\nThat is it.\n")
    names = {name: str(tmp_path / name) for name in ("out", "missing", "text", "empty", "latin", "one")}
    given = [argument.format(**names) for argument in arguments]
    assert app.run(["train", "bert", "--out", names["out"], *given]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("mmha: " + message.format(**names))
    assert said.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_run_of_another_kind_is_not_gone_on_with(
    stories: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint.save(tmp_path / "state.json", {}, {"run": {"data": "brown"}})
    assert app.run(["train", "bert", str(stories), "--lines", "--out", str(tmp_path), "--resume"]) == 2
    assert "expected a stopped run of `mmha train bert`, got another" in capsys.readouterr().err
