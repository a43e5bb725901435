"""What one core does of BERT-base's pretraining: python benchmarks/scale_measure.py --json results/scale.json

Forward and backward of a training step (masked words and next sentence, dropout on) on sequences of 128 or 512 tokens,
on one thread, in float32 and in bfloat16 by autocast: tokens a second of the thread's own time, so that neighbours on
the machine count little. `scale_model.py` computes docs/scale.md from it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmha.bench.machine import machine
from mmha.models import bert

TOKENS = 1024
MASKED = 0.15


def batch(config: bert.Config, length: int) -> tuple[Tensor, list[int]]:
    """Random tokens: what they are does not change how long they take."""
    return torch.randint(config.vocabulary, (TOKENS,)), [length] * (TOKENS // length)


def loss(model: bert.Bert, tokens: Tensor, lengths: list[int]) -> Tensor:
    hidden = model(tokens, lengths)
    asked = torch.arange(0, TOKENS, round(1 / MASKED))
    words = nn.functional.cross_entropy(model.words(hidden[asked]).float(), tokens[asked])
    following = model.next(model.pool(hidden, lengths)).float()
    return words + nn.functional.cross_entropy(following, torch.zeros(len(lengths), dtype=torch.int64))


def tokens_a_second(model: bert.Bert, length: int, dtype: torch.dtype, steps: int) -> float:
    """The median over steps, after one that is not counted."""
    tokens, lengths = batch(model.config, length)
    times = []
    for _ in range(steps + 1):
        begun = time.thread_time()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            value = loss(model, tokens, lengths)
        value.backward()
        times.append(time.thread_time() - begun)
        model.zero_grad(set_to_none=True)
    return TOKENS / statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--steps", type=int, default=5)
    given = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = bert.Bert(bert.base()).train()
    rates: dict[str, dict[str, float]] = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        rates[name] = {str(n): round(tokens_a_second(model, n, dtype, given.steps), 1) for n in (128, 512)}
        print(name, rates[name], flush=True)
    result: dict[str, Any] = {
        "tokens_a_core_second": rates,
        "tokens": TOKENS,
        "steps": given.steps,
        "machine": machine(),
    }
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
