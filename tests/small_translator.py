"""A small encoder-decoder on its way to writing texts in capitals, and its tokenizer of bytes and two pairs."""

from __future__ import annotations

import functools

import torch
from torch import nn

from mmha.models.seq2seq import Config, Seq2Seq, Tokenizer

TOKENIZER = Tokenizer([("Ġ", "a"), ("i", "t")])
LETTERS = "abit ."


@functools.cache
def trained(steps: int = 150) -> Seq2Seq:
    """Its translations are about as long as the texts, and it has doubts."""
    torch.manual_seed(3)
    sizes = {"width": 28, "encoder_layers": 1, "decoder_layers": 2, "heads": 7, "hidden": 37, "dropout": 0.0}
    model = Seq2Seq(Config(TOKENIZER.vocab_size, **sizes))  # type: ignore[arg-type]
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    end = [model.end]
    for _ in range(steps):
        texts = ["".join(LETTERS[i] for i in torch.randint(6, (n,))) for n in torch.randint(1, 10, (16,)).tolist()]
        sources = [TOKENIZER.encode(text) + end for text in texts]
        targets = [TOKENIZER.encode(text.upper()) for text in texts]
        source, target, wanted = (
            torch.tensor([token for row in rows for token in row])
            for rows in (sources, [end + row for row in targets], [row + end for row in targets])
        )
        logits = model(source, [len(row) for row in sources], target, [len(row) + 1 for row in targets])
        nn.functional.cross_entropy(logits, wanted).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.requires_grad_(False).eval()
