"""Texts in, translations out, in the order of the texts: sentence by sentence, in batches of similar length."""

from __future__ import annotations

import heapq
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mmha import checks
from mmha.models.seq2seq.decoding import Steps
from mmha.models.seq2seq.model import Seq2Seq
from mmha.models.seq2seq.search import Beams, translate
from mmha.subwords import Tokenizer

BATCH, LONGEST = 32, 256
WINDOW = 8  # batches that are sorted by length together
SHOWN = 40  # characters of a text in a message
Search = Callable[[Sequence[str]], list[tuple["Wording", ...]]]
_SHORT = frozenset(("mr", "mrs", "ms", "dr", "prof", "st", "no", "nr", "vs", "fig", "approx"))
#: Where a sentence may end: a stop, quotes and brackets behind it, and white space, which East Asian stops go without.
_END = re.compile(r"""[.!?…]+["'”’»)\]]*\s+|[。\uff01\uff1f…]+["'”’」』\uff09]*\s*""")


@dataclass(frozen=True)
class Wording:
    """One of the translations of a text: its tokens, without the end, and its score: the higher, the better.

    Of a text that was split, the tokens are those of all parts, and so are the scores, added up.
    """

    text: str
    tokens: tuple[int, ...]
    score: float


@dataclass(frozen=True)
class Part:
    """A stretch of a text that was translated by itself, and its translations, best first."""

    source: str
    wordings: tuple[Wording, ...]


