"""Tokens per second: a causal language model on mmha's caches beside the same model and weights on torch's attention.

    python benchmarks/generation.py [--seconds N] [--threads N] [--json FILE]

Each side continues from the same context by greedy choice, a few tokens a turn, in turns within one run; logits and
tokens are compared with those of torch first. Two sides are torch: "growing" is the model as one first writes it, with
torch.cat and enable_gqa; "careful" writes into room it has set aside and gives the heads of a group as rows of one
head. A context is keys and values drawn at random, the same on every side: what a step takes does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmha import checkpoint
from mmha.bench.machine import machine
from mmha.bench.measure import thread_count
from mmha.bench.record import rounded
from mmha.models.causal_lm import CausalLM, Config, load

CONTEXTS, BATCHES, TOKENS = (128, 2048, 8192), (1, 8), 8
FEWEST, MOST = 3, 15
LOGITS = 1e-4  # how far the logits of a side in float32 may stand from torch's, norm over norm
# A model of today's shape and 100 million weights; drawn at random, since what a step takes does not depend on them.
HUNDRED_MILLION = Config(32000, width=768, layers=12, heads=12, kv_heads=4, hidden=2048, context=2048)


class Side(ABC):
    """One way to run the model: `fill` gives a layer its context, `step` says what follows, `back` forgets that."""

    name: str
    exact = True  # keys and values are kept in float32

    @abstractmethod
    def fill(self, k: Tensor, v: Tensor) -> None:
        """Give the next layer its context, (B, Hk, T, D) each."""

    @abstractmethod
    def step(self, tokens: Tensor) -> Tensor:
        """The logits (B, V) after one more token a row, int (B, 1)."""

    @abstractmethod
    def back(self) -> None:
        """Forget all steps."""


class Ours(Side):
    """The model as it is, on caches of one dtype."""

    def __init__(self, model: CausalLM, batch: int, context: int, dtype: torch.dtype) -> None:
        self.name = f"mmha {str(dtype).removeprefix('torch.')}"
        self.model, self.context, self.filled = model, context, 0
        self.exact = dtype == torch.float32
        self.caches = model.new_caches(batch, context + TOKENS, dtype=dtype)

    def fill(self, k: Tensor, v: Tensor) -> None:
        self.caches[self.filled].append(k, v)
        self.filled += 1

    def step(self, tokens: Tensor) -> Tensor:
        return self.model(tokens, self.caches)[:, -1]

    def back(self) -> None:
        for cache in self.caches:
            cache.truncate(self.context)


class Torch(Side):
    """The model's own linear layers and norms, with torch's attention between them."""

    def __init__(self, model: CausalLM, context: int) -> None:
        self.model, self.context, self.length = model, context, context
        config = model.config
        rates = config.rotary_base ** (-torch.arange(0, config.head_dim, 2) / config.head_dim)
        angles = torch.arange(context + TOKENS)[:, None] * rates
        self.cos, self.sin = (x.repeat(1, 2) for x in (angles.cos(), angles.sin()))

    @abstractmethod
    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Keep k, v (B, Hk, 1, D) and attend: (B, H, 1, D)."""

    def step(self, tokens: Tensor) -> Tensor:
        model, config = self.model, self.model.config
        x = model.embedding(tokens)
        for number, layer in enumerate(model.layers):
            heads = layer.attention.project_in(layer.norm_attention(x)).unflatten(-1, (-1, config.head_dim))
            q, k, v = heads.transpose(1, 2).split((config.heads, config.kv_heads, config.kv_heads), dim=1)
            seen = self.attend(number, self.turned(q), self.turned(k), v)
            x = x + layer.attention.project_out(seen.transpose(1, 2).flatten(2))
            x = x + layer.feed_forward(layer.norm_feed_forward(x))
        self.length += 1
        return F.linear(model.norm(x[:, -1]), model.embedding.weight)

    def turned(self, x: Tensor) -> Tensor:
        """Rotary positions, in the style "half"."""
        first, second = x.chunk(2, dim=-1)
        return x * self.cos[self.length] + torch.cat((-second, first), dim=-1) * self.sin[self.length]


class Growing(Torch):
    """torch.cat for every token, and enable_gqa."""

    name = "torch growing"

    def __init__(self, model: CausalLM, batch: int, context: int) -> None:
        super().__init__(model, context)
        self.start: list[tuple[Tensor, Tensor]] = []
        self.held: list[tuple[Tensor, Tensor]] = []

    def fill(self, k: Tensor, v: Tensor) -> None:
        self.start.append((k, v))
        self.held.append((k, v))

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = (torch.cat((held, new), dim=2) for held, new in zip(self.held[layer], (k, v), strict=True))
        self.held[layer] = k, v
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)

    def back(self) -> None:
        self.held, self.length = list(self.start), self.context


