"""The tokenizer: any text comes back whole, and pairs are joined in the order in which they were learned."""

from __future__ import annotations

import builtins
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmha.subwords import Tokenizer, train

TEXT = "To be, or not to be, that is the question:\nWhether 'tis nobler in the mind to suffer\n" * 7
LEARNED = train([TEXT], 300)


def joined(text: str, tokenizer: Tokenizer) -> list[bytes]:
    """The oracle for one word: the earliest pair that was learned is joined first, until none is left."""
    parts = [bytes([b]) for b in text.encode()]
    pieces = dict(zip(tokenizer.merges, tokenizer.pieces[256:], strict=False))
    order = {piece: number for number, piece in enumerate(pieces.values())}
    while True:
        pairs = [(order[a + b], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in order]
        if not pairs:
            return parts
        _, at = min(pairs)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    assert LEARNED.decode(LEARNED.encode(text)) == text


@pytest.mark.parametrize("text", ["", "\0", " \r\n\t  ", "日本語 🎉 e\u0301", "<|end|> [UNK] </s>", "\U0010ffff", TEXT])
def test_strange_texts_come_back(text: str) -> None:
    ids = LEARNED.encode(text)
    assert LEARNED.decode(ids) == text
    assert LEARNED.decode_bytes(ids) == text.encode()
    assert LEARNED.end not in ids


@pytest.mark.parametrize("word", ["question", "Whether", "nobler", "mind", "quality", "ether"])
def test_pairs_are_joined_in_the_order_in_which_they_were_learned(word: str) -> None:
    assert [LEARNED.pieces[i] for i in LEARNED.encode(word)] == joined(word, LEARNED)


def test_training_joins_the_most_frequent_pair_first_and_repeats() -> None:
    tokenizer = train(["abab\nabab\nabab abc"], 260)
    assert tokenizer.merges[:2] == (("a", "b"), ("ab", "ab"))
    assert LEARNED.merges == train([TEXT], 300).merges
    assert LEARNED.vocab_size == 300


def test_a_short_text_has_fewer_tokens_and_no_text_has_the_bytes() -> None:
    assert train(["ab ab"], 4096).vocab_size == 258
    assert train([], 4096).vocab_size == 257
    assert train([""], 257).encode("hé") == [104, 195, 169]


def test_the_end_decodes_to_nothing_and_half_a_letter_to_a_replacement() -> None:
    tokenizer = Tokenizer([])
    assert tokenizer.end == 256
    assert tokenizer.decode([256, *"é".encode(), 256]) == "é"
    assert tokenizer.decode("é".encode()[:1]) == "\ufffd"


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="`text`: expected Unicode text, got a lone surrogate at 2"):
        LEARNED.encode("ab\ud800")
    with pytest.raises(TypeError, match="`text`: expected a str, got list"):
        LEARNED.encode(["a"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`ids`: expected an integer >= 0 and <= 299, got 300"):
        LEARNED.decode([300])
    with pytest.raises(ValueError, match=r"`merges`: expected pairs of tokens, got \('th', 'e'\)"):
        Tokenizer([("th", "e")])
    with pytest.raises(ValueError, match="`vocab_size`: expected an integer >= 257, got 256"):
        train([TEXT], 256)


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "tokenizers":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r'the tokenizer needs tokenizers: pip install "mmha\[lm\]"'):
        Tokenizer([]).encode("a")
    assert Tokenizer([]).decode([97]) == "a"
