"""`mmha generate`: every way in and out, streaming, the explanation, and bad input in one line."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mmha.cli import app
from mmha.models.causal_lm import Tokenizer, save
from mmha.models.causal_lm.beam import Beams, beam_search
from mmha.models.causal_lm.generation import Limits, generate
from mmha.models.causal_lm.sampling import Sampling
from small_lm import build

pytestmark = pytest.mark.usefixtures("one_thread")
TOKENIZER = Tokenizer([("Ġ", "a"), ("i", "t")])
SHORT = ("--max-new-tokens", "7", "--seed", "3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("lm")
    save(build(TOKENIZER.vocab_size), TOKENIZER, place / "causal_lm.json", {})
    return place


def run(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> str:
    code = app.run(["generate", "--model", str(folder), *arguments])
    said = capsys.readouterr()
    assert (code, said.err) == (0, "")
    return said.out


def failing(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert app.run(["generate", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err.removeprefix("mmha: ").rstrip("\n")


def command(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "mmha", "generate", "--model", str(folder), *arguments]


def texts_of(folder: Path, prompts: list[str], sampling: Sampling, limits: Limits, seed: int = 3) -> list[str]:
    from mmha.models.causal_lm import load

    return [found.text for found in generate(*load(folder), prompts, sampling, limits, seed)]


def test_a_prompt_and_its_continuation(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(capsys, folder, "a bit", *SHORT)
    assert found == "a bit" + texts_of(folder, ["a bit"], Sampling(0.8), Limits(7))[0] + "\n"
    assert run(capsys, folder, "a bit", *SHORT) == found
    other = (
        "--temperature",
        "1.3",
        "--top-k",
        "40",
        "--top-p",
        "0.9",
        "--min-p",
        "0.01",
        "--repetition-penalty",
        "1.2",
    )
    wanted = texts_of(folder, ["a bit"], Sampling(1.3, 40, 0.9, 0.01, 1.2), Limits(7))[0]
    assert run(capsys, folder, "a bit", *SHORT, *other) == f"a bit{wanted}\n"


def test_without_a_seed_each_text_is_another(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = [json.loads(run(capsys, folder, "a", "--max-new-tokens", "3", "--json")) for _ in range(3)]
    assert len({one["settings"]["seed"] for one in said}) == 3


def test_several_prompts_are_printed_in_order(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "prompt.txt"
    path.write_text("it\nis\n", encoding="utf-8")
    prompts = ["a bit", "", "it\nis"]
    wanted = texts_of(folder, prompts, Sampling(0.8), Limits(7))
    shown = "\n\n".join(prompt + text for prompt, text in zip(prompts, wanted, strict=True)) + "\n"
    assert run(capsys, folder, "a bit", "", "--file", str(path), *SHORT) == shown


def test_standard_input_is_a_prompt(folder: Path) -> None:
    done = subprocess.run(command(folder, *SHORT), input=b"a \xc3\xbc\n", capture_output=True, check=True)
    assert done.stdout.decode() == "a ü" + texts_of(folder, ["a ü"], Sampling(0.8), Limits(7))[0] + "\n"


def test_a_terminal_sees_the_text_and_obeys_no_control_characters(folder: Path) -> None:
    leader, follower = pty.openpty()
    with subprocess.Popen(command(folder, "a\x1b[2Jb", *SHORT), stdout=follower, stdin=follower) as process:
        os.close(follower)
        shown = b""
        try:
            while block := os.read(leader, 1000):
                shown += block
        except OSError:  # Linux says so when the program has closed its terminal
            pass
    os.close(leader)
    assert process.returncode == 0
    text = shown.decode()
    assert "a\ufffd[2Jb" in text
    assert "\x1b[2J" not in text


def test_json_has_all_there_is_to_know(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from mmha.models.causal_lm import load

    options = ("--stop", "\\n", "--stop", "zq", "--window", "9", "--sinks", "2", "--cache-dtype", "bfloat16")
    found = json.loads(run(capsys, folder, "a bit", "is", *SHORT, *options, "--json"))
    assert found["settings"] == {
        "temperature": 0.8, "seed": 3, "window": 9, "sinks": 2, "cache_dtype": "bfloat16",
    }  # fmt: skip
    import torch

    limits = Limits(7, ("\n", "zq"), 9, 2, torch.bfloat16)
    wanted = generate(*load(folder), ["a bit", "is"], Sampling(0.8), limits, 3)
    assert len(found["completions"]) == 2
    for have, want in zip(found["completions"], wanted, strict=True):
        assert (have["prompt"], have["text"], have["reason"]) == (want.prompt, want.text, want.reason)
        assert (have["prompt_tokens"], have["new_tokens"]) == (want.prompt_tokens, len(want.tokens))
        assert (tuple(have["tokens"]), tuple(have["log_probabilities"])) == (want.tokens, want.log_probabilities)
        assert have["log_probability"] == pytest.approx(sum(want.log_probabilities))


def test_a_text_that_outgrows_the_training_context_gets_a_window(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def cache(*arguments: str) -> tuple[Any, Any]:
        settings = json.loads(run(capsys, folder, "a", "--seed", "3", "--json", *arguments))["settings"]
        return settings["window"], settings["sinks"]

    assert cache("--max-new-tokens", "30") == (None, 0)  # 31 tokens, as in training
    assert cache("--max-new-tokens", "31") == (31, 4)
    assert cache("--max-new-tokens", "31", "--window", "0") == (None, 0)
    assert cache("--max-new-tokens", "31", "--sinks", "1") == (31, 1)


def test_beams(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from mmha.models.causal_lm import load

    best = [own[0] for own in beam_search(*load(folder), ["a", "is"], Beams(3, 0.5), Limits(5))]
    arguments = ("a", "is", "--beams", "3", "--length-penalty", "0.5", "--max-new-tokens", "5")
    assert run(capsys, folder, *arguments) == f"a{best[0].text}\n\nis{best[1].text}\n"
    found = json.loads(run(capsys, folder, *arguments, "--json"))
    assert found["settings"]["beams"] == 3
    assert [text["text"] for text in found["completions"]] == [completion.text for completion in best]


def test_the_explanation(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = run(capsys, folder, "--explain", "as a", "--layer", "1", "--head", "-1")
    parts = shown.split("\n\n")
    assert [part[:2] for part in parts[:4]] == ["1.", "2.", "3.", "4."]
    assert [line.split()[1:] for line in parts[0].splitlines()[-3:]] == [["██·", "·"], ["████·"], ["██████"]]
    scores = [line.split()[1:] for line in parts[1].splitlines()[2:]]
    assert [row.count("-inf") for row in scores] == [2, 1, 0]
    weights = [line.split()[1:] for line in parts[2].splitlines()[2:]]
    assert [row.count("0") for row in weights] == [2, 1, 0]
    assert [row[-1] for row in weights] == ["1.00"] * 3
    seen = [line.split("sees")[1].strip() for line in parts[3].splitlines() if "sees" in line]
    assert seen == ["a", "a s", "a s ␣a"]
    assert parts[3].count("may come") == 3
    assert parts[3].count("  comes  ") == 2


def test_the_explanation_as_json_and_as_a_drawing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "look.png"
    found = json.loads(run(capsys, folder, "--explain", "as a", "--json", "--plot", str(path)))
    assert found["tokens"] == ["a", "s", "␣a"]
    assert found["visible"] == [[True, False, False], [True, True, False], [True, True, True]]
    assert [[s is None for s in row] for row in found["scores"]] == [[not v for v in row] for row in found["visible"]]
    assert [sum(row) for row in found["weights"]] == pytest.approx([1.0] * 3)
    assert [step["visible"] for step in found["steps"]] == [1, 2, 3]
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_long_text_is_explained_in_shades(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = run(capsys, folder, "--explain", "b" * 41)
    assert "(too many tokens for this width" in shown
    assert "\n  b █\n" in shown.split("3. After")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x", "--beams", "3", "--seed", "4"], "--seed: expected it without --beams, got both"),
        (["x", "--beams", "3", "--top-k", "4"], "--top-k: expected it without --beams, got both"),
        (["x", "--beams", "0"], "`width`: expected an integer >= 1, got 0"),
        (["x", "--length-penalty", "2"], "--length-penalty: expected it with --beams, got it alone"),
        (["x", "--layer", "0"], "--layer: expected it with --explain, got it alone"),
        (["x", "--explain", "--stop", "y"], "--stop: expected it without --explain, got both"),
        (["x", "y", "--explain"], "`prompt`: expected one text with --explain, got 2"),
        (["x", "--temperature", "-1"], "`temperature`: expected a finite number >= 0.0, got -1.0"),
        (["x", "--top-p", "0"], "`top_p`: expected a number above 0 and at most 1, got 0.0"),
        (["x", "--max-new-tokens", "0"], "`max_new_tokens`: expected an integer >= 1, got 0"),
        (["x", "--window", "-1"], "`window`: expected an integer >= 1, got -1"),
        (["x", "--window", "0", "--sinks", "2"], "`sinks`: expected 0 without a window, got 2"),
        (["x", "--stop", ""], "`stop`: expected text that is not empty, got ''"),
        (["x", "--window", "0", "--max-new-tokens", "1000000000"], "a cache of "),
        (["x", "--seed", "-1"], r"`seed`: expected an integer >= 0 and <= 9223372036854775806, got -1"),
        (
            ["x", "--cache-dtype", "int4"],
            "`cache_dtype`: expected 'float32', 'bfloat16', 'float16' or 'int8', got 'int4'; did you mean 'int8'?",
        ),
        (["x", "--explain", "--plot", "a.xyz"], "`--plot`: expected a file ending in"),
        (["--file", "/nowhere/prompt.txt"], "/nowhere/prompt.txt: No such file or directory"),
    ],
)
def test_errors_are_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert failing(capsys, "--model", str(folder), *arguments).startswith(message)


def test_a_model_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "causal_lm.json" in failing(capsys, "x", "--model", str(tmp_path))
