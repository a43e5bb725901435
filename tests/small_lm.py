"""Small causal language models with decided opinions, and a tokenizer of four letters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmha.models.causal_lm import CausalLM, Config, Tokenizer


class Letters(Tokenizer):
    """a, b, c, d and the end: few enough tokens to try every text."""

    def __init__(self) -> None:
        super().__init__([])
        self.pieces = (b"a", b"b", b"c", b"d", b"")

    def encode(self, text: str) -> list[int]:
        return ["abcd".index(letter) for letter in text]


def build(vocabulary: int, layers: int = 2, seed: int = 3) -> CausalLM:
    """A model with random weights, large enough that some next tokens are far more probable than others."""
    torch.manual_seed(seed)
    model = CausalLM(Config(vocabulary, width=24, layers=layers, heads=6, kv_heads=3, hidden=29, context=31))
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            nn.init.normal_(weight, std=1.0 if name.startswith("embedding") else 0.3)
    return model.eval()


@torch.no_grad()
def next_logits(model: CausalLM, tokens: list[int]) -> Tensor:
    """The oracle of decoding: the whole text once more, without caches; float64 (V,)."""
    return model(torch.tensor([tokens]))[0, -1].double()
