"""An n-gram model to stand beside a language model: interpolated Kneser-Ney with three discounts an order.

p_n(w | h) = (c_n(hw) − D_n(c_n(hw))) / c_n(h·) + γ_n(h) · p_{n−1}(w | h without its first token), p_0 = 1 / vocabulary.
c_n counts occurrences at the highest order, below it the different tokens seen before; D_n takes one of three values,
for counts of 1, 2 and more, estimated from n_1 … n_4, how many n-grams have the counts 1 … 4; γ_n(h) is what the
discounts of h set free. An h never seen passes on to the order below.

Source: Chen and Goodman, *An Empirical Study of Smoothing Techniques for Language Modeling* (1999), section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mmha import checks

Numbers = np.ndarray[Any, Any]


@dataclass(frozen=True)
class _Order:
    """What is known of n-grams of one length, each a number in base `vocabulary`, sorted."""

    grams: Numbers
    discounted: Numbers
    contexts: Numbers
    totals: Numbers
    free: Numbers


class KneserNey:
    """The n-gram model of a stream of tokens.

    Args: stream int (T,), at least `order` tokens, numbers below vocabulary; vocabulary ** order < 2^63.
    Raises: ValueError naming the argument.

    >>> model = KneserNey([0, 1, 2, 0, 1, 2, 0, 1], vocabulary=3, order=2)
    >>> [round(float(p), 3) for p in model.probabilities([0, 1, 2, 0])]
    [0.333, 0.667, 0.667, 0.667]
    """

    def __init__(self, stream: Any, vocabulary: int, order: int) -> None:
        self.vocabulary = checks.integer("vocabulary", vocabulary, minimum=1)
        self.order = checks.integer("order", order, minimum=1)
        checks.require(vocabulary**order < 2**63, "order", "vocabulary ** order < 2^63", f"{vocabulary} ** {order}")
        tokens = self._tokens("stream", stream)
        checks.require(len(tokens) >= order, "stream", f"at least order = {order} tokens", str(len(tokens)))
        self.orders: list[_Order] = []
        grams, counts = np.unique(self._grams(tokens, order), return_counts=True)
        for length in range(order, 0, -1):
            self.orders.insert(0, _count(grams, counts, vocabulary))
            # The number of different tokens before an n-gram is the number of longer n-grams that end in it.
            grams, counts = np.unique(grams % vocabulary ** (length - 1), return_counts=True)

    def probabilities(self, tokens: Any) -> Numbers:
        """p(token | the order − 1 before it, or as many as there are) for each token: float64 (T,)."""
        tokens = self._tokens("tokens", tokens)
        found = np.full(len(tokens), 1.0 / self.vocabulary)
        for length, known in enumerate(self.orders, start=1):
            grams = self._grams(tokens, length)
            if not len(grams):
                break
            seen, at = _find(known.contexts, grams // self.vocabulary)
            there, place = _find(known.grams, grams)
            direct = np.where(there, known.discounted[place], 0.0)
            mixed = (direct + known.free[at] * found[length - 1 :]) / known.totals[at]
            found[length - 1 :] = np.where(seen, mixed, found[length - 1 :])
        return found

    def _tokens(self, argument: str, tokens: Any) -> Numbers:
        found = np.asarray(tokens, dtype=np.int64).reshape(-1)
        fits = not len(found) or (int(found.min()) >= 0 and int(found.max()) < self.vocabulary)
        checks.require(fits, argument, f"numbers from 0 to {self.vocabulary - 1}", "others")
        return found

    def _grams(self, tokens: Numbers, length: int) -> Numbers:
        count = max(0, len(tokens) - length + 1)
        grams = np.zeros(count, dtype=np.int64)
        for i in range(length):
            grams = grams * self.vocabulary + tokens[i : i + count]
        return grams


def _count(grams: Numbers, counts: Numbers, vocabulary: int) -> _Order:
    taken = discounts(counts)[np.minimum(counts, 3)]
    contexts, first = np.unique(grams // vocabulary, return_index=True)
    totals, free = np.add.reduceat(counts, first), np.add.reduceat(taken, first)
    return _Order(grams, counts - taken, contexts, totals, free)


def discounts(counts: Numbers) -> Numbers:
    """What is taken from a count of 0, 1, 2 and 3 or more: float64 (4,).

    D_i = i − (i + 1) · Y · n_{i+1} / n_i with Y = n_1 / (n_1 + 2 n_2); where a text is too small for that, i / 2.

    >>> discounts(np.array([1, 1, 1, 1, 2, 2, 3, 4])).tolist()
    [0.0, 0.5, 1.25, 1.0]
    """
    n = [int((counts == i).sum()) for i in range(5)]
    if not all(n[1:]):
        return np.array([0.0, 0.5, 1.0, 1.5])
    y = n[1] / (n[1] + 2 * n[2])
    found = [i - (i + 1) * y * n[i + 1] / n[i] for i in (1, 2, 3)]
    return np.array([0.0, *(min(max(d, 0.0), i) for i, d in enumerate(found, start=1))])


def _find(keys: Numbers, wanted: Numbers) -> tuple[Numbers, Numbers]:
    """Whether each is among the sorted keys, and where (0 when it is not)."""
    at = np.searchsorted(keys, wanted)
    at[at == len(keys)] = 0
    return keys[at] == wanted, at
