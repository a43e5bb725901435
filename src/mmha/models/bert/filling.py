"""What stands behind a [MASK]: the words of the vocabulary with their probabilities.

p(word | text) = softmax(logits)[word] at the place of the mask, over the whole vocabulary. With several masks in a text
each is filled by itself, all others still hidden (Devlin et al. 2019, section 3.1, task 1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmha import checks
from mmha.models.bert.looks import looked_at
from mmha.models.bert.model import Bert
from mmha.models.bert.tokenizer import Tokenizer
from mmha.nn import groups

MASK = "[MASK]"
TOKENS = 4096  # that go through the model at a time
MASKS = 256  # whose probabilities, one for each word of the vocabulary, are held at a time


@dataclass(frozen=True)
class Candidate:
    """A token for the place of a mask, its number and its probability."""

    token: str
    number: int
    probability: float


@dataclass(frozen=True)
class Blank:
    """A mask: its place among the tokens, [CLS] being token 0, and what may stand there, the most probable first."""

    position: int
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class Filling:
    """A text, its tokens with [CLS] and [SEP] around them, its masks, and the text with the best token in each."""

    text: str
    tokens: tuple[str, ...]
    blanks: tuple[Blank, ...]
    filled: str


def encode(model: Bert, tokenizer: Tokenizer, text: str, name: str = "text") -> list[int]:
    """The tokens of a text with at least one [MASK], between [CLS] and [SEP]; `name` is what messages call it.

    Raises: ValueError when no mask is in it, or more tokens than the model has positions.
    """
    tokens = [tokenizer.cls, *tokenizer.encode(text, markers=True), tokenizer.sep]
    checks.require(tokenizer.mask in tokens, name, f"a text with at least one {MASK}", checks.describe(text))
    most = model.config.positions
    checks.require(
        len(tokens) <= most, name, f"at most {most} tokens, {tokenizer.pieces[tokenizer.cls]} included", len(tokens)
    )
    return tokens


@torch.no_grad()
def fill(
    model: Bert, tokenizer: Tokenizer, texts: Sequence[str], top: int = 5, names: Sequence[str] | None = None
) -> list[Filling]:
    """The `top` most probable tokens for every [MASK] of every text.

    Args: names, what messages call each text; None = `texts[0]` and so on.
    Raises: ValueError for a text without [MASK] or too long for the model, and for a model without the head for masked
        words; TypeError for what is no text. All are found before anything is computed.

    >>> from mmha.models.bert import Bert, Tokenizer, tiny
    >>> tokenizer = Tokenizer.of(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat"])
    >>> (filling,) = fill(Bert(tiny(8)), tokenizer, ["The [MASK] sat"], top=8)
    >>> filling.tokens, [blank.position for blank in filling.blanks]
    (('[CLS]', 'the', '[MASK]', 'sat', '[SEP]'), [2])
    >>> round(sum(candidate.probability for candidate in filling.blanks[0].candidates), 5)
    1.0
    """
    checks.integer("top", top, minimum=1)
    if names is None:
        names = [f"texts[{i}]" for i in range(len(texts))]
    checks.require("words" in model.config.parts, "model", "one with a head for masked words", "one without")
    rows = [encode(model, tokenizer, text, name) for text, name in zip(texts, names, strict=True)]
    model.eval()
    found: dict[int, list[Blank]] = {}
    lengths = [len(row) for row in rows]
    for group in groups(lengths, range(len(rows)), TOKENS):
        tokens = torch.tensor([token for i in group for token in rows[i]])
        hidden = model(tokens, [lengths[i] for i in group])
        candidates = _candidates(model, tokenizer, hidden[tokens == tokenizer.mask], top)
        for i in group:
            places = [place for place, token in enumerate(rows[i]) if token == tokenizer.mask]
            found[i] = [Blank(place, next(candidates)) for place in places]
    return [
        Filling(text, tuple(tokenizer.pieces[t] for t in rows[i]), tuple(found[i]), _filled(text, found[i]))
        for i, text in enumerate(texts)
    ]


def looks(model: Bert, tokenizer: Tokenizer, text: str) -> Tensor:
    """How much each token of a filling's `tokens` looked at each other in the last layer, the mean of its heads.

    Returns: float32 (T, T), each row sums to 1. Raises: as `encode`.
    """
    tokens = encode(model, tokenizer, text)
    return looked_at(model.eval(), torch.tensor(tokens), [len(tokens)])


def _candidates(model: Bert, tokenizer: Tokenizer, hidden: Tensor, top: int) -> Iterator[tuple[Candidate, ...]]:
    """Of each mask, whose numbers in the last layer are hidden (M, width), the most probable tokens."""
    for part in torch.split(hidden, MASKS):
        # Rows of the embedding beyond the tokenizer's pieces, which round its size up, are words without a name.
        best = model.words(part).softmax(-1)[:, : tokenizer.vocabulary].topk(min(top, tokenizer.vocabulary))
        for numbers, probabilities in zip(best.indices.tolist(), best.values.tolist(), strict=True):
            pairs = zip(numbers, probabilities, strict=True)
            yield tuple(Candidate(tokenizer.pieces[number], number, p) for number, p in pairs)


def _filled(text: str, blanks: Sequence[Blank]) -> str:
    """The text with the best token for each mask; a piece that goes on with a word is joined to it."""
    whole, *rest = text.split(MASK)
    for blank, after in zip(blanks, rest, strict=True):
        token = blank.candidates[0].token
        whole = whole.rstrip() + token[2:] if token.startswith("##") else whole + token.removeprefix("▁")
        whole += after
    return whole
