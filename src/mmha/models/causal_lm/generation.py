"""Text from a causal language model: prompts in, their continuations out, as they are written.

The prompts of a batch are read together in chunks (right-padded, each row with a count); then each row brings one token
a step to the cache. A row that has finished takes no further tokens and changes nothing for the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from mmha import checks
from mmha.models.causal_lm.sampling import Sampling
from mmha.models.causal_lm.stopping import TextStream, check_stops

if TYPE_CHECKING:
    from mmha import KVCache
    from mmha.models.causal_lm.model import CausalLM
    from mmha.subwords import Tokenizer


@dataclass(frozen=True)
class Limits:
    """When a text ends, and what the caches keep of it.

    A text ends after `max_new_tokens`, before the first of the `stop` strings, or with the end-of-text token. `window`
    (tokens) makes the caches cyclic: a token sees the last `window` tokens and the first `sinks`, so that a text may
    grow beyond them (Xiao et al., 2024, "attention sinks"). `dtype` is what the caches store; `chunk` is how many
    tokens of the prompts the model reads at a time.

    Raises: ValueError or TypeError when a value is out of its range.

    >>> Limits(max_new_tokens=0)
    Traceback (most recent call last):
    ...
    ValueError: `max_new_tokens`: expected an integer >= 1, got 0
    """

    max_new_tokens: int = 128
    stop: Sequence[str] = ()
    window: int | None = None
    sinks: int = 0
    dtype: torch.dtype = torch.float32
    chunk: int = 256

    def __post_init__(self) -> None:
        checks.integer("max_new_tokens", self.max_new_tokens, 1)
        check_stops(self.stop)
        if self.window is not None:
            checks.integer("window", self.window, 1)
        checks.integer("sinks", self.sinks, 0)
        checks.require(self.window is not None or self.sinks == 0, "sinks", "0 without a window", self.sinks)
        checks.integer("chunk", self.chunk, 1)


@dataclass(frozen=True)
class Completion:
    """What became of one prompt.

    `tokens` are the new ones, with the one that ended the text; `log_probabilities` are the model's own (nats, before
    temperature, cuts and penalty), one a token; `reason` is "length", "stop" or "end".
    """

    prompt: str
    text: str
    prompt_tokens: int
    tokens: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    reason: str


@dataclass(frozen=True)
class Piece:
    """Text that row `row` has just released; the row's last piece carries its completion."""

    row: int
    text: str
    completion: Completion | None = None


@dataclass
class _Row:
    """A text as it grows."""

    number: int
    prompt: str
    start: list[int]
    generator: Generator
    stream: TextStream
    pieces: list[str] = dataclasses.field(default_factory=list)
    tokens: list[int] = dataclasses.field(default_factory=list)
    log_probabilities: list[float] = dataclasses.field(default_factory=list)

    def take(self, token: int, log_probability: float, tokenizer: Tokenizer, limits: Limits) -> Piece:
        """Add a token; the piece has a completion when the text has come to its end."""
        self.tokens.append(token)
        self.log_probabilities.append(log_probability)
        at_end = token == tokenizer.end
        full = len(self.tokens) == limits.max_new_tokens
        released = self.stream.feed(tokenizer.decode_bytes([token]), final=at_end or full)
        self.pieces.append(released)
        reason = "stop" if self.stream.stopped else "end" if at_end else "length" if full else None
        return Piece(self.number, released, self.completion(reason) if reason else None)

    def completion(self, reason: str) -> Completion:
        """What there is of the text, as one value."""
        tokens, log_probabilities = tuple(self.tokens), tuple(self.log_probabilities)
        return Completion(self.prompt, "".join(self.pieces), len(self.start), tokens, log_probabilities, reason)


def stream(
    model: CausalLM,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
    limits: Limits = Limits(),
    seed: int = 0,
) -> Iterator[Piece]:
    """Continue each prompt, piece by piece as the text is written.

    Row b draws from a generator seeded with seed + b: its text does not depend on the rows beside it (beyond the
    rounding of the model's matrix products, which may differ with the batch size).

    Raises: ValueError or TypeError when an argument does not fit, MemoryError when the caches do not, at once.
    """
    rows = _rows(tokenizer, prompts, limits, seed)
    caches = new_caches(model, [len(row.start) for row in rows], limits)
    return _stream(model, caches, tokenizer, rows, sampling, limits)


