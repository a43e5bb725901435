"""Text as it is released: stop strings that straddle pieces, characters that straddle tokens."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmha.models.causal_lm.stopping import TextStream

TEXTS = st.text("abé☃", max_size=12)
STOPS = st.lists(st.text("abé", min_size=1, max_size=4), max_size=3)


def cut_text(text: str, stops: list[str]) -> str:
    """Definition: read character by character; the first that completes a stop string ends the text before it."""
    for end in range(1, len(text) + 1):
        found = [len(stop) for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - max(found)]
    return text


@settings(deadline=None, max_examples=300)
@given(TEXTS, STOPS, st.lists(st.integers(0, 40), max_size=6))
@example("abab", ["ba", "bab"], [1, 2])
@example("aab", ["aab", "ab"], [2])
def test_any_cut_of_the_bytes_gives_the_same_text(text: str, stops: list[str], cuts: list[int]) -> None:
    data = text.encode()
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    stream = TextStream(stops)
    released, wanted = "", cut_text(text, stops)
    for start, stop in itertools.pairwise(places):
        released += stream.feed(data[start:stop])
        assert wanted.startswith(released)  # nothing shown is ever taken back
    released += stream.feed(b"", final=True)
    assert released == wanted
    assert stream.stopped == any(stop in text for stop in stops)


@settings(deadline=None, max_examples=200)
@given(TEXTS, STOPS)
def test_no_more_is_held_back_than_must_be(text: str, stops: list[str]) -> None:
    stream = TextStream(stops)
    released = "".join(stream.feed(byte.to_bytes(1, "little")) for byte in text.encode())
    if stream.stopped:
        return
    held = text[len(released) :]
    assert held == "" or any(stop.startswith(held) for stop in stops)


def test_bytes_that_are_no_utf8_are_replaced_and_not_waited_for() -> None:
    stream = TextStream()
    assert stream.feed(b"\xff\x80a") == "��a"
    assert stream.feed(b"\xe2\x98") == ""
    assert stream.feed(b"b") == "�b"
    assert stream.feed(b"\xe2", final=True) == "�"


def test_after_a_stop_nothing_comes() -> None:
    stream = TextStream(["\n"])
    assert (stream.feed(b"one\ntwo"), stream.feed(b"three", final=True)) == ("one", "")


@pytest.mark.parametrize(
    ("stops", "message"),
    [
        ("END", "`stop`: expected a list of texts, got str 'END'"),
        ([""], "`stop`: expected text that is not empty, got ''"),
        ([7], "`stop`: expected text, got 7"),
    ],
)
def test_stop_strings_are_texts(stops: list[str], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"^{re.escape(message)}$"):
        TextStream(stops)
