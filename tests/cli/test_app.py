"""The program as a whole: help, errors in one line, exit codes, pipes."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from mmha import __version__
from mmha.cli import app
from mmha.cli.printing import console

PROGRAM = [sys.executable, "-m", "mmha"]


def paths(command: Any, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command and group of commands, by the words that call it."""
    for name, below in getattr(command, "commands", {}).items():
        yield (*before, name)
        yield from paths(below, (*before, name))


PATHS = list(paths(typer.main.get_command(app.app)))
COMMANDS = [path[0] for path in PATHS if len(path) == 1]


def failing(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that this command line fails with."""
    assert app.run(list(arguments)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("mmha: ")
    assert said.err.count("\n") == 1
    assert "Traceback" not in said.err
    return said.err


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_every_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(arguments) == 0
    said = capsys.readouterr()
    assert [name for name in COMMANDS if not re.search(rf"^  {name} ", said.out, re.MULTILINE)] == []
    assert said.err == ""


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_help_of_a_command_says_what_it_does(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run([*path, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"Usage: mmha {' '.join(path)}" in text
    assert re.findall(r"^  \S+ .*\.\.\.$", text, re.MULTILINE) == []  # a list of commands says each to its end


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_help_of_a_command_has_examples_of_that_command(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run([*path, "--help"]) == 0
    _, found, shown = capsys.readouterr().out.partition("Examples:\n")
    assert found
    assert [line for line in shown.splitlines() if line.strip() and f"mmha {' '.join(path)}" not in line] == []


@pytest.mark.parametrize(
    ("words", "completed"), [("mmha tra", {"train", "translate"}), ("mmha train tagger --enc", {"--encoder"})]
)
def test_a_shell_completes_commands_and_options(words: str, completed: set[str]) -> None:
    asked = {"_MMHA_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = subprocess.run(PROGRAM, env={**os.environ, **asked}, capture_output=True, text=True, check=False)
    assert set(done.stdout.split()) == completed


@pytest.mark.parametrize("name", ["data", "train"])
def test_a_group_alone_prints_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run([name]) == 0
    assert "Examples:" in capsys.readouterr().out


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from mmha.cli.app import run; run(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "numpy", "rich", "matplotlib", "platformdirs"} & set(done.stderr.split()) == set()


def test_commands_do_not_wait_for_the_compiler_of_torch() -> None:
    # It doubles the time that `mmha tag` takes from a cold start.
    code = "import sys, mmha.nn, mmha.models.tagger; print('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_help_answers_within_its_time() -> None:
    def cpu_seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*PROGRAM, "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # Processor time and the best of three, so that a busy machine does not decide.
    assert min(cpu_seconds() for _ in range(3)) < 0.3


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["--version"]) == 0
    assert capsys.readouterr().out == f"mmha {__version__}\n"


def test_unknown_command_names_the_near_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert "'bnech'. Did you mean 'bench'?" in failing(capsys, "bnech")


def test_unknown_option_points_to_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    line = failing(capsys, "mask", "causal", "--sise", "4")
    assert "--sise" in line
    assert line.endswith("(see 'mmha mask --help')\n")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("`size`: expected\n  more, got 3"), 2, "mmha: `size`: expected more, got 3\n"),
        (TypeError("`q`: expected a tensor"), 2, "mmha: `q`: expected a tensor\n"),
        (NotImplementedError("softcap"), 2, "mmha: softcap\n"),
        (FileNotFoundError(2, "No such file or directory", "a.txt"), 2, "mmha: a.txt: No such file or directory\n"),
        (PermissionError(13, "Permission denied", "b.txt"), 2, "mmha: b.txt: Permission denied\n"),
        (ValueError(), 2, "mmha: ValueError\n"),
        (typer.Abort(), 130, "mmha: aborted\n"),
        (
            ZeroDivisionError("by zero"),
            1,
            "mmha: ZeroDivisionError: by zero (a bug of ours: MMHA_TRACEBACK=1 shows where)\n",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_errors_become_one_line(error: Exception, code: int, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.report(error) == code
    assert capsys.readouterr().err == line


def test_traceback_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMHA_TRACEBACK", "1")
    with pytest.raises(ValueError, match="name of a mask"):
        app.run(["mask", "nonsense"])


def test_the_script_itself_fails_in_one_line() -> None:
    done = subprocess.run([*PROGRAM, "mask", "casual"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "mmha: `mask`: expected the name of a mask at column 1, got 'casual'; did you mean 'causal'?\n"
    )


def test_a_reader_that_leaves_early_is_no_error() -> None:
    # 2000 rows of JSON overflow the pipe's buffer: writing goes on after `head` has gone.
    command = f"{sys.executable} -m mmha mask causal --size 2000 --json | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == "{\n"
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("closed", "words", "said"),
    [
        ("<&- 2>&-", ["tag"], (2, b"", b"")),
        (">&-", ["mask", "causal"], (0, b"", b"")),
    ],
)
def test_a_closed_stream_is_an_empty_one(closed: str, words: list[str], said: tuple[int, bytes, bytes]) -> None:
    done = subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *PROGRAM, *words], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == said


def test_a_pipe_gets_no_colour_and_an_old_encoding_no_crash() -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "COLUMNS": "40"}
    done = subprocess.run([*PROGRAM, "mask", "causal"], capture_output=True, text=True, check=True, env=environment)
    assert "\x1b" not in done.stdout
    assert "visible  78 of 144 pairs" in done.stdout


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert console().no_color
