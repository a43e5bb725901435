"""Pairs of sentences: aligned by page and id, split by page, and nothing held out that training has seen."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmha.data import parallel
from mmha.data.parallel import Near, Pair


def page(**paragraphs: str) -> str:
    body = "".join(f'<p id="{key}" class="x">{text}</p>' for key, text in paragraphs.items())
    return f"<html><head><title>t</title></head><body>{body}</body></html>"


def write(folder: Path, language: str, name: str, content: str) -> None:
    path = folder / language / "text" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, "utf-8")


def test_paragraphs_are_aligned_by_page_and_id(tmp_path: Path) -> None:
    write(
        tmp_path,
        "en-US",
        "a/one.html",
        page(par_id1="Open the <b>file</b> menu", par_id2="two words", hd_id3="A &lt; B is an entity"),
    )
    write(
        tmp_path,
        "de",
        "a/one.html",
        page(hd_id3="A &lt; B ist eine Entität", par_id1="Öffnen Sie das\n Menü", par_id2="zwei"),
    )
    write(
        tmp_path, "en-US", "a/two.html", page(par_id1="Only in English, this one", par_id4="the same in both languages")
    )
    write(tmp_path, "de", "a/two.html", page(par_id9="Nur auf Deutsch", par_id4="the same in both languages"))
    write(tmp_path, "en-US", "a/three.html", page(par_id1="no such page in German"))
    write(tmp_path, "en-US", "b/four.html", page(par_id1="Open the file menu", par_id5="word " * 41))
    write(tmp_path, "de", "b/four.html", page(par_id1="Öffnen Sie das Menü", par_id5="Wort " * 41))
    assert parallel.help_pages(tmp_path, "help-de") == [
        Pair("Open the file menu", "Öffnen Sie das Menü", "a/one.html"),  # once, though it stands on two pages
        Pair("A < B is an entity", "A < B ist eine Entität", "a/one.html"),
    ]


@pytest.mark.parametrize(
    "broken", ["", "<p id='par_id1'>never closed", "<p id=>x</p>", "\0<<p>", "<p id='par_id1'><p id='par_id2'>x"]
)
def test_broken_pages_give_what_can_be_read(broken: str) -> None:
    assert all(isinstance(text, str) for text in parallel.paragraphs(broken).values())


def test_pages_are_on_one_side_only_and_repetitions_are_left_out() -> None:
    pairs = [
        Pair(f"{chr(97 + i % 23)}{i} opens {i * 7} the dialog number q{i}", "x", f"page {i % 101}") for i in range(700)
    ]
    pairs += [Pair(f"Press F{i} to see the whole of it", "y", f"other {i}") for i in range(211)]
    found = parallel.split(pairs, 0.1)
    pages = [{pair.page for pair in part} for part in found[:3]]
    assert all(pages)
    assert not pages[0] & pages[1]
    assert not pages[0] & pages[2]
    assert not pages[1] & pages[2]
    assert sum(map(len, found[:3])) + found.repeated == len(pairs)
    # The same sentence with another number is in training and therefore nowhere else.
    assert not any(pair.target == "y" for part in found[1:3] for pair in part)
    assert any(pair.target == "y" for pair in found.train)
    assert parallel.split(pairs, 0.1) == found


words = st.lists(st.sampled_from(["open", "the", "file", "7", "12", "close"]), min_size=1, max_size=8).map(" ".join)


@given(st.lists(words, max_size=6), words)
def test_near_is_jaccard_of_neighbouring_words(sentences: list[str], sentence: str) -> None:
    def shingles(text: str) -> set[tuple[str, str]]:
        row = ["", *re.sub(r"\d", "0", text.lower()).split(), ""]
        return set(pairwise(row))

    own = shingles(sentence)
    wanted = any(len(own & shingles(s)) >= 0.8 * len(own | shingles(s)) for s in sentences)
    assert Near(sentences)(sentence) == wanted


def test_near_counts_letters_where_there_are_no_spaces() -> None:
    near = Near(["按下 F2 键以打开所选单元格的编辑对话框。"])
    assert near("按下 F5 键以打开所选单元格的编辑对话框")
    assert not near("按下 F2 键以关闭窗口。")


def test_two_columns_are_read_and_other_lines_named(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text("\ufeffa cat\teine Katze\n two \t zwei \n", "utf-8")
    assert parallel.two_columns(path) == [Pair("a cat", "eine Katze", "1"), Pair("two", "zwei", "2")]
    path.write_bytes("a\u2028b\u0085c\tx\r\nd\ty\r\n".encode())  # no separator but LF and CR LF ends a line
    assert parallel.two_columns(path) == [Pair("a\u2028b\u0085c", "x", "1"), Pair("d", "y", "2")]
    for content, got in (
        ("a\tb\nonly one\n", "line 2: expected two columns of text with a tab between, got 1 columns"),
        ("a\tb\tc\n", "line 1: expected two columns of text with a tab between, got 3 columns"),
        ("a\t \n", "line 1: expected two columns of text with a tab between, got an empty one"),
        ("a\tb\n\nc\td\n", "line 2: expected two columns of text with a tab between, got 1 columns"),
        ("", "expected lines of two columns, got an empty file"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=re.escape(f"{path}: {got}")):
            parallel.two_columns(path)
    path.write_bytes(b"caf\xe9\tx\n")
    with pytest.raises(ValueError, match="UTF-8"):
        parallel.two_columns(path)
