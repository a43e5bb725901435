"""Brown tags, lines, files and split; the whole corpus where the registry is in reach."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from mmha.data import brown
from mmha.data.sentence import UPOS, Sentence


@pytest.mark.parametrize(
    ("tag", "universal"),
    [
        ("nn", "NOUN"), ("NN$", "NOUN"), ("nns-hl", "NOUN"), ("np-tl-hl", "PROPN"), ("np$", "PROPN"), ("jjt", "ADJ"),
        ("bedz*", "AUX"), ("hv+to", "AUX"), ("md*", "AUX"), ("ppss+ber-n", "PRON"), ("wp$", "PRON"), ("pp$$", "PRON"),
        ("*", "PART"), ("to", "PART"), ("cs", "SCONJ"), ("cc", "CCONJ"), ("in", "ADP"), ("rp", "ADP"), ("cd$", "NUM"),
        ("fw-nn-tl", "X"), ("fw-in+at-t", "X"), ("nil", "X"), ("uh", "INTJ"), ("``", "PUNCT"), ("'", "PUNCT"),
        ("---hl", "PUNCT"), (",-hl", "PUNCT"), (")-nc", "PUNCT"), ("vb+ppo", "VERB"), ("dt+bez", "DET"), ("ql", "ADV"),
    ],
)  # fmt: skip
def test_a_brown_tag_has_its_universal_tag(tag: str, universal: str) -> None:
    assert brown.universal_tag(tag) == universal


@pytest.mark.parametrize("tag", ["", "zz", "nnn", "-tl", "+", "$"])
def test_an_unknown_tag_is_refused(tag: str) -> None:
    with pytest.raises(ValueError, match="expected a tag of the Brown corpus"):
        brown.universal_tag(tag)


def test_the_table_names_universal_tags_only() -> None:
    assert set(brown.UNIVERSAL.values()) == set(UPOS) - {"SYM"}


def test_words_may_hold_slashes_and_blank_lines_mean_nothing() -> None:
    lines = ["", "\tand/or/cc 1/2/cd", "   ", "No/at"]
    assert list(brown.parse(lines)) == [Sentence(("and/or", "1/2"), ("CCONJ", "NUM")), Sentence(("No",), ("DET",))]


@pytest.mark.parametrize("token", ["word", "/nn", "word/", "word/zz"])
def test_a_broken_token_is_named_with_its_file_and_line(token: str) -> None:
    with pytest.raises(ValueError, match=r"^ca07, line 3: "):
        list(brown.parse(["a/at", "", f"b/nn {token}"], "ca07"))


def test_files_are_sorted_and_others_left_alone(tmp_path: Path) -> None:
    for name in ("cb02", "ca10", "ca02", "cats.txt", "cz01", "README"):
        (tmp_path / name).write_text("")
    assert [p.name for p in brown.files(tmp_path)] == ["ca02", "ca10", "cb02"]
    with pytest.raises(ValueError, match="expected files named like ca01"):
        brown.files(tmp_path / "nowhere")


def test_the_split_takes_every_file_once() -> None:
    names = [Path(str(i)) for i in range(37)]
    train, dev, test = brown.split(names)
    assert sorted([*train, *dev, *test]) == sorted(names)
    assert [p.name for p in test] == ["0", "10", "20", "30"]
    assert [p.name for p in dev] == ["1", "11", "21", "31"]


@pytest.mark.network
def test_the_whole_corpus(fetched: Callable[[str], Path]) -> None:
    parts = [brown.read(part) for part in brown.split(brown.files(fetched("brown")))]
    assert [len(part) for part in parts] == [45_917, 5_861, 5_562]
    assert [sum(map(len, part)) for part in parts] == [929_446, 116_366, 115_380]
    tags = Counter(tag for part in parts for s in part for tag in s.tags or ())
    assert tags["NOUN"] == 229_788
    assert tags["X"] == 1_383
    assert set(tags) == set(UPOS) - {"SYM"}
