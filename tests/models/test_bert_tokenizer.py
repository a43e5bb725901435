"""WordPiece beside the tokenizer of transformers; training; what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmha.models.bert import Tokenizer
from mmha.models.bert.tokenizer import train

TEXTS = [
    "The cat sat on the mat; the cats' mats were flat.",
    "Ein schöner Tag, ÉCOLE — naïve façade!",
    "東京 is a city, 北京 too. x=3.14159, a_b, e-mail@example.org",
    "[MASK] and [SEP] and \t tabs\n\nlines",
    "",
    " ",
    "supercalifragilistic" * 6,
    "\u0000\ufffd zero\u200bwidth e\u0301",
]


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return train(TEXTS * 2, 150)


@pytest.mark.parametrize("lower", [True, False])
def test_it_cuts_as_transformers_does(tmp_path: Path, lower: bool) -> None:
    from transformers import BertTokenizerFast

    tokenizer = train(TEXTS * 2, 150, lower)
    (tmp_path / "vocab.txt").write_text("\n".join(tokenizer.pieces), "utf-8")
    theirs = BertTokenizerFast(str(tmp_path / "vocab.txt"), do_lower_case=lower)
    for text in TEXTS:
        expected = theirs(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.encode(text, markers=True) == expected
        if "[" not in text:
            assert tokenizer.encode(text) == expected
    assert tokenizer.encode_all(TEXTS) == [tokenizer.encode(text) for text in TEXTS]
    markers = (tokenizer.pad, tokenizer.unknown, tokenizer.cls, tokenizer.sep, tokenizer.mask)
    assert markers == (0, 1, 2, 3, 4)


def test_a_text_that_quotes_a_marker_stays_text(trained: Tokenizer) -> None:
    quoted = trained.encode("a [MASK]")
    assert trained.mask not in quoted
    assert trained.decode(quoted) == "a [ mask ]"
    assert trained.encode("a [MASK]", markers=True)[1:] == [trained.mask]


def test_offsets_are_those_of_the_raw_text(trained: Tokenizer) -> None:
    text = "Schöner  CATS"
    cut = [text[begin:end] for begin, end in trained.offsets(text)]
    assert "".join(cut) == "SchönerCATS"
    assert len(cut) == len(trained.encode(text))


def test_training_gives_the_same_pieces_each_time_and_a_definition_gives_them_back(trained: Tokenizer) -> None:
    assert train(iter(TEXTS * 2), 150).pieces == trained.pieces
    assert Tokenizer(trained.definition).pieces == trained.pieces
    assert trained.vocabulary == len(trained.pieces) <= 150


def test_rare_letters_are_left_out_of_a_large_alphabet() -> None:
    letters = [chr(0x4E00 + n) for n in range(1500)]
    tokenizer = train(["".join(letters[:1000]) * 3, "".join(letters)], 1005)
    assert tokenizer.pieces[5:] == tuple(letters[:1000])
    assert tokenizer.encode(letters[1400] + letters[3]) == [tokenizer.unknown, 8]


def test_a_size_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^`size`: expected an integer >= 8, got 7$"):
        train(["ab b"], 7)


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        (
            ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "a"],
            "`pieces`: expected pieces that differ, got 'a' twice",
        ),
        (["[PAD]", "a"], "`pieces`: expected a piece [UNK], got str 'none'"),
        (["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"], "`definition`: expected a token [MASK], got none"),
    ],
)
def test_a_vocabulary_that_is_none_is_refused(pieces: list[str], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        Tokenizer.of(pieces)
    assert str(caught.value) == message.replace("str 'none'", "none")


def test_numbers_with_gaps_are_refused() -> None:
    definition = Tokenizer.of(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]).definition
    definition["model"]["vocab"]["far"] = 4_000_000_000
    with pytest.raises(ValueError, match=r"expected tokens numbered from 0 to 5, got numbers up to 4000000000$"):
        Tokenizer(definition)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"unk_token": "[UNKNOWN]"}}, "a tokenizer of every text, got another (WordPiece error: Missing"),
        (
            {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},  # at which the library panics
            "the content of a tokenizer.json, got another (Precompiled: ",
        ),
    ],
)
def test_what_the_library_fails_at_is_one_line(change: dict[str, dict[str, str]], message: str) -> None:
    definition = Tokenizer.of(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]).definition
    for name, parts in change.items():
        definition[name] |= parts
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        Tokenizer(definition)
    assert str(caught.value).startswith(f"`definition`: expected {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "error"), [(3, TypeError), ("a\ud800", ValueError)])
def test_what_is_no_text_is_named(trained: Tokenizer, text: str, error: type[Exception]) -> None:
    for method in (trained.encode, trained.offsets):
        with pytest.raises(error, match=r"^`text`: expected "):
            method(text)


def test_a_number_that_is_no_token_is_named(trained: Tokenizer) -> None:
    with pytest.raises(ValueError, match=rf"^`ids`: expected an integer >= 0 and <= {trained.vocabulary - 1}, got 999"):
        trained.decode([1, 999])