@torch.no_grad()
def _stream(
    model: CausalLM,
    caches: list[KVCache],
    tokenizer: Tokenizer,
    rows: list[_Row],
    sampling: Sampling,
    limits: Limits,
) -> Iterator[Piece]:
    model.eval()
    logits = prefill(model, caches, [row.start for row in rows], limits.chunk)
    seen = torch.zeros(logits.shape, dtype=torch.bool)
    for row in rows:
        seen[row.number, row.start] = True
    alive = rows
    while True:
        at = [row.number for row in alive]
        chosen = sampling.choose(logits[at], seen[at], [row.generator for row in alive])
        known = log_probabilities(logits[at]).gather(1, chosen[:, None])[:, 0]
        pieces = [
            row.take(token, log_probability, tokenizer, limits)
            for row, token, log_probability in zip(alive, chosen.tolist(), known.tolist(), strict=True)
        ]
        seen[at, chosen] = True
        yield from (piece for piece in pieces if piece.text or piece.completion)
        ongoing = [
            (row, token) for row, token, piece in zip(alive, chosen, pieces, strict=True) if not piece.completion
        ]
        if not ongoing:
            return
        alive = [row for row, _ in ongoing]
        logits = step(model, caches, {row.number: int(token) for row, token in ongoing})


def generate(
    model: CausalLM,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
    limits: Limits = Limits(),
    seed: int = 0,
) -> list[Completion]:
    """Continue each prompt; the completions in the order of the prompts. Arguments and errors as of `stream`."""
    pieces = stream(model, tokenizer, prompts, sampling, limits, seed)
    done = {piece.row: piece.completion for piece in pieces if piece.completion}
    return [done[row] for row in range(len(prompts))]


def start_tokens(tokenizer: Tokenizer, prompts: Sequence[str]) -> list[list[int]]:
    """The tokens of each prompt; an empty one becomes the end-of-text token, after which a new text begins.

    Raises: TypeError when the prompts are not texts, ValueError when there are none.
    """
    if isinstance(prompts, str) or not all(isinstance(prompt, str) for prompt in prompts):
        raise checks.type_error("prompts", "a list of texts", prompts)
    checks.require(len(prompts) > 0, "prompts", "at least one", "none")
    return [tokenizer.encode(prompt) or [tokenizer.end] for prompt in prompts]


def new_caches(model: CausalLM, lengths: Sequence[int], limits: Limits) -> list[KVCache]:
    """Caches for prompts of these lengths (tokens) and what is written after them."""
    longest = max(lengths)
    if limits.window is None:
        max_len = longest + limits.max_new_tokens
    else:  # all tokens of a chunk are there before the first of them looks back
        max_len = limits.window + limits.sinks + min(limits.chunk, longest)
    return model.new_caches(len(lengths), max_len, window=limits.window, sinks=limits.sinks, dtype=limits.dtype)


def prefill(model: CausalLM, caches: list[KVCache], prompts: Sequence[Sequence[int]], chunk: int) -> Tensor:
    """Read the prompts into the caches, `chunk` tokens at a time; the logits after each prompt's last token.

    Returns: float (B, V); zeros for a prompt without tokens.
    """
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    padded = torch.zeros(len(prompts), int(lengths.max()), dtype=torch.int64)
    for row, prompt in zip(padded, prompts, strict=True):
        row[: len(prompt)] = torch.tensor(prompt, dtype=torch.int64)
    result: Tensor | None = None
    for at in range(0, padded.shape[1], chunk):
        counts = (lengths - at).clamp(0, chunk)
        logits = model(padded[:, at : at + chunk], caches, counts)
        result = torch.zeros_like(logits[:, 0]) if result is None else result
        here = ((lengths > at) & (lengths <= at + chunk)).nonzero()[:, 0]
        result[here] = logits[here, counts[here] - 1]
    assert result is not None
    return result


def step(model: CausalLM, caches: list[KVCache], tokens: dict[int, int]) -> Tensor:
    """Give one token each to some rows of the caches; the logits after it, float (B, V), arbitrary in other rows."""
    batch = len(caches[0].lengths)
    column, counts = torch.zeros(2, batch, dtype=torch.int64)
    rows = list(tokens)
    column[rows], counts[rows] = torch.tensor(list(tokens.values())), 1
    logits: Tensor = model(column[:, None], caches, counts)
    return logits[:, -1]


def log_probabilities(logits: Tensor) -> Tensor:
    """log softmax in float64; ValueError when the model has computed NaN.

    >>> log_probabilities(torch.zeros(1, 2)).exp()
    tensor([[0.5000, 0.5000]], dtype=torch.float64)
    """
    result = logits.double().log_softmax(-1)
    checks.require(not bool(result.isnan().any()), "model", "finite logits", "NaN: its weights are damaged")
    return result


def _rows(tokenizer: Tokenizer, prompts: Sequence[str], limits: Limits, seed: int) -> list[_Row]:
    seed = checks.integer("seed", seed, 0, 2**63 - 1 - len(prompts))
    return [
        _Row(b, prompt, start, Generator().manual_seed(seed + b), TextStream(limits.stop))
        for b, (prompt, start) in enumerate(zip(prompts, start_tokens(tokenizer, prompts), strict=True))
    ]
