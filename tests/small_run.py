"""A tiny run of `mmha.train.run` with what makes one hard to repeat: for tests and, as a script, for processes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import mmha.nn
from mmha.masks import Documents
from mmha.train.run import Progress, Run, Settings

# Where a gradient is 0 but for rounding (the keys' biases), Adam divides rounding by its size: eps keeps it small.
SETTINGS = Settings(steps=11, rate=0.01, seed=7, warmup=3, rounds=3, eps=1e-3, save_every=1e9)
LENGTHS = [5, 1, 3, 2, 4, 7, 2, 3]


class Encoder(nn.Module):
    """A tiny packed encoder with what makes a run hard to repeat: dropout, a tied weight, a buffer."""

    def __init__(self, dropout: float = 0.3) -> None:
        super().__init__()
        self.embedding = nn.Embedding(13, 14)
        self.layers = nn.ModuleList(
            mmha.nn.TransformerEncoderLayer(14, 2, 17, dropout=dropout, batch_first=True) for _ in range(2)
        )
        self.register_buffer("scale", torch.ones(1))
        self.words = nn.Linear(14, 13)
        self.words.weight = self.embedding.weight

    def forward(self, tokens: Tensor, lengths: list[int]) -> Tensor:
        hidden = self.embedding(tokens)[None] * self.scale
        for layer in self.layers:
            hidden = layer(hidden, src_mask=Documents.from_lengths(lengths))
        return self.words(hidden[0])


Batch = tuple[Tensor, list[int]]


def batches(step: int, part: int, parts: int) -> Batch:
    """Sequences of unequal lengths: the parts of a step hold unequal numbers of tokens."""
    generator = torch.Generator().manual_seed(step)
    rows = [torch.randint(13, (length,), generator=generator) for length in LENGTHS][part::parts]
    return torch.cat(rows), [len(row) for row in rows]


def loss(model: Any, batch: Batch) -> Tensor:
    """Two means over unequal counts: of all tokens, and of the first of each sequence."""
    tokens, lengths = batch
    lost = nn.functional.cross_entropy(model(tokens, lengths), (3 * tokens + 1) % 13, reduction="none")
    starts = torch.tensor([0, *lengths[:-1]]).cumsum(0)
    return torch.stack([lost.sum(), lost[starts].sum()])


def counts(batch: Batch) -> list[int]:
    return [len(batch[0]), len(batch[1])]


def new_run(
    folder: Path,
    settings: Settings = SETTINGS,
    dropout: float = 0.3,
    about: Any = None,
    dtype: torch.dtype = torch.float32,
) -> Run:
    torch.manual_seed(settings.seed)
    return Run(Encoder(dropout).to(dtype), settings, folder, about)


def fit(run: Run, show: Callable[[Progress], None] = lambda progress: None) -> Progress:
    def score(model: Any) -> float:
        assert not model.training
        return -float(sum(loss(model, batches(97, 0, 1))))

    return run.fit(batches, loss, counts=counts, evaluate=score, show=show)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--settings", type=json.loads, default={})
    parser.add_argument("--dropout", type=float, default=0.3)
    parser.add_argument("--double", action="store_true")
    parser.add_argument("--resume", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    dtype = torch.float64 if given.double else torch.float32
    run = new_run(given.folder, replace(SETTINGS, **given.settings), given.dropout, dtype=dtype)
    if given.resume:
        run.resume()
    fit(run, lambda at: print(at.step, at.loss, flush=True))


if __name__ == "__main__":
    main()
