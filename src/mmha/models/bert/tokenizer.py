"""WordPiece: words are cut into the longest pieces of the vocabulary, from the left; "##" joins a piece to the last.

Text is cleaned, lower-cased and freed of accents (unless the model is cased), and cut at white space and punctuation.
Five markers stand beside the pieces: padding, the unknown word, the beginning [CLS], the end of a sentence [SEP], and
[MASK]. No text encodes to them unless it is asked to.

Source: Devlin et al. (2019), section 3; Schuster and Nakajima, *Japanese and Korean Voice Search* (2012).
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

from mmha import checks

#: The names of each marker, the first of BERT's vocabularies, the second of sentencepiece's, which ALBERT has.
MARKERS = {
    "pad": ("[PAD]", "<pad>"),
    "unknown": ("[UNK]", "<unk>"),
    "cls": ("[CLS]",),
    "sep": ("[SEP]",),
    "mask": ("[MASK]",),
}
RARE = "\u16a0"  # a rune: where unknown words have no token, encoding it fails at once and not in somebody's text
LETTERS = 1000  # of most alphabets all; of Chinese, whose every letter is a word, the frequent ones


class Tokenizer:
    """Text to numbers and back, from a vocabulary of pieces or from the document of a tokenizer of `tokenizers`.

    Args: definition: a dict, the content of a tokenizer.json. `Tokenizer.of(pieces)` makes the one of a vocab.txt.
    Attributes: pieces, the text of every token; vocabulary, how many there are; pad, unknown, cls, sep, mask: markers.
    Raises: ImportError naming the extra when `tokenizers` is missing, ValueError for a definition that is none, whose
        numbers leave gaps, or that lacks a marker or a token for unknown words.

    >>> tokenizer = Tokenizer.of(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "play", "##ing", "!"])
    >>> tokenizer.encode("Playing!"), tokenizer.decode([5, 6, 7]), tokenizer.vocabulary, tokenizer.mask
    ([5, 6, 7], 'playing!', 8, 4)
    """

    def __init__(self, definition: dict[str, Any]) -> None:
        self.definition = {**definition, "truncation": None, "padding": None, "post_processor": None}
        numbers: dict[str, int] = self._coder.get_vocab(with_added_tokens=True)
        if sorted(numbers.values()) != list(range(len(numbers))):
            raise checks.value_error(
                "definition", f"tokens numbered from 0 to {len(numbers) - 1}", f"numbers up to {max(numbers.values())}"
            )
        self.pieces = tuple(sorted(numbers, key=numbers.__getitem__))
        found = {marker: next((numbers[n] for n in names if n in numbers), None) for marker, names in MARKERS.items()}
        for marker, number in found.items():
            checks.require(number is not None, "definition", f"a token {checks.listed(MARKERS[marker])}", "none")
        self.pad, self.unknown, self.cls, self.sep, self.mask = (int(found[marker] or 0) for marker in MARKERS)
        self.encode(RARE)

    @classmethod
    def of(cls, pieces: Sequence[str], lower: bool = True, strip_accents: bool | None = None) -> Tokenizer:
        """The WordPiece tokenizer of a vocabulary, a piece a number; strip_accents None = as lower.

        Raises: ValueError for a piece that comes twice, and as the class itself.
        """
        numbers = {piece: number for number, piece in enumerate(pieces)}
        if len(numbers) != len(pieces):
            twice = next(piece for number, piece in enumerate(pieces) if numbers[piece] != number)
            raise checks.value_error("pieces", "pieces that differ", f"{twice!r} twice")
        checks.require("[UNK]" in numbers, "pieces", "a piece [UNK]", "none")
        coder = _coder(lower, strip_accents)
        coder.model = _library().models.WordPiece(numbers, unk_token="[UNK]")
        return cls(json.loads(coder.to_str()))

    @property
    def vocabulary(self) -> int:
        """How many tokens there are, the markers included."""
        return len(self.pieces)

    def encode(self, text: str, markers: bool = False) -> list[int]:
        """The tokens of the text, none for an empty one; with `markers`, "[MASK]" and its like in it are themselves.

        Raises: TypeError when it is not a str, ValueError when it is not Unicode text (a lone surrogate).
        """
        return self.encode_all([text], markers)[0]

    def encode_all(self, texts: Sequence[str], markers: bool = False) -> list[list[int]]:
        """The tokens of each text, found side by side. Raises: as `encode`."""
        if isinstance(texts, str):
            raise checks.type_error("texts", "a sequence of texts", texts)
        for text in texts:
            _check(text)
        coder = self._marking_coder if markers else self._coder
        with _one_line("a tokenizer of every text"):
            return [found.ids for found in coder.encode_batch_fast(list(texts), add_special_tokens=False)]

    def offsets(self, text: str, markers: bool = False) -> list[tuple[int, int]]:
        """Where each token of the text begins and ends in it, counted in characters. Raises: as `encode`."""
        _check(text)
        coder = self._marking_coder if markers else self._coder
        return [(begin, end) for begin, end in coder.encode(text, add_special_tokens=False).offsets]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the tokens, markers included, as near as pieces come to it.

        Raises: ValueError for a number that is no token.
        """
        known = [checks.integer("ids", number, 0, self.vocabulary - 1) for number in ids]
        text: str = self._coder.decode(known, skip_special_tokens=False)
        return text

    def complete(self) -> dict[str, Any]:
        """The content of a tokenizer.json that knows the markers and puts them around sentences and pairs."""
        coder = _parsed(json.loads(self._marking_coder.to_str()))
        cls, sep = self.pieces[self.cls], self.pieces[self.sep]
        coder.post_processor = _library().processors.TemplateProcessing(
            f"{cls} $A {sep}", f"{cls} $A {sep} $B:1 {sep}:1", [(cls, self.cls), (sep, self.sep)]
        )
        found: dict[str, Any] = json.loads(coder.to_str())
        return found

    def settings(self) -> dict[str, Any]:
        """What a tokenizer_config.json says of it: its class in transformers, and the markers."""
        names = ("pad", "unk", "cls", "sep", "mask")
        numbers = (self.pad, self.unknown, self.cls, self.sep, self.mask)
        markers = {f"{name}_token": self.pieces[number] for name, number in zip(names, numbers, strict=True)}
        normalizer = self.definition.get("normalizer") or {}
        if self.definition["model"]["type"] != "WordPiece" or normalizer.get("type") != "BertNormalizer":
            return {"tokenizer_class": "PreTrainedTokenizerFast", **markers}
        lower = {"do_lower_case": normalizer["lowercase"], "strip_accents": normalizer["strip_accents"]}
        return {"tokenizer_class": "BertTokenizer", **lower, **markers}

    @cached_property
    def _coder(self) -> Any:
        """What takes "[MASK]" in a text for text."""
        coder = _parsed(self.definition)
        coder.encode_special_tokens = True
        return coder

    @cached_property
    def _marking_coder(self) -> Any:
        """What takes "[MASK]" in a text for the marker."""
        coder = _parsed(self.definition)
        coder.add_special_tokens([self.pieces[n] for n in (self.pad, self.unknown, self.cls, self.sep, self.mask)])
        return coder


