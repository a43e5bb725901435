"""How a causal language model reads a text: what each token sees, by how much, and what it expects next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmha import checks
from mmha.models.causal_lm.model import CausalLM, Layer

if TYPE_CHECKING:
    from mmha.subwords import Tokenizer

LONGEST = 64  # tokens; more than that is no picture
SIGNS = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥"})


@dataclass(frozen=True)
class Candidate:
    """A token that may come next: how it is shown, its probability, and how many tokens are more probable."""

    token: str
    probability: float
    rank: int


@dataclass(frozen=True)
class Step:
    """After `visible` tokens: the most probable next ones, and the one that the text goes on with (None at its end)."""

    visible: int
    candidates: tuple[Candidate, ...]
    following: Candidate | None


@dataclass(frozen=True)
class Explanation:
    """What one head does with a text, and what the model expects after each of its tokens.

    `scores` (T, T) are q·kᵀ/√D, −inf where key > query; `weights` (T, T) their softmax, each row with the sum 1.
    """

    tokens: tuple[str, ...]
    layer: int
    head: int
    head_dim: int
    vocabulary: int
    scores: Tensor
    weights: Tensor
    steps: tuple[Step, ...]


@torch.no_grad()
def explain(
    model: CausalLM, tokenizer: Tokenizer, text: str, layer: int = 0, head: int = 0, count: int = 5
) -> Explanation:
    """Read the text once under a causal mask, which is to read its beginnings of 1, 2, ... tokens one after the other.

    Args: layer, head: whose scores and weights, from 0 (negative: from the end); count: candidates a step.
    Raises: ValueError or TypeError when the text has no tokens or more than 64, or there is no such layer or head.
    """
    layers, heads = model.config.layers, model.config.heads
    layer = checks.integer("layer", layer, -layers, layers - 1) % layers
    head = checks.integer("head", head, -heads, heads - 1) % heads
    count = checks.integer("count", count, 1)
    ids = tokenizer.encode(text)
    checks.require(0 < len(ids) <= LONGEST, "text", f"1 to {LONGEST} tokens", f"{len(ids)} tokens")
    every, logits = _read(model, ids)
    scores = every[layer, head]
    tokens = tuple(shown(tokenizer, i) for i in ids)
    steps = _steps(tokenizer, ids, logits, count)
    return Explanation(tokens, layer, head, model.config.head_dim, logits.shape[-1], scores, scores.softmax(-1), steps)


@torch.no_grad()
def look(
    model: CausalLM, tokenizer: Tokenizer, ids: Sequence[int], count: int = 5
) -> tuple[tuple[str, ...], Tensor, tuple[Step, ...]]:
    """A text of tokens as it is read: how they are shown, the weights of every layer and head, and each step.

    Returns: tokens; float32 (layers, heads, T, T), each row sums to 1; what may come after each token.
    Raises: ValueError when there is no token, or one that is not of the vocabulary.
    """
    every, logits = _read(model, ids)
    return tuple(shown(tokenizer, i) for i in ids), every.softmax(-1), _steps(tokenizer, ids, logits, count)


def _read(model: CausalLM, ids: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The scores of every layer and head, float32 (layers, heads, T, T), and the logits, float64 (T, V)."""
    model.eval()
    inputs: list[tuple[Any, ...]] = []
    layers = [layer for layer in model.layers if isinstance(layer, Layer)]
    hooks = [layer.attention.register_forward_pre_hook(lambda _, given: inputs.append(given[:2])) for layer in layers]
    try:
        logits = model(torch.tensor([list(ids)]))[0].double()
    finally:
        for hook in hooks:
            hook.remove()
    heads = model.config.heads
    found = []
    for layer, given in zip(layers, inputs, strict=True):
        q, k, _ = layer.attention.split(*given)
        found.append(torch.stack([masked_scores(q[0, h], k[0, h // (heads // k.shape[1])]) for h in range(heads)]))
    return torch.stack(found), logits


def _steps(tokenizer: Tokenizer, ids: Sequence[int], logits: Tensor, count: int) -> tuple[Step, ...]:
    rows = enumerate(logits.softmax(-1), 1)
    return tuple(_step(tokenizer, row, n, ids[n] if n < len(ids) else None, count) for n, row in rows)


def masked_scores(q: Tensor, k: Tensor) -> Tensor:
    """q·kᵀ/√D with −inf where the key comes after the query.

    Shapes: q, k float (T, D) → float32 (T, T). Source: Vaswani et al. (2017), section 3.2.

    >>> masked_scores(torch.ones(2, 4), torch.ones(2, 4))
    tensor([[2., -inf],
            [2., 2.]])
    """
    scores = q.float() @ k.float().T / math.sqrt(q.shape[-1])
    later = torch.ones_like(scores, dtype=torch.bool).triu(1)
    return scores.masked_fill(later, -math.inf)


def shown(tokenizer: Tokenizer, token: int) -> str:
    """A token for the eye: white space made visible, bytes that are no text in hexadecimal.

    >>> from mmha.models.causal_lm import Tokenizer
    >>> [shown(Tokenizer([]), token) for token in (65, 32, 10, 0xE2, 256)]
    ['A', '␣', '⏎', '\\\\xe2', '<end>']
    """
    if token == tokenizer.end:
        return "<end>"
    text = tokenizer.pieces[token].decode("utf-8", "backslashreplace").translate(SIGNS)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _step(tokenizer: Tokenizer, probabilities: Tensor, visible: int, following: int | None, count: int) -> Step:
    order = probabilities.sort(dim=-1, descending=True, stable=True).indices.tolist()

    def candidate(rank: int) -> Candidate:
        return Candidate(shown(tokenizer, order[rank]), float(probabilities[order[rank]]), rank)

    return Step(
        visible,
        tuple(candidate(rank) for rank in range(min(count, len(order)))),
        None if following is None else candidate(order.index(following)),
    )