@dataclass(frozen=True)
class Translated:
    """A text, its translations, best first, and the parts that it was translated in; an empty text has neither."""

    source: str
    wordings: tuple[Wording, ...]
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The best translation."""
        return self.wordings[0].text if self.wordings else ""


def translate_texts(
    model: Seq2Seq,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    beams: Beams = Beams(),  # noqa: B008 (frozen)
    batch: int = BATCH,
    longest: int = LONGEST,
    names: Sequence[str] | None = None,
) -> Iterator[Translated]:
    """The translations of the texts, in their order, each as soon as those before it are there.

    Each sentence of a text is translated by itself.

    Args: batch: how many sentences are translated together, those of similar length; longest: the most tokens of a
        sentence, one of more is cut at stops inside it; names: what messages call each text. White space around a text
        counts for nothing.
    Raises: TypeError when the texts are not strings; ValueError when an argument does not fit or a sentence alone is
        too long; before anything is translated.

    >>> from mmha.models.seq2seq import tiny
    >>> model, tokenizer = Seq2Seq(tiny(257)), Tokenizer([])
    >>> [found.source for found in translate_texts(model, tokenizer, ["Yes.", "", "No."], Beams(2, extra=3))]
    ['Yes.', '', 'No.']
    """
    checks.integer("batch", batch, 1)
    checks.integer("longest", longest, 1)
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise checks.type_error("texts", "a list of texts", texts)
    names = [f"text {number}" for number in range(1, len(texts) + 1)] if names is None else names
    pieces = [split(tokenizer, text, longest, name) for text, name in zip(texts, names, strict=True)]

    steps = Steps(model, min(batch, sum(map(len, pieces))) * beams.width)

    def search(parts: Sequence[str]) -> list[tuple[Wording, ...]]:
        found = translate(model, [tokenizer.encode(part) for part in parts], beams, batch, steps)
        return [tuple(Wording(tokenizer.decode(h.tokens).strip(), h.tokens, h.score) for h in best) for best in found]

    return _translations(texts, pieces, search, WINDOW * batch, beams.n_best)


def _translations(
    texts: Sequence[str], pieces: Sequence[list[str]], search: Search, window: int, n_best: int
) -> Iterator[Translated]:
    """Some texts at a time, of `window` parts or a few more."""
    first = 0
    while first < len(texts):
        last, count = first, 0
        while last < len(texts) and count < window:
            count += len(pieces[last])
            last += 1
        found = iter(search([part for parts in pieces[first:last] for part in parts]))
        for text, parts in zip(texts[first:last], pieces[first:last], strict=True):
            own = tuple(Part(part, next(found)) for part in parts)
            yield Translated(text, _joined(own, n_best), own)
        first = last


def _joined(parts: Sequence[Part], n_best: int) -> tuple[Wording, ...]:
    """The best translations of a text from those of its parts; scores add up."""
    if not parts:
        return ()
    best = list(parts[0].wordings)
    for part in parts[1:]:
        pairs = [(a, b) for a in best for b in part.wordings]
        best = [
            Wording(join(a.text, b.text), a.tokens + b.tokens, a.score + b.score)
            for a, b in heapq.nlargest(n_best, pairs, key=lambda pair: pair[0].score + pair[1].score)
        ]
    return tuple(best)


def split(tokenizer: Tokenizer, text: str, longest: int, name: str = "text") -> list[str]:
    """The sentences of a text, which is what models have learned from; none when there is nothing in it.

    A sentence of more than `longest` tokens is cut behind any stop inside it.

    Raises: ValueError when a stretch without a stop alone has more.

    >>> split(Tokenizer([]), "Mr. Hill came, i.e. he saw 3.5 cats. Who? ", 40)
    ['Mr. Hill came, i.e. he saw 3.5 cats.', 'Who?']
    """
    parts = []
    for sentence in sentences(text.strip()):
        fits = len(tokenizer.encode(sentence)) <= longest
        parts += [sentence] if fits else _cut(tokenizer, sentence, longest, name)
    return parts


def sentences(text: str) -> list[str]:
    """The sentences of a text: each ends at a stop and what closes behind it, unless the next word begins small or with
    a digit, or the stop is that of an abbreviation or of a list's number.

    >>> sentences('1. He said "Go!" Then J. Hill left, e.g. by bus. (Yes.) 好。不好。')
    ['1. He said "Go!"', 'Then J. Hill left, e.g. by bus.', '(Yes.)', '好。', '不好。']
    """
    found, start = [], 0
    for stop in _END.finditer(text):
        following = text[stop.end() : stop.end() + 1]
        word = text[start : stop.start()].split()[-1:]
        last = word[0].lstrip("([\"'“‘„«").lower() if word else ""
        short = len(last) < 2 or "." in last or last in _SHORT or text[start : stop.start()].strip().isdigit()
        wide = unicodedata.east_asian_width(text[stop.start()]) in "WF"
        if following and (wide or not (following.islower() or following.isdigit() or (short and stop[0][0] == "."))):
            found.append(text[start : stop.end()].strip())
            start = stop.end()
    return [part for part in (*found, text[start:].strip()) if part]


def _cut(tokenizer: Tokenizer, text: str, longest: int, name: str) -> list[str]:
    """Parts of at most so many tokens, as few as go, each cut behind a stop."""
    parts, start, stop = [], 0, 0
    for end in (*(found.end() for found in _END.finditer(text)), len(text)):
        if stop > start and len(tokenizer.encode(text[start:end].strip())) > longest:
            parts.append(text[start:stop].strip())
            start = stop
        stop = end
    parts.append(text[start:].strip())
    for part in filter(None, parts):
        if (count := len(tokenizer.encode(part))) > longest:
            shown = part if len(part) <= SHOWN else part[: SHOWN - 1] + "…"
            raise ValueError(f"{name}: expected sentences of at most {longest} tokens, got {count} in {shown!r}")
    return [part for part in parts if part]


def join(first: str, second: str) -> str:
    """Two parts of a text, with a space between them unless the first ends in a script that does without.

    >>> join("Eins.", "Zwei."), join("一。", "二。")
    ('Eins. Zwei.', '一。二。')
    """
    wide = first != "" and unicodedata.east_asian_width(first[-1]) in "WF"
    return first + second if wide or not (first and second) else f"{first} {second}"
