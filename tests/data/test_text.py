"""Plain text: words as Brown cuts them, sentences, and bytes that are no text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmha.data import text


@pytest.mark.parametrize(
    ("chunk", "words"),
    [
        ("saw.", ["saw", "."]),
        ("don't,", ["don't", ","]),
        ("man's", ["man's"]),
        ("(1961-62);", ["(", "1961-62", ")", ";"]),
        ("U.S.", ["U.S."]),
        ("Mr.", ["Mr."]),
        ("I.", ["I", "."]),
        ("\"Why?\"", ["\"", "Why", "?", "\""]),
        ("``Why?''", ["``", "Why", "?", "''"]),
        ("'tis", ["'tis"]),
        ("'Why", ["'", "Why"]),
        ("yes--no", ["yes", "--", "no"]),
        ("wait...", ["wait", "..."]),
        ("3.5%", ["3.5%"]),
        ("$3,000,", ["$3,000", ","]),
        ("e.g.,", ["e.g.", ","]),
        ("--", ["--"]),
        ("...", ["..."]),
        ("“Süß!”", ["“", "Süß", "!", "”"]),
    ],
)  # fmt: skip
def test_words(chunk: str, words: list[str]) -> None:
    assert text.tokens(chunk) == words


def test_sentences_end_at_stops_and_empty_lines() -> None:
    found = list(text.sentences('He left. "Why?" she said.\nDr. No\nstayed\n\nA title\n\n'))
    assert [" ".join(words) for words in found] == [
        "He left .",
        '" Why ? "',
        "she said .",
        "Dr. No stayed",
        "A title",
    ]


@given(st.text(alphabet="ab.'\"!?,-()“” \n—…$3"))
def test_no_character_is_lost(content: str) -> None:
    words = [word for sentence in text.sentences(content) for word in sentence]
    assert "".join(words) == "".join(content.split())
    assert all(words)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"ab\ncd\xff", "menu.txt: expected UTF-8 text, got byte 0xff at offset 5 (line 2)"),
        (b"\x7fELF\0\0", "menu.txt: expected UTF-8 text, got a binary file (a zero byte at offset 4)"),
        ("ab".encode("utf-16"), "menu.txt: expected UTF-8 text, got a binary file (a zero byte at offset 3)"),
    ],
)
def test_bytes_that_are_no_text_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the whole message is compared)
        text.decode(data, "menu.txt")
    assert str(caught.value) == message


def test_a_byte_order_mark_is_no_text() -> None:
    assert text.decode(b"\xef\xbb\xbfab", "menu.txt") == "ab"
