"""From the logits of the next token to a token: what may be drawn, and the draw.

Every step is a function of logits (B, V) alone; `Sampling` names them all and applies them in the usual order:
repetition penalty, temperature, top-k, top-p, min-p. A token that is cut has the logit -inf. Among equal logits the
token with the lower number comes first, in every cut and in the greedy choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from mmha import checks


def greedy(logits: Tensor) -> Tensor:
    """The most probable token of each row, the lowest number among equals.

    Shapes: logits (B, V), any float dtype → int64 (B,).

    >>> greedy(torch.tensor([[1.0, 3.0, 3.0]]))
    tensor([1])
    """
    return (logits == logits.amax(-1, keepdim=True)).int().argmax(-1)


def temperature(logits: Tensor, value: float) -> Tensor:
    """Probabilities p_i ∝ exp(x_i / T), as logits (x − max x) / T: below 1 sharper, above 1 flatter.

    Shapes: logits float (B, V) → float64 (B, V). Source: Ackley, Hinton & Sejnowski (1985).

    >>> temperature(torch.tensor([[0.0, 2.0]]), 2.0)
    tensor([[-1.,  0.]], dtype=torch.float64)
    """
    wide = logits.double()
    # Without the maximum nothing overflows, however cold it gets.
    return (wide - wide.amax(-1, keepdim=True)) / value


def top_k(logits: Tensor, count: int) -> Tensor:
    """Only the `count` most probable tokens of each row; the others get -inf.

    Shapes: logits float (B, V) → the same. Source: Fan, Lewis & Dauphin (2018), section 5.

    >>> top_k(torch.tensor([[1.0, 3.0, 2.0, 2.0]]), 2)
    tensor([[-inf, 3., 2., -inf]])
    """
    order = _descending(logits)[..., :count]
    return _only(logits, torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, True))


def top_p(logits: Tensor, mass: float) -> Tensor:
    """The nucleus: the fewest tokens, most probable first, whose probabilities add up to at least `mass`.

    Token i of the descending order stays while Σ_{j<i} p_j < mass, so that one always stays.

    Shapes: logits float (B, V) → the same. Source: Holtzman et al. (2020), section 3.1.

    >>> top_p(torch.tensor([[0.2, 0.5, 0.3]]).log(), 0.6).exp()
    tensor([[0.0000, 0.5000, 0.3000]])
    """
    order = _descending(logits)
    sorted_p = logits.double().softmax(-1).gather(-1, order)
    before = sorted_p.cumsum(-1) - sorted_p
    before[..., 0] = 0.0
    return _only(logits, torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, before < mass))


def min_p(logits: Tensor, share: float) -> Tensor:
    """Only tokens at least `share` times as probable as the most probable one: p_i ≥ share · max p.

    Shapes: logits float (B, V) → the same. Source: Nguyen et al. (2025), "Turning Up the Heat: Min-p Sampling".

    >>> min_p(torch.tensor([[0.5, 0.4, 0.1]]).log(), 0.3).exp()
    tensor([[0.5000, 0.4000, 0.0000]])
    """
    wide = logits.double()
    return _only(logits, (wide - wide.amax(-1, keepdim=True)).exp() >= share)


def repetition_penalty(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Makes tokens that were seen less probable: x / penalty where x > 0, x · penalty where x ≤ 0.

    Shapes: logits float (B, V), seen bool (B, V) → as logits.
    Source: Keskar et al. (2019), CTRL, section 4.1; the product below 0 is what implementations add, because there a
    division would make a token more probable.

    >>> repetition_penalty(torch.tensor([[3.0, -3.0, 3.0]]), torch.tensor([[True, True, False]]), 1.5)
    tensor([[ 2.0000, -4.5000,  3.0000]])
    """
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def draw(logits: Tensor, generators: Sequence[Generator]) -> Tensor:
    """One token a row with probability softmax(logits), by one uniform number of the row's own generator.

    The token is the first whose cumulative probability exceeds u in [0, 1): a row's draw depends on its logits and its
    generator, never on the other rows, and a token with the logit -inf is never drawn.

    Shapes: logits float (B, V) with B generators → int64 (B,). Source: Devroye (1986), inversion, section III.2.

    >>> draw(torch.tensor([[0.0, float("-inf")]]), [torch.Generator().manual_seed(7)])
    tensor([0])
    """
    cumulative = logits.double().softmax(-1).cumsum(-1)
    uniform = torch.stack([torch.rand((), generator=g, dtype=torch.float64) for g in generators])
    # Scaled by the sum as it came out, which rounding keeps from being exactly 1.
    return torch.searchsorted(cumulative, (uniform * cumulative[:, -1])[:, None], right=True)[:, 0]


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; the defaults draw from the model's own distribution.

    temperature 0 is the greedy choice, for which the cuts do not matter; `top_k`, `top_p` None and `min_p` 0 cut
    nothing; `repetition_penalty` 1 penalises nothing.

    Raises: ValueError or TypeError when a value is out of its range.

    >>> Sampling(temperature=0.8, top_p=0.9)
    Sampling(temperature=0.8, top_k=None, top_p=0.9, min_p=0.0, repetition_penalty=1.0)
    >>> Sampling(temperature=-1)
    Traceback (most recent call last):
    ...
    ValueError: `temperature`: expected a finite number >= 0.0, got -1.0
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        checks.number("temperature", self.temperature, 0.0)
        if self.top_k is not None:
            checks.integer("top_k", self.top_k, 1)
        if self.top_p is not None:
            mass = checks.number("top_p", self.top_p)
            checks.require(0.0 < mass <= 1.0, "top_p", "a number above 0 and at most 1", mass)
        share = checks.number("min_p", self.min_p)
        checks.require(0.0 <= share <= 1.0, "min_p", "a number from 0 to 1", share)
        penalty = checks.number("repetition_penalty", self.repetition_penalty)
        checks.require(0.001 <= penalty <= 1000.0, "repetition_penalty", "a number from 0.001 to 1000", penalty)

    def logits(self, logits: Tensor, seen: Tensor) -> Tensor:
        """The logits of what is drawn from, -inf where a token is cut; at temperature 0 the cuts are left out.

        Shapes: logits float (B, V), seen bool (B, V): which tokens stand in the row already → float64 (B, V).

        >>> Sampling(top_k=1).logits(torch.tensor([[1.0, 2.0]]), torch.zeros(1, 2, dtype=torch.bool))
        tensor([[-inf, 2.]], dtype=torch.float64)
        """
        x = logits.double()
        if self.repetition_penalty != 1.0:
            x = repetition_penalty(x, seen, self.repetition_penalty)
        if self.temperature == 0.0:
            return x
        if self.temperature != 1.0:
            x = temperature(x, self.temperature)
        if self.top_k is not None:
            x = top_k(x, self.top_k)
        if self.top_p is not None:
            x = top_p(x, self.top_p)
        return min_p(x, self.min_p) if self.min_p > 0.0 else x

    def choose(self, logits: Tensor, seen: Tensor, generators: Sequence[Generator]) -> Tensor:
        """The next token of each row.

        Shapes: logits float (B, V), seen bool (B, V), B generators → int64 (B,).

        >>> Sampling(temperature=0).choose(torch.tensor([[1.0, 2.0]]), torch.zeros(1, 2, dtype=torch.bool), [])
        tensor([1])
        """
        x = self.logits(logits, seen)
        return greedy(x) if self.temperature == 0.0 else draw(x, generators)


def _descending(logits: Tensor) -> Tensor:
    return logits.sort(dim=-1, descending=True, stable=True).indices


def _only(logits: Tensor, kept: Tensor) -> Tensor:
    return logits.masked_fill(~kept, float("-inf"))
