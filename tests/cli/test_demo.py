"""`mmha demo`: the three things it shows, in order."""

from __future__ import annotations

import re

import pytest

from mmha.cli import app, demo
from mmha.cli.printing import console
from mmha.masks import parse


def test_demo_shows_tags_masks_and_times(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["demo", "--seconds", "0"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    words, tags = said.out.splitlines()[1:3]
    assert words.split() == ["I", "saw", "a", "saw"]
    assert tags.split() == ["PRON", "VERB", "DET", "NOUN"]
    last_rows = [parse(notation).show(demo.SIZE).splitlines()[-1].rstrip() for _, _, notation in demo.PICTURES]
    assert any(re.findall(r"7 \S+(?: \S+)*", line) == last_rows for line in said.out.splitlines())
    assert max(map(len, said.out.splitlines())) <= 80
    assert said.out.count("times as fast") == 4
    assert said.out.rstrip().splitlines()[-1].split() == ["mmha", "--help", "everything", "else"]


def test_demo_tags_every_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    demo.show_tags(console(), "They can fish. We sleep!")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[1::2]] == [["They", "can", "fish", "."], ["We", "sleep", "!"]]
    assert [len(line.split()) for line in lines[2::2]] == [4, 3]


def test_demo_needs_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["demo", "  "]) == 2
    assert capsys.readouterr().err == "mmha: `sentence`: expected at least one word, got nothing\n"


def test_lines_break_where_they_no_longer_fit() -> None:
    pairs = [("a", "DET"), ("saw", "NOUN"), ("extraordinarily", "ADV"), ("b", "X")]
    assert list(demo.lines(pairs, 11)) == [pairs[:2], pairs[2:3], pairs[3:]]
    assert list(demo.lines(pairs, 12)) == [pairs[:2], pairs[2:3], pairs[3:]]
    assert list(demo.lines(pairs, 100)) == [pairs]
