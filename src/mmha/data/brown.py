"""The Brown corpus: `word/tag` text in latin-1, 500 files, read into sentences with universal tags.

Brown tags (Francis and Kučera, *Brown Corpus Manual*, revised 1979) are mapped by tag alone, never by word, so that the
mapping is the same for everybody who is compared on it:

1. A foreign word (`FW-` before the tag) is X, whatever it would be in its own language.
2. The endings `-TL` (in a title), `-HL` (in a headline) and `-NC` (a word cited, not used) say where a word stands, not
   what it is, and are dropped.
3. Brown leaves contractions whole: `I'll/PPSS+MD`. The first part decides (PRON). `*` marks a negated auxiliary
   (`don't/DO*`) and `$` a genitive (`man's/NN$`); both keep the tag of what they end.
4. What is left is looked up in `UNIVERSAL`. Be, have and do are AUX in every use, since Brown gives them the same tag
   in every use. Brown has no symbols, so SYM never occurs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from mmha.data.sentence import Sentence

UNIVERSAL: dict[str, str] = {
    tag: universal
    for universal, tags in {
        "ADJ": "jj jjr jjs jjt ap od",
        "ADP": "in rp",
        "ADV": "rb rbr rbt rn ql qlp wql wrb",
        "AUX": "be bed bedz beg bem ben ber bez do dod doz hv hvd hvg hvn hvz md",
        "CCONJ": "cc",
        "DET": "at dt dti dts dtx abl abn abx",
        "INTJ": "uh",
        "NOUN": "nn nns nr nrs",
        "NUM": "cd",
        "PART": "to *",
        "PRON": "pn pp$ pp$$ ppl ppls ppo pps ppss ex wdt wp$ wpo wps",
        "PROPN": "np nps",
        "PUNCT": ". , : ( ) -- ' `` ''",
        "SCONJ": "cs",
        "VERB": "vb vbd vbg vbn vbz",
        "X": "nil",
    }.items()
    for tag in tags.split()
}
"""Brown tag, in lower case and without prefixes and endings → universal tag."""

_PLACE = re.compile(r"(-(tl|hl|nc|t|n))+$")
_FILE = re.compile(r"c[a-r]\d\d")


def universal_tag(tag: str) -> str:
    """The universal tag of a Brown tag.

    Raises: ValueError for a tag that Brown does not have.

    >>> [universal_tag(t) for t in ("NN-TL", "FW-IN", "PPSS+MD", "DO*", "NP$", "--")]
    ['NOUN', 'X', 'PRON', 'AUX', 'PROPN', 'PUNCT']
    """
    low = tag.lower()
    if low.startswith("fw-"):
        return "X"
    first = _PLACE.sub("", _PLACE.sub("", low).split("+")[0])
    for base in (first, first.removesuffix("*"), first.removesuffix("$")):
        if base in UNIVERSAL:
            return UNIVERSAL[base]
    raise ValueError(f"tag: expected a tag of the Brown corpus, got {tag!r}")


def files(folder: Path) -> list[Path]:
    """The corpus files (`ca01` … `cr09`) of a folder, sorted by name.

    Raises: ValueError when the folder has none.
    """
    found = sorted(p for p in folder.iterdir() if _FILE.fullmatch(p.name)) if folder.is_dir() else []
    if not found:
        raise ValueError(f"folder: expected files named like ca01 in {folder}, got none")
    return found


def split(names: list[Path]) -> tuple[list[Path], list[Path], list[Path]]:
    """(train, dev, test) of a sorted file list: every 10th file (0, 10, …) is test, the one after it dev.

    >>> train, dev, test = split([Path(str(i)) for i in range(20)])
    >>> len(train), [p.name for p in dev], [p.name for p in test]
    (16, ['1', '11'], ['0', '10'])
    """
    train = [p for i, p in enumerate(names) if i % 10 > 1]
    return train, names[1::10], names[0::10]


def parse(lines: Iterable[str], name: str = "brown") -> Iterator[Sentence]:
    """Sentences of `word/tag` lines, one sentence a line; blank lines separate nothing and are skipped.

    Raises: ValueError naming the line when a token has no tag or an unknown one.

    >>> [s.tags for s in parse(["He/pps saw/vbd 1/2/cd ./."])]
    [('PRON', 'VERB', 'NUM', 'PUNCT')]
    """
    for number, line in enumerate(lines, start=1):
        words: list[str] = []
        tags: list[str] = []
        for token in line.split():
            word, slash, tag = token.rpartition("/")
            if not (word and slash and tag):
                raise ValueError(f"{name}, line {number}: expected word/tag, got {token!r}")
            try:
                tags.append(universal_tag(tag))
            except ValueError as error:
                raise ValueError(f"{name}, line {number}: {error}") from None
            words.append(word)
        if words:
            yield Sentence(tuple(words), tuple(tags))


def read(paths: Iterable[Path]) -> list[Sentence]:
    """All sentences of the given corpus files, in order."""
    return [s for path in paths for s in parse(path.read_text("latin-1").splitlines(), path.name)]
