"""`mmha mask`: the picture, the counts, JSON, files, and what it says about bad input."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from mmha.cli import app, mask
from mmha.masks import Causal, Full, Window, parse


def text_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert app.run(["mask", *arguments]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    return said.out


def json_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    value = json.loads(text_of(capsys, *arguments, "--json"))
    assert isinstance(value, dict)
    return value


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert app.run(["mask", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err


def test_picture_and_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert text_of(capsys, "causal & window(1)", "--size", "4").splitlines() == [
        *(Causal() & Window(1)).show(4).splitlines(),
        "",
        "mask     Causal() & Window(1)",
        "visible  7 of 16 pairs, density 0.438",
        "tiles    0 full, 1 mixed, 0 empty, of 32 queries x 256 keys; empty ones are skipped",
        f"plan     spans, {(Causal() & Window(1)).plan(1, 1, 4, 4).nbytes} bytes",
    ]


@pytest.mark.parametrize(
    ("sizes", "queries", "keys"),
    [
        ((), 12, 12),
        (("--size", "7"), 7, 7),
        (("--q-len", "3"), 3, 3),
        (("--k-len", "5"), 5, 5),
        (("--q-len", "3", "--k-len", "5"), 3, 5),
        (("--size", "7", "--q-len", "3"), 3, 7),
    ],
)
def test_sizes(sizes: tuple[str, ...], queries: int, keys: int, capsys: pytest.CaptureFixture[str]) -> None:
    said = json_of(capsys, "causal", *sizes)
    assert (said["q_len"], said["k_len"], len(said["rows"])) == (queries, keys, queries)


def test_json_spans_are_the_mask(capsys: pytest.CaptureFixture[str]) -> None:
    notation = "per_head(causal | prefix(2), window(2, 1) & dilated(2), ~causal)"
    said = json_of(capsys, notation, "--heads", "3", "--batch", "2", "--q-len", "5", "--k-len", "11")
    drawn = torch.zeros(2, 3, 5, 11, dtype=torch.bool)
    for row in said["rows"]:
        for start, stop in row["spans"]:
            drawn[row["batch"], row["head"], row["query"], start:stop] = True
    want = parse(notation).dense(2, 3, 5, 11)
    assert torch.equal(drawn, want)
    assert said["visible"] == int(want.sum())
    assert said["pairs"] == want.numel()
    assert said["density"] == pytest.approx(float(want.double().mean()))


def test_tiles_count_what_is_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    # 64 queries against 600 keys that start level with them: the third tile of keys is never visited by either block.
    said = json_of(capsys, "causal", "--q-len", "64", "--k-len", "600", "--q-start", "256")
    assert said["tiles"] == {"empty": 2, "mixed": 2, "full": 2}


def test_q_start_moves_the_queries(capsys: pytest.CaptureFixture[str]) -> None:
    picture = text_of(capsys, "causal", "--q-len", "2", "--k-len", "5", "--q-start", "1")
    assert picture.startswith(Causal().show(2, 5, q_start=1) + "\n\n")
    assert Causal().show(2, 5, q_start=1) != Causal().show(2, 5)


def test_words_label_rows(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["the", "cat", "sat"]
    text = text_of(capsys, "causal", "--words", " ".join(words))
    assert text.startswith(Causal().show(3, rows=words, columns=words) + "\n\n")
    assert "cat" in text


def test_a_picture_for_each_head_that_differs(capsys: pytest.CaptureFixture[str]) -> None:
    text = text_of(capsys, "per_head(causal, full)", "--heads", "2", "--size", "2")
    assert text.startswith(f"batch 0, head 0\n{Causal().show(2)}\n\nbatch 0, head 1\n{Full().show(2)}\n\n")


def test_no_more_pictures_than_anyone_reads(capsys: pytest.CaptureFixture[str]) -> None:
    text = text_of(capsys, "causal", "--heads", "19", "--size", "2")
    assert text.count("head ") == 16
    assert "... and 3 more" in text


@pytest.mark.parametrize("line", [line for line in mask.EXAMPLES.splitlines() if "mmha" in line])
def test_examples_run(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    program, *arguments = shlex.split(line)
    assert program == "mmha"
    assert app.run(arguments) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    "expression",
    [
        *("full", "causal", "strict_causal", "window(3, 1)", "dilated(2)", "chunked(3)", "prefix(2)", "global(1, 2)"),
        *("key_padding(3)", "key_padding.left(2)", "query_padding(3)", "keys([true, false, true, true])"),
        *("queries([true, false, true, true])", "documents(1, 3)", "blocks([[1, 0], [1, 1]], 2)", "tree(-1, 0)"),
        *("per_head(causal, full)", "~(causal & window(1)) | prefix(1)"),
    ],
)
def test_help_names_masks_that_can_be_shown(expression: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert text_of(capsys, expression, "--size", "4", "--heads", "2")
    name = expression.split("(")[0] or "~"
    assert app.run(["mask", "--help"]) == 0
    assert re.search(rf"(?<!\w){re.escape(name)}(?!\w)", capsys.readouterr().out)


@pytest.mark.parametrize(("ending", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_out_draws_a_file(ending: str, magic: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"mask.{ending}"
    assert f"wrote    {path}" in text_of(capsys, "causal & window(4)", "--out", str(path))
    assert path.read_bytes().startswith(magic)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("casual",), "`mask`: expected the name of a mask at column 1, got 'casual'; did you mean 'causal'?"),
        (("causal &",), "expected the name of a mask at column 9, got the end"),
        (("causal", "--size", "0"), "--size"),
        (("causal", "--size", "four"), "--size"),
        (("causal", "--words", "a b", "--size", "3"), "`words`: expected 3 words, one for each row and column, got 2"),
        (("per_head(causal, full)", "--heads", "3"), "3"),
        (("causal", "--out", "no-such-folder/mask.png"), "no-such-folder: no such folder, for --out mask.png"),
        (("causal", "--out", "mask.xyz"), "`--out`: expected a file ending in "),
        (("causal", "--out", "mask"), "`--out`: expected a file ending in "),
        (("causal", "--out", "."), ".: expected a file for --out, got a folder"),
        ((), "EXPRESSION"),
    ],
)
def test_bad_input(arguments: tuple[str, ...], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert line in failure(capsys, *arguments)
