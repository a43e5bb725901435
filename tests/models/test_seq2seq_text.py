"""Texts in, translations out: order, batches, parts of long texts, and which words looked at which."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch

from mmha.models.seq2seq import Beams, Seq2Seq, Tokenizer, attention, translate
from mmha.models.seq2seq.alignment import END, align, words
from mmha.models.seq2seq.text import join, split, translate_texts
from small_translator import TOKENIZER, trained

pytestmark = pytest.mark.usefixtures("one_thread")
TEXTS = ["it a b.", "", "a", "  tab bit. ", " \t", "b", "it", "a tab", "it is", "ab", "i", "t.", "bit"]


@pytest.fixture(scope="module")
def model() -> Seq2Seq:
    return trained()


def alone(model: Seq2Seq, text: str, beams: Beams) -> list[tuple[str, float]]:
    """The translations of a text by itself."""
    found = translate(model, [TOKENIZER.encode(text.strip())], beams)[0]
    return [(TOKENIZER.decode(h.tokens).strip(), h.score) for h in found]


@pytest.mark.parametrize("batch", [1, 3, 32])
def test_texts_keep_their_order_and_translations_are_those_of_each_text_alone(model: Seq2Seq, batch: int) -> None:
    beams = Beams(3, n_best=2)
    found = list(translate_texts(model, TOKENIZER, TEXTS, beams, batch))
    assert [one.source for one in found] == TEXTS
    for one in found:
        wanted = alone(model, one.source, beams) if one.source.strip() else []
        assert [w.text for w in one.wordings] == [text for text, _ in wanted]
        assert [w.score for w in one.wordings] == pytest.approx([score for _, score in wanted], abs=1e-5)
        assert [TOKENIZER.decode(w.tokens).strip() for w in one.wordings] == [w.text for w in one.wordings]
        assert one.text == (wanted[0][0] if wanted else "")
        assert [part.source for part in one.parts] == ([one.source.strip()] if wanted else [])
    assert list(translate_texts(model, TOKENIZER, [], beams, batch)) == []


def test_translations_come_before_all_are_made(model: Seq2Seq) -> None:
    read: list[int] = []
    hook = model.encoder[0].register_forward_pre_hook(lambda _, given: read.append(given[0].shape[1]))
    try:
        found = translate_texts(model, TOKENIZER, TEXTS, Beams(1), batch=1)
        assert read == []
        assert next(found).source == TEXTS[0]
        assert len(read) == 8  # texts with something in them, of eleven
        assert len(list(found)) == len(TEXTS) - 1
        assert len(read) == 11
    finally:
        hook.remove()


def test_a_long_text_is_translated_in_parts_and_the_best_of_all_combinations_are_given(model: Seq2Seq) -> None:
    text = "it a. tab! a b? bit"
    (found,) = translate_texts(model, TOKENIZER, [text], Beams(3, n_best=3), longest=6)
    parts = ["it a.", "tab!", "a b?", "bit"]
    assert [part.source for part in found.parts] == parts
    own = [alone(model, part, Beams(3, n_best=3)) for part in parts]
    every = [(sum(score for _, score in choice), " ".join(t for t, _ in choice)) for choice in itertools.product(*own)]
    best = sorted(every, reverse=True)[:3]
    assert [w.score for w in found.wordings] == pytest.approx([score for score, _ in best])
    assert [" ".join(w.text.split()) for w in found.wordings] == [" ".join(t.split()) for _, t in best]
    tokens = [token for part in found.parts for token in part.wordings[0].tokens]
    assert list(found.wordings[0].tokens) == tokens


@pytest.mark.parametrize(
    ("text", "longest", "parts"),
    [
        ("", 5, []),
        (" \n ", 5, []),
        ("Yes.", 4, ["Yes."]),
        ("One. Two. Three.", 9, ["One.", "Two.", "Three."]),
        ("one. two. three.", 9, ["one. two.", "three."]),
        ("one. two. three.", 8, ["one.", "two.", "three."]),
        (
            "12. Ask Mr. Hill or Dr. J. Bell, e.g. by mail. (In no. 5. Not 3.) Ok",
            99,
            ["12. Ask Mr. Hill or Dr. J. Bell, e.g. by mail.", "(In no. 5. Not 3.) Ok"],
        ),
        ('He said "Go!" Then left.', 13, ['He said "Go!"', "Then left."]),
        ("3.14 is pi. e.g. so", 11, ["3.14 is pi.", "e.g. so"]),
        ("一。二\uff01三", 12, ["一。", "二\uff01", "三"]),
        ("a。b", 9, ["a。", "b"]),
        ("A... b?! c", 7, ["A...", "b?! c"]),
    ],
)
def test_where_texts_are_split(text: str, longest: int, parts: list[str]) -> None:
    assert split(Tokenizer([]), text, longest) == parts


def test_parts_are_joined_as_their_script_does() -> None:
    assert [join("", "b"), join("a", ""), join("好。", "好"), join("好 a", "b")] == ["b", "a", "好。好", "好 a b"]


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ("it's 12 a.", [("it", 1), ("'", 1), ("s", 1), ("12", 3), ("a", 1), (".", 1)]),
        ("", []),
        ("\n a", [("a", 2)]),
        ("a  ", [("a", 1), ("  ", 2)]),
        ("naïve", [("naïve", 6)]),
        ("e\u0301t", [("e\u0301t", 4)]),
        ("打开it", [("打", 3), ("开", 3), ("it", 1)]),
    ],
)
def test_words_of_a_text(tokens: str, expected: list[tuple[str, int]]) -> None:
    assert words(TOKENIZER, TOKENIZER.encode(tokens)) == [*expected, (END, 1)]


def test_words_of_bytes_that_are_no_text() -> None:
    assert words(TOKENIZER, [0xE6, 0x61, 0xE6]) == [("\ufffda", 2), ("\ufffd", 1), (END, 1)]


@pytest.mark.parametrize(("layer", "head"), [(-1, None), (0, 3), (-2, -1)])
def test_words_are_looked_at_as_much_as_their_tokens(model: Seq2Seq, layer: int, head: int | None) -> None:
    source, target = "it bib a.", "BIB  IT"
    read, written = TOKENIZER.encode(source), TOKENIZER.encode(target)
    seen = align(model, TOKENIZER, source, written, layer, head)
    assert (seen.source, seen.target) == (("it", "bib", "a", ".", END), ("BIB", "IT", END))
    every = attention(model, read, written)[layer]
    weights = every.mean(0) if head is None else every[head]
    columns, rows = spans([1, 4, 1, 1, 1]), spans([3, 4, 1])
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            looked = sum(float(weights[t, s]) for t in row for s in column) / len(row)
            assert float(seen.weights[i, j]) == pytest.approx(looked, abs=1e-6)
    torch.testing.assert_close(seen.weights.sum(1), torch.ones(3))


def spans(counts: Sequence[int]) -> list[range]:
    """Where runs of so many tokens stand."""
    ends = list(itertools.accumulate(counts))
    return [range(end - count, end) for end, count in zip(ends, counts, strict=True)]


def test_bad_arguments_are_refused_before_anything_is_translated(model: Seq2Seq) -> None:
    for arguments, kind, message in (
        ({"texts": "one"}, TypeError, "`texts`: expected a list of texts, got str 'one'"),
        ({"texts": ["a", 3]}, TypeError, r"`texts`: expected a list of texts, got list \['a', 3\]"),
        ({"batch": 0}, ValueError, "`batch`: expected an integer >= 1, got 0"),
        ({"longest": 0}, ValueError, "`longest`: expected an integer >= 1, got 0"),
        (
            {"texts": ["a", "b. " + "b" * 41], "longest": 7},
            ValueError,
            f"text 2: expected sentences of at most 7 tokens, got 41 in '{'b' * 39}…'",
        ),
        ({"texts": ["bbb"], "longest": 2, "names": ["x.txt, line 1"]}, ValueError, "x.txt, line 1: expected sent"),
    ):
        with pytest.raises(kind, match=message):  # type: ignore[call-overload]
            translate_texts(model, TOKENIZER, **({"texts": ["a"]} | arguments))  # type: ignore[arg-type]
    for place in ({"layer": 2}, {"layer": -3}, {"head": 7}):
        with pytest.raises(ValueError, match=r"`(layer|head)`: expected an integer >= -[27] and <= [16], got"):
            align(model, TOKENIZER, "a", [65], **place)
