"""`mmha train translate` from the outside: what it writes, killed and resumed, and bad input."""

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
from mmha.cli.translate_job import print_result
from mmha.models import seq2seq


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Words of letters, and the same backwards; no two lines are alike."""
    draw = random.Random(7)
    words = sorted({"".join(draw.choices("abcdefgh", k=draw.randint(3, 7))) for _ in range(211)})
    path = tmp_path / "pairs.tsv"
    path.write_text("\n".join(f"{word}\t{word[::-1].upper()}" for word in words))
    return path


def command(data: Path, out: Path, *more: str) -> list[str]:
    sizes = ["--size", "tiny", "--vocabulary", "263", "--tokens", "137", "--threads", "1"]
    return ["train", "translate", str(data), "--out", str(out), *sizes, "--json", *more]


@pytest.mark.usefixtures("one_thread")
def test_the_file_says_how_it_was_made(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        app.run(command(pairs, tmp_path / "out", "--steps", "7", "--bits", "8", "--reverse", "--dropout", "0.3")) == 0
    )
    result = json.loads(capsys.readouterr().out)
    assert result["model"] == str(tmp_path / "out" / "seq2seq.json")
    print_result(result | {"repeated_pairs": 3})
    assert "\n           3 more were left out, nearly the same as some that are trained on\n" in capsys.readouterr().out
    about = json.loads((tmp_path / "out" / "seq2seq.json").read_text())["about"]
    assert {key: value for key, value in result.items() if key != "model"} == about
    assert about["command"] == (
        f"mmha train translate {pairs} --reverse --size tiny --dropout 0.3 --vocabulary 263 --tokens 137 --threads 1"
        " --bits 8 --steps 7"
    )
    assert (about["schedule"], about["betas"], about["eps"], about["last"]) == ("noam", [0.9, 0.98], 1e-9, 5)
    assert sum(about["pairs"].values()) + about["repeated_pairs"] == len(pairs.read_text().splitlines())
    assert {name: signature.split("|")[0] for name, (_, signature) in about["test"].items()} == {
        "chrF": "nrefs:1",
        "BLEU": "nrefs:1",
    }
    model, tokenizer = seq2seq.load(tmp_path / "out")
    assert tokenizer.vocab_size == model.config.vocabulary <= 263
    assert model.config.dropout == 0.3
    assert tokenizer.encode("ABC") != tokenizer.encode("abc")


@pytest.mark.slow
def test_killed_and_resumed_it_writes_the_same_model(pairs: Path, tmp_path: Path) -> None:
    program = [sys.executable, "-m", "mmha"]
    steps = ["--steps", "89"]
    subprocess.run([*program, *command(pairs, tmp_path / "whole", *steps)], capture_output=True, check=True)
    parts = [*program, *command(pairs, tmp_path / "parts", *steps)]
    with subprocess.Popen(parts, stderr=subprocess.PIPE, text=True) as run:
        while not (tmp_path / "parts" / "state.json").exists() and run.poll() is None:
            time.sleep(0.01)
        run.send_signal(signal.SIGINT)
        _, said = run.communicate()
    assert run.returncode == 130, said
    assert "go on with --resume" in said
    again = [*program, *command(pairs, tmp_path / "parts", "--resume")]  # the steps are those of the stopped run
    subprocess.run(again, capture_output=True, check=True)
    whole, parts_file = ((tmp_path / run / "seq2seq.safetensors").read_bytes() for run in ("whole", "parts"))
    assert whole == parts_file


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "bsae"], "`size`: expected 'tiny', 'small', 'base' or 'big', got 'bsae'; did you mean 'base'?"),
        (["--data", "help-es"], "`data`: expected 'help-de', 'help-fr' or 'help-zh', got 'help-es'; did you mean"),
        (["--bits", "4"], "`bits`: expected 8 or 16, got 4"),
        (["--dropout", "1"], "`--dropout`: expected a number in [0, 1), got 1.0"),
        (["--minutes", "0"], "`minutes`: expected a number > 0, got 0.0"),
        (["--minutes", "3", "--steps", "7"], "`--minutes`: expected no --steps beside it, got --steps 7"),
        (["--minutes", "3", "--devices", "2"], "`--minutes`: expected one process (more take --steps), got 2"),
        (["{pairs}", "--rate", "0"], "`rate`: expected a learning rate > 0, got 0.0"),
        (["{pairs}", "--resume"], "--resume: expected a stopped run in {out}, got none"),
        (["{missing}"], "{missing}: No such file or directory"),
        (["{three}"], "{three}: line 2: expected two columns of text with a tab between, got 3 columns"),
        (["{one}"], "FILES: expected some tens of pairs, to train on and to choose on, got 1"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(
    arguments: list[str], message: str, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "one").write_text("a cat\teine Katze\n")
    (tmp_path / "three").write_text("a cat\teine Katze\na\tb\tc\n")
    names = {name: str(tmp_path / name) for name in ("out", "missing", "one", "three")} | {"pairs": str(pairs)}
    given = [argument.format(**names) for argument in arguments]
    assert app.run(["train", "translate", "--out", names["out"], *given]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("mmha: " + message.format(**names))
    assert said.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_run_of_another_kind_is_not_gone_on_with(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint.save(tmp_path / "state.json", {}, {"run": {"data": "brown"}})
    assert app.run(["train", "translate", str(pairs), "--out", str(tmp_path), "--resume"]) == 2
    assert "expected a stopped run of `mmha train translate`, got another" in capsys.readouterr().err