def train(texts: Iterable[str], size: int, lower: bool = True) -> Tokenizer:
    """The tokenizer of these texts with `size` tokens or, where they have no more pieces, fewer; the same each time.

    Letters beyond the LETTERS most frequent ones become the unknown word.

    Raises: ImportError naming the extra when `tokenizers` is missing, ValueError for a size without room for markers
        and letters.

    >>> train(["low lower lowest"] * 3, 23).pieces[5:]
    ('e', 'l', 'o', 'r', 's', 't', 'w', '##e', '##o', '##r', '##s', '##t', '##w', 'lo', 'low', 'lowe', '##st', 'lower')
    """
    texts, library, coder = list(texts), _library(), _coder(lower)
    coder.model = library.models.WordPiece(unk_token="[UNK]")
    first = [names[0] for names in MARKERS.values()]
    letters, inside = _letters(coder, texts)
    # The trainer numbers what stands inside words as a hash table has it; named beforehand, it is always the same.
    first += letters + inside
    checks.integer("size", size, minimum=len(first))
    trainer = library.trainers.WordPieceTrainer(
        vocab_size=size, min_frequency=2, show_progress=False, special_tokens=first,
        initial_alphabet=letters, limit_alphabet=len(letters),
    )  # fmt: skip
    coder.train_from_iterator(texts, trainer)
    numbers: dict[str, int] = coder.get_vocab()
    return Tokenizer.of(sorted(numbers, key=numbers.__getitem__), lower)


def _letters(coder: Any, texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """The most frequent letters of the texts, and those of them that stand inside words, as pieces."""
    words = Counter[str]()
    for text in texts:
        clean = coder.normalizer.normalize_str(text)
        words.update(word for word, _ in coder.pre_tokenizer.pre_tokenize_str(clean))
    counts = Counter[str]()
    for word, count in words.items():
        for letter in word:
            counts[letter] += count
    kept = sorted(sorted(counts, key=lambda letter: (-counts[letter], letter))[:LETTERS])
    within = {letter for word in words for letter in word[1:]}
    return kept, ["##" + letter for letter in kept if letter in within]


def _coder(lower: bool, strip_accents: bool | None = None) -> Any:
    library = _library()
    coder = library.Tokenizer(library.models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"))
    coder.normalizer = library.normalizers.BertNormalizer(lowercase=lower, strip_accents=strip_accents)
    coder.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    coder.decoder = library.decoders.WordPiece()
    return coder


def _parsed(definition: dict[str, Any]) -> Any:
    library = _library()
    with _one_line("the content of a tokenizer.json"):
        return library.Tokenizer.from_str(json.dumps(definition))


@contextlib.contextmanager
def _one_line(expected: str) -> Iterator[None]:
    """What the library raises at a definition, as a ValueError: plain Exceptions, and Rust's panics, which are none."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        raise checks.value_error("definition", expected, f"another ({' '.join(str(error).split())})") from None


def _check(text: object) -> None:
    if not isinstance(text, str):
        raise checks.type_error("text", "a str", text)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise checks.value_error("text", "Unicode text", f"a lone surrogate at {error.start}") from None


def _library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError('the tokenizer needs tokenizers: pip install "mmha[lm]"') from error
    return tokenizers
