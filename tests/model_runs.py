"""Runs of mmha's own models, for tests and, as a script, for processes: python model_runs.py NAME FOLDER SETTINGS"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmha.models import bert, seq2seq
from mmha.train import translation
from mmha.train.run import Run
from small_run import LENGTHS, SETTINGS, Batch, batches


def albert(model: Any, batch: Batch) -> Tensor:
    """Masked words and a class of each sequence, by heads that are methods of the model."""
    tokens, lengths = batch
    hidden = model(tokens, lengths)
    words = nn.functional.cross_entropy(model.words(hidden[::3]), tokens[::3], reduction="sum")
    classes = model.next(model.pool(hidden, lengths))
    return torch.stack([words, nn.functional.cross_entropy(classes, torch.tensor(lengths) % 2, reduction="sum")])


def fit_albert(start: Callable[[nn.Module], Run]) -> None:
    """One layer that is called four times."""
    model = bert.Bert(bert.Config(13, width=14, layers=4, heads=2, hidden=17, embedding=11, groups=1))
    start(model).fit(batches, albert, counts=lambda batch: [len(batch[0][::3]), len(batch[1])])


def fit_translator(start: Callable[[nn.Module], Run]) -> None:
    """Two stacks, of which one reads what the other found."""
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(1, 60, (length,), generator=generator).tolist() for length in LENGTHS * 4]
    data = translation.Batches(rows, rows[::-1], 60, 150, 1)
    start(seq2seq.Seq2Seq(seq2seq.tiny(61))).fit(data, translation.loss, counts=translation.counts)


def main(name: str, folder: str, changes: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(5)
    settings = replace(SETTINGS, **json.loads(changes))
    {"albert": fit_albert, "translator": fit_translator}[name](
        lambda model: Run(model.double(), settings, Path(folder))
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
