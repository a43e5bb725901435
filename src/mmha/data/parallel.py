"""Sentences in two languages, side by side: pages of a translated manual, or a file of two columns.

LibreOffice's help is the same pages in every language, and a paragraph keeps its id: two paragraphs of one file name
and one id are each other's translation. Pages, and not paragraphs, are what is held out, and of what is held out only
what differs from all that is trained on: a manual says many things twice.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from mmha.data import text

SHORTEST, LONGEST = 4, 40  # words of English
SAME = 0.8  # of the word pairs of two sentences in common: the same sentence with a word or a number changed
LANGUAGES = {"help-de": "de", "help-fr": "fr", "help-zh": "zh-CN"}


class Pair(NamedTuple):
    """A text, its translation and the page that both stand on."""

    source: str
    target: str
    page: str = ""


class Split(NamedTuple):
    """What is trained on, what is chosen on, what is reported on, and how many held-out pairs were left out because
    what is trained on says nearly the same."""

    train: list[Pair]
    dev: list[Pair]
    test: list[Pair]
    repeated: int


def help_pages(folder: Path, name: str) -> list[Pair]:
    """English paragraphs of 4 to 40 words and their translations, those that are the same in both languages left out.

    Args: folder, of the set `name`: one of help-de, help-fr, help-zh.
    Raises: OSError when it cannot be read.
    """
    english, other = folder / "en-US" / "text", folder / LANGUAGES[name] / "text"
    pairs: dict[tuple[str, str], Pair] = {}
    for path in sorted(english.rglob("*.html")):
        page = path.relative_to(english).as_posix()
        if (other / page).is_file():
            theirs = paragraphs((other / page).read_text("utf-8", "replace"))
            for key, source in paragraphs(path.read_text("utf-8", "replace")).items():
                target = theirs.get(key, "")
                if target and source != target and SHORTEST <= len(source.split()) <= LONGEST:
                    pairs.setdefault((source, target), Pair(source, target, page))
    return list(pairs.values())


def paragraphs(html: str) -> dict[str, str]:
    """The paragraphs and headings of a help page by their ids.

    >>> paragraphs('<p id="par_id7">Save <b>as</b>\\n PDF</p><p>no id</p><h2 id="hd_id1">A &amp; B</h2>')
    {'par_id7': 'Save as PDF', 'hd_id1': 'A & B'}
    """
    reader = _Paragraphs()
    reader.feed(html)
    return reader.found


class _Paragraphs(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: dict[str, str] = {}
        self.key: str | None = None
        self.tag = ""
        self.parts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self.key is not None:
            self.parts.append(" " if tag == "br" else "")
            return
        key = dict(attrs).get("id") or ""
        if re.fullmatch(r"p|h[1-6]", tag) and key.startswith(("par_id", "hd_id")):
            self.key, self.tag, self.parts = key, tag, []

    def handle_endtag(self, tag: str) -> None:
        if self.key is not None and tag == self.tag:
            self.found.setdefault(self.key, " ".join("".join(self.parts).split()))
            self.key = None

    def handle_data(self, data: str) -> None:
        if self.key is not None:
            self.parts.append(data)


def two_columns(path: Path) -> list[Pair]:
    """The pairs of a UTF-8 file whose lines are `source TAB target`; every line is a page of its own.

    Lines end where editors end them, at LF or CR LF: other separators of Unicode may stand inside a text.

    Raises: ValueError naming the line that has not two columns, or a side without text; OSError when the file cannot be
        read.
    """
    content = text.read(path)
    if not content.strip():
        raise ValueError(f"{path}: expected lines of two columns, got an empty file")
    pairs = []
    for number, line in enumerate(content.removesuffix("\n").split("\n"), 1):
        columns = [column.strip() for column in line.split("\t")]
        if len(columns) != 2 or not all(columns):
            got = f"{len(columns)} columns" if len(columns) != 2 else "an empty one"
            raise ValueError(f"{path}: line {number}: expected two columns of text with a tab between, got {got}")
        pairs.append(Pair(columns[0], columns[1], str(number)))
    return pairs


def split(pairs: Sequence[Pair], share: float = 0.05) -> Split:
    """Whole pages are held out, a `share` of them to choose on and as many to report on, by a digest of their names.

    Held-out pairs that nearly repeat a trained one are left out: `near`.

    >>> pairs = [Pair(f"{'one ' * (i + 1)}sentence", "x", str(i)) for i in range(2)]
    >>> [len(part) for part in split(pairs)[:3]]
    [2, 0, 0]
    """
    parts: list[list[Pair]] = [[], [], []]
    for pair in pairs:
        place = int(hashlib.sha256(pair.page.encode()).hexdigest()[:8], 16) / 2**32
        parts[1 if place < share else 2 if place < 2 * share else 0].append(pair)
    train, dev, test = parts
    near = Near(pair.source for pair in train)
    kept_dev, kept_test = ([pair for pair in part if not near(pair.source)] for part in (dev, test))
    return Split(train, kept_dev, kept_test, len(dev) + len(test) - len(kept_dev) - len(kept_test))


class Near:
    """Whether a sentence says nearly what one of these says: of the pairs of neighbouring words in either, at least 4
    in 5 stand in both (Jaccard); case, punctuation and the digits of numbers make no difference. A letter of Chinese or
    Japanese, which have no spaces, is a word.

    >>> near = Near(["Press F2 to open the dialog."])
    >>> near("press F5 to open the dialog"), near("Press F2 to close the window.")
    (True, False)
    """

    def __init__(self, sentences: Iterable[str]) -> None:
        self.holders: dict[str, list[int]] = defaultdict(list)
        self.sizes: list[int] = []
        for number, shingles in enumerate({frozenset(_shingles(s)) for s in sentences}):
            self.sizes.append(len(shingles))
            for shingle in shingles:
                self.holders[shingle].append(number)

    def __call__(self, sentence: str) -> bool:
        shingles = set(_shingles(sentence))
        common = Counter(number for shingle in shingles for number in self.holders.get(shingle, ()))
        return any(n >= SAME * (len(shingles) + self.sizes[number] - n) for number, n in common.items())


_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")


def _shingles(sentence: str) -> list[str]:
    words = ["", *_WORD.findall(re.sub(r"\d", "0", sentence.lower())), ""]
    return [f"{first} {second}" for first, second in pairwise(words)]
