"""Byte-level byte-pair encoding: any text is a sequence of tokens, and the tokens give the text back, byte for byte.

A text is UTF-8. Its 256 bytes are the first tokens; each further token is two tokens joined, the pair that was most
frequent in the training text when it was its turn. Bytes are written as the printable letters of GPT-2's table, so
that a tokenizer is a list of pairs of words. The last token is the end of a document: no text encodes to it.

Source: Sennrich et al. (2016), section 3.2; Radford et al., *Language Models are Unsupervised Multitask Learners*
(2019), section 2.2.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from mmha import checks


def byte_letters() -> list[str]:
    """The letter that stands for each byte: printable Latin-1 is itself, the others follow from code point 256 on.

    >>> letters = byte_letters()
    >>> letters[ord("a")], letters[ord(" ")], letters[ord("\\n")], len(set(letters))
    ('a', 'Ġ', 'Ċ', 256)
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(others)) for b in range(256)]


class Tokenizer:
    """Text to tokens and back, from the list of pairs that were joined in training.

    Raises: ImportError naming the extra when `tokenizers` is missing, at the first text that is encoded; ValueError
        for pairs of words that are not tokens themselves.

    >>> tokenizer = Tokenizer([("t", "h"), ("th", "e")])
    >>> tokenizer.encode("the th"), tokenizer.decode(tokenizer.encode("the th")), tokenizer.vocab_size
    ([257, 32, 256], 'the th', 259)
    """

    def __init__(self, merges: Iterable[tuple[str, str]]) -> None:
        self.merges = tuple((first, second) for first, second in merges)
        letters = byte_letters()
        known = {letter: bytes([byte]) for byte, letter in enumerate(letters)}
        for first, second in self.merges:
            if first not in known or second not in known:
                raise ValueError(f"`merges`: expected pairs of tokens, got {(first, second)!r}")
            known[first + second] = known[first] + known[second]
        self._numbers = {word: number for number, word in enumerate(known)}
        self.pieces: tuple[bytes, ...] = (*known.values(), b"")

    @property
    def vocab_size(self) -> int:
        """How many tokens there are, the end of a document included."""
        return len(self.pieces)

    @property
    def end(self) -> int:
        """The token that ends a document; it decodes to nothing."""
        return len(self.pieces) - 1

    def encode(self, text: str) -> list[int]:
        """The tokens of the text; none for an empty one.

        Raises: TypeError when it is not a str, ValueError when it is not Unicode text (a lone surrogate).
        """
        if not isinstance(text, str):
            raise checks.type_error("text", "a str", text)
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise checks.value_error("text", "Unicode text", f"a lone surrogate at {error.start}") from None
        found: list[int] = self._coder.encode(text).ids
        return found

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the tokens; where they end inside a letter, it becomes U+FFFD.

        Raises: ValueError for a number that is no token.
        """
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of the tokens, which may end inside a letter."""
        return b"".join(self.pieces[checks.integer("ids", i, 0, self.end)] for i in ids)

    @cached_property
    def _coder(self) -> Any:
        library = _library()
        coder = library.Tokenizer(library.models.BPE(vocab=self._numbers, merges=list(self.merges)))
        coder.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        return coder


def train(texts: Sequence[str], vocab_size: int) -> Tokenizer:
    """The tokenizer of these texts, with `vocab_size` tokens or, where the texts have no more pairs, fewer.

    Raises: ImportError naming the extra when `tokenizers` is missing, ValueError for fewer than 257 tokens.

    >>> train(["the then there"], 259).merges
    (('h', 'e'), ('t', 'he'))
    """
    checks.integer("vocab_size", vocab_size, minimum=257)
    library = _library()
    coder = library.Tokenizer(library.models.BPE())
    coder.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocab_size - 1, show_progress=False, initial_alphabet=byte_letters(), min_frequency=2
    )
    coder.train_from_iterator(texts, trainer)
    pairs = json.loads(coder.to_str())["model"]["merges"]
    return Tokenizer([(first, second) for first, second in pairs])


def stored(tokenizer: Tokenizer) -> str:
    """The pairs as a checkpoint holds them, a line each.

    >>> stored(Tokenizer([("t", "h"), ("th", "e")]))
    't h\\nth e'
    """
    return "\n".join(" ".join(pair) for pair in tokenizer.merges)


def restored(document: dict[str, Any], vocab_size: int, path: Path) -> Tokenizer:
    """The tokenizer of a checkpoint's document, which has `stored` pairs as its "merges".

    Raises: ValueError when they are no pairs of tokens, or make another number of tokens.
    """
    try:
        tokenizer = Tokenizer((first, second) for first, second in map(str.split, document["merges"].splitlines()))
    except (KeyError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: expected the pairs of a tokenizer, got others ({error!r})") from None
    if tokenizer.vocab_size != vocab_size:
        raise ValueError(f"{path}: expected {vocab_size} tokens, got {tokenizer.vocab_size}")
    return tokenizer


def _library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError('the tokenizer needs tokenizers: pip install "mmha[lm]"') from error
    return tokenizers