class Careful(Torch):
    """Room for the whole text set aside, written in place; the query heads of a group are rows of one head."""

    name = "torch careful"

    def __init__(self, model: CausalLM, batch: int, context: int) -> None:
        super().__init__(model, context)
        config = model.config
        shape = (batch, config.kv_heads, context + TOKENS, config.head_dim)
        self.held, self.filled = [(torch.zeros(shape), torch.zeros(shape)) for _ in model.layers], 0

    def fill(self, k: Tensor, v: Tensor) -> None:
        for held, new in zip(self.held[self.filled], (k, v), strict=True):
            held[:, :, : self.context] = new
        self.filled += 1

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys, values = self.held[layer]
        keys[:, :, self.length : self.length + 1] = k
        values[:, :, self.length : self.length + 1] = v
        end, (batch, heads, _, dim) = self.length + 1, q.shape
        rows = q.reshape(batch, keys.shape[1], heads // keys.shape[1], dim)
        return F.scaled_dot_product_attention(rows, keys[:, :, :end], values[:, :, :end]).reshape(q.shape)

    def back(self) -> None:
        self.length = self.context


@dataclass(frozen=True)
class Produced:
    """What a side said: tokens (B, TOKENS) and the logits of the first step (B, V)."""

    tokens: Tensor
    logits: Tensor


def generate(side: Side, first: Tensor) -> Produced:
    """TOKENS greedy tokens after `first` (B, 1); the side is back at its context afterwards."""
    tokens, logits = [first], []
    for _ in range(TOKENS):
        logits.append(side.step(tokens[-1]))
        tokens.append(logits[-1].argmax(-1, keepdim=True))
    side.back()
    return Produced(torch.cat(tokens[1:], dim=1), logits[0])


def sides_of(model: CausalLM, batch: int, context: int) -> list[Side]:
    """All sides, each with the same context."""
    dtypes = (torch.float32, torch.bfloat16, torch.int8)
    sides = [Growing(model, batch, context), Careful(model, batch, context)]
    sides += [Ours(model, batch, context, dtype) for dtype in dtypes]
    generator = torch.Generator().manual_seed(7)
    shape = (batch, model.config.kv_heads, context, model.config.head_dim)
    for _ in model.layers:
        k, v = (torch.randn(shape, generator=generator) for _ in range(2))
        for side in sides:
            side.fill(k, v)
    return sides


def row(name: str, model: CausalLM, batch: int, context: int, seconds: float) -> dict[str, Any]:
    """All sides at one size: compared, then timed in turns; every other round in reversed order."""
    sides = sides_of(model, batch, context)
    first = torch.randint(model.config.vocabulary, (batch, 1), generator=torch.Generator().manual_seed(8))
    produced = [generate(side, first) for side in sides]
    found = [compared(side, made, produced[0]) for side, made in zip(sides, produced, strict=True)]
    times: list[list[float]] = [[] for _ in sides]
    start = time.perf_counter()
    while len(times[0]) < FEWEST or (time.perf_counter() - start < seconds and len(times[0]) < MOST):
        turns = list(zip(sides, times, strict=True))
        for side, taken in turns if len(times[0]) % 2 == 0 else reversed(turns):
            taken.append(seconds_of(lambda side=side: generate(side, first)))
    rates = [batch * TOKENS / statistics.median(taken) for taken in times]
    return {
        "model": name,
        "batch": batch,
        "context": context,
        "sides": [
            {"side": side.name, "tokens_per_second": round(rate, 1), **facts,
             "samples_s": [rounded(x) for x in taken]}
            for side, rate, facts, taken in zip(sides, rates, found, times, strict=True)
        ],
    }  # fmt: skip


def compared(side: Side, made: Produced, exact: Produced) -> dict[str, float]:
    """How far the logits stand from torch's, and the share of tokens that are the same; float32 must agree in both."""
    error = float((made.logits - exact.logits).norm() / exact.logits.norm())
    same = float((made.tokens == exact.tokens).float().mean())
    if side.exact and not (error <= LOGITS and same == 1):
        raise SystemExit(f"{side.name}: logits differ by {error:.1e}, {same:.0%} of the tokens are the same")
    return {"logits_difference": float(f"{error:.2g}"), "same_tokens": round(same, 3)}


def seconds_of(work: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def models() -> dict[str, CausalLM]:
    """The model that ships, and one of 100 million weights."""
    torch.manual_seed(0)
    return {"shipped": load()[0], "100M": CausalLM(HUNDRED_MILLION).eval()}


def print_row(found: dict[str, Any]) -> None:
    """One line a side; the ratios are to torch growing and torch careful."""
    growing, careful = (side["tokens_per_second"] for side in found["sides"][:2])
    print(f"\n{found['model']} model, batch {found['batch']}, context {found['context']}")
    for side in found["sides"]:
        rate = side["tokens_per_second"]
        print(f"  {side['side']:<16}{rate:>9.1f} tokens/s{rate / growing:>8.2f} ×{rate / careful:>8.2f} ×")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every size, print as they come, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="time for a size, 3 rounds or more")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    rows = []
    with thread_count(options.threads), torch.inference_mode():
        for name, model in models().items():
            for batch in BATCHES:
                for context in CONTEXTS:
                    rows.append(row(name, model, batch, context, options.seconds))
                    print_row(rows[-1])
    if options.json:
        run = {
            "measured": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "machine": machine(),
            "threads": options.threads,
            "rows": rows,
        }
        checkpoint.write(options.json, (json.dumps(run, indent=1) + "\n").encode())
        print(f"wrote {options.json}")


if __name__ == "__main__":
    main()
