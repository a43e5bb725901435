"""Train under a mask of your own: python examples/train_with_your_own_mask.py

The task: say which token stood 7 places back, in a model without positions. Only a mask can tell it where to look.
"""

from __future__ import annotations

import torch
from torch import nn

import mmha
from mmha.masks import Causal, Mask, Predicate, Window

VOCABULARY, WIDTH, BACK, LENGTH, STEPS = 23, 32, 7, 61, 60

# The same mask twice: any function of (batch, head, position of the query, key), and the algebra of named masks.
by_function = Predicate(lambda b, h, p, j: p - j == BACK)
by_algebra = Window(BACK) & ~Window(BACK - 1)


class Model(nn.Module):
    def __init__(self, mask: Mask) -> None:
        super().__init__()
        self.mask = mask
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.attention = mmha.nn.SelfAttention(WIDTH, heads=2)
        self.out = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.out(self.attention(self.embedding(tokens), self.mask))


def train(mask: Mask) -> float:
    """The share of right answers after a few steps; the first 7 tokens of a row have no answer."""
    torch.manual_seed(0)
    model = Model(mask)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-2)
    for _ in range(STEPS + 1):
        tokens = torch.randint(VOCABULARY, (16, LENGTH))
        answers, scores = tokens[:, :-BACK], model(tokens)[:, BACK:]
        loss = nn.functional.cross_entropy(scores.flatten(0, 1), answers.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float((scores.argmax(-1) == answers).float().mean())


def main() -> None:
    print(by_algebra.show(16))
    q = torch.randn(1, 2, LENGTH, 16)
    same = torch.equal(mmha.attention(q, q, q, by_function), mmha.attention(q, q, q, by_algebra))
    print(f"the function and the algebra give the same bits: {same}")
    for name, mask in (("Causal()", Causal()), ("the function", by_function), ("the algebra", by_algebra)):
        visible = mask.plan(1, 1, LENGTH, LENGTH).density
        print(f"{name:<14}{visible:>6.1%} of the pairs visible, {train(mask):>6.1%} right after {STEPS} steps")


if __name__ == "__main__":
    main()
