"""CoNLL-U: what comes in goes out, and a broken line is named by its number."""

from __future__ import annotations

import pytest

from mmha.data import conllu
from mmha.data.sentence import Sentence

REST = "\t_" * 6
TEXT = (
    "# sent_id = 1\n"
    "# text = Al mar\n"
    f"1-2\tAl\t_\t_{REST}\n"
    f"1\tA\ta\tADP{REST}\n"
    f"2\tel\tel\tDET{REST}\n"
    f"2.1\tnada\t_\t_{REST}\n"
    f"3\tmar\tmar\tNOUN\tSg\tGender=Masc\t0\troot\t_\tSpaceAfter=No\n"
    "\n"
    f"1\t1 000\t_\t_{REST}\n"
    "\n"
)


def test_words_and_tags_are_found_among_ranges_empty_nodes_and_comments() -> None:
    first, second = conllu.parse(TEXT.splitlines())
    assert first.sentence() == Sentence(("A", "el", "mar"), ("ADP", "DET", "NOUN"))
    assert second.sentence() == Sentence(("1 000",), None)


def test_everything_but_the_tag_comes_out_as_it_went_in() -> None:
    blocks = list(conllu.parse(TEXT.splitlines()))
    assert "".join(block.tagged(block.tags) for block in blocks) == TEXT
    out = blocks[0].tagged(["X", "SYM", "VERB"])
    assert out.splitlines()[3] == f"1\tA\ta\tX{REST}"
    assert out.splitlines()[6] == "3\tmar\tmar\tVERB\tSg\tGender=Masc\t0\troot\t_\tSpaceAfter=No"
    assert [line for line in out.splitlines() if line.startswith(("#", "1-2"))] == TEXT.splitlines()[:3]


def test_windows_line_ends_and_a_missing_last_blank_line_are_read() -> None:
    (block,) = conllu.parse([f"1\tmar\t_\tNOUN{REST}\r\n"])
    assert block.tags == ("NOUN",)
    assert block.lines == (f"1\tmar\t_\tNOUN{REST}",)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2\tel", "treebank, line 3: expected 10 columns with a tab between them, got 2"),
        ("2 el _ DET _ _ _ _ _ _", "treebank, line 3: expected 10 columns with a tab between them, got 1"),
        (f"x\tel\t_\t_{REST}", "treebank, line 3: expected a word's number such as 2, 1-2 or 1.1, got 'x'"),
        (f"3\tel\t_\t_{REST}", "treebank, line 3: expected word number 2, got 3"),
        (f"1\tel\t_\t_{REST}", "treebank, line 3: expected word number 2, got 1"),
        (f"2\t\t_\t_{REST}", "treebank, line 3: expected a word in column 2, got none"),
    ],
)
def test_a_broken_line_is_named(line: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the whole message is compared)
        list(conllu.parse(["# text = a el", f"1\ta\t_\t_{REST}", line, ""], "treebank"))
    assert str(caught.value) == message


def test_a_sentence_without_words_is_refused() -> None:
    with pytest.raises(ValueError, match="line 2: expected a word before the sentence ends"):
        list(conllu.parse([f"1-2\tdu\t_\t_{REST}", ""]))


def test_plain_words_become_a_sentence() -> None:
    block = conllu.block_of(["I", "saw"])
    assert block.tagged(["PRON", "VERB"]) == f"# text = I saw\n1\tI\t_\tPRON{REST}\n2\tsaw\t_\tVERB{REST}\n\n"
