"""Which words of the source each word of a translation looked at: the decoder's attention to the source, by words."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmha import checks
from mmha.models.seq2seq.explanation import attention
from mmha.models.seq2seq.model import Seq2Seq
from mmha.subwords import Tokenizer

END = "<end>"


@dataclass(frozen=True)
class Alignment:
    """Words of both sides, each with its end, and how much the one looked at the other.

    `weights`: float32 (target words, source words), each row sums to 1.
    """

    source: tuple[str, ...]
    target: tuple[str, ...]
    weights: Tensor


def align(
    model: Seq2Seq,
    tokenizer: Tokenizer,
    source: str,
    target: Sequence[int],
    layer: int = -1,
    head: int | None = None,
) -> Alignment:
    """Words of the source beside words of its translation, given as tokens without their end.

    A word that is several tokens was looked at as much as all of them together, and looked as they did on average.

    Args: layer of the decoder, from 0, negative from the last; head from 0, None = the mean of all heads.
    Raises: ValueError or TypeError naming the argument, what was expected and what came.
    """
    layers, heads = model.config.decoder_layers, model.config.heads
    checks.integer("layer", layer, -layers, layers - 1)
    if head is not None:
        checks.integer("head", head, -heads, heads - 1)
    every = alignments(model, tokenizer, source, target)
    weights = every.weights[layer].mean(0) if head is None else every.weights[layer, head]
    return Alignment(every.source, every.target, weights)


def alignments(model: Seq2Seq, tokenizer: Tokenizer, source: str, target: Sequence[int]) -> Alignment:
    """As `align`, of every layer of the decoder and every head: weights float32 (layers, heads, words, words)."""
    read = tokenizer.encode(source)
    weights = attention(model, read, target)
    columns, rows = (words(tokenizer, tokens) for tokens in (read, target))
    summed = torch.stack([part.sum(-1) for part in torch.split(weights, [n for _, n in columns], -1)], -1)
    averaged = torch.stack([part.mean(-2) for part in torch.split(summed, [n for _, n in rows], -2)], -2)
    return Alignment(tuple(word for word, _ in columns), tuple(word for word, _ in rows), averaged)


def words(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[tuple[str, int]]:
    """The words of a text with the number of tokens of each, and its end, a token that is in no text.

    A word ends at white space and beside a mark; letters of scripts without spaces belong together where the
    tokenizer has them so. No letter is cut, though a token may hold a part of one.

    >>> words(Tokenizer([("i", "t")]), Tokenizer([("i", "t")]).encode("it is."))
    [('it', 1), ('is', 3), ('.', 1), ('<end>', 1)]
    """
    found: list[tuple[str, int]] = []
    held, count = b"", 0
    for token in tokens:
        held, count = held + tokenizer.pieces[token], count + 1
        try:
            text = held.decode()
        except UnicodeDecodeError as error:
            if error.reason == "unexpected end of data":  # the rest of the letter follows
                continue
            text = held.decode("utf-8", "replace")
        if found and _continues(found[-1][0], text):
            found[-1] = found[-1][0] + text, found[-1][1] + count
        else:
            found.append((text, count))
        held, count = b"", 0
    if count:
        found.append((held.decode("utf-8", "replace"), count))
    return [(word.strip() or word, n) for word, n in found] + [(END, 1)]


def _continues(word: str, text: str) -> bool:
    """Whether the text goes on with the word before it."""
    if word.isspace():
        return True
    if not (word and text):
        return True
    before, after = word[-1], text[0]
    return _is_letter(before) and _is_letter(after) and not (_is_wide(before) or _is_wide(after))


def _is_letter(character: str) -> bool:
    """A letter, a digit, or what combines with one."""
    return character.isalnum() or unicodedata.category(character)[0] == "M"


def _is_wide(character: str) -> bool:
    """Of a script that has no spaces between words."""
    return unicodedata.east_asian_width(character) in "WF"
