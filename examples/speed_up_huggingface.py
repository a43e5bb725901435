"""Speed up a Hugging Face model: python examples/speed_up_huggingface.py [FOLDER]

Two lines are new: `mmha.huggingface.register()` and `attn_implementation="mmha"`. FOLDER is a model that transformers
can load, with its tokenizer's vocabulary of at least 1000; without it a small BERT with random weights, and no network.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch
from transformers import AutoModel, BertConfig, BertModel, PreTrainedModel

import mmha

LENGTHS = [512, 40, 310, 120, 75, 488, 23, 204]  # a padded batch: more than half of it is padding


def load(folder: str | None, attention: str) -> PreTrainedModel:
    """The model with this attention, the same weights each time."""
    torch.manual_seed(0)
    if folder:
        return AutoModel.from_pretrained(folder, attn_implementation=attention).eval()
    sizes = {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 256}
    return BertModel._from_config(BertConfig(**sizes), attn_implementation=attention).eval()


def main(folder: str | None = None) -> None:
    mmha.huggingface.register()
    real = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    batch = {"input_ids": torch.randint(1, 1000, real.shape) * real, "attention_mask": real.long()}
    models = {attention: load(folder, attention) for attention in ("eager", "sdpa", "mmha")}
    outs: dict[str, torch.Tensor] = {}
    seconds: dict[str, list[float]] = {attention: [] for attention in models}
    for _ in range(4):  # in turns, since a machine's speed drifts
        for attention, model in models.items():
            start = time.perf_counter()
            with torch.inference_mode():
                outs[attention] = model(**batch).last_hidden_state[real]
            seconds[attention].append(time.perf_counter() - start)
    print(f"{len(LENGTHS)} x {max(LENGTHS)} tokens, {real.float().mean():.0%} of them real")
    for attention, taken in seconds.items():
        apart = (outs[attention] - outs["eager"]).abs().max()
        print(f"{attention:<6}{statistics.median(taken[1:]) * 1e3:8.1f} ms, differs from eager by {apart:.0e} at most")


if __name__ == "__main__":
    main(*sys.argv[1:])
