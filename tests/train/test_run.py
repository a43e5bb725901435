"""Training through Lightning: it does what a plain loop of torch does, and a stopped run goes on to the same bits."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mmha.nn
from mmha import checkpoint
from mmha.masks import Documents
from mmha.train import weights
from mmha.train.run import Progress, Run, Settings
from mmha.train.settings import rate_at

# Where a gradient is 0 but for rounding (the keys' biases), Adam divides rounding by its size: eps keeps it small.
SETTINGS = Settings(steps=11, rate=0.01, seed=7, warmup=3, rounds=3, eps=1e-3, save_every=1e9)
LENGTHS = [5, 1, 3, 2, 4, 7, 2, 3]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
    lost = nn.functional.cross_entropy(model(tokens, lengths), tokens, reduction="none")
    starts = torch.tensor([0, *lengths[:-1]]).cumsum(0)
    return torch.stack([lost.sum(), lost[starts].sum()])


def counts(batch: Batch) -> list[int]:
    return [len(batch[0]), len(batch[1])]


def new_run(folder: Path, settings: Settings = SETTINGS, dropout: float = 0.3, about: Any = None) -> Run:
    torch.manual_seed(settings.seed)
    return Run(Encoder(dropout), settings, folder, about)


def fit(run: Run, show: Callable[[Progress], None] = lambda progress: None) -> Progress:
    def score(model: Any) -> float:
        assert not model.training
        return -float(sum(loss(model, batches(97, 0, 1))))

    return run.fit(batches, loss, counts=counts, evaluate=score, show=show)


def state(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    document, tensors = checkpoint.load(folder / "state.json")
    for row in [document["progress"], *document["progress"]["history"]]:
        del row["seconds"]
    return document["progress"], tensors


def same(a: Path, b: Path) -> bool:
    (at, x), (bt, y) = state(a), state(b)
    return at == bt and x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


def plainly(settings: Settings, dropout: float) -> nn.Module:
    """The same training as a loop of a few lines, on whole batches."""
    torch.manual_seed(settings.seed)
    model = Encoder(dropout)
    decay = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(decay, betas=settings.betas, eps=settings.eps)
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, settings)
        batch = batches(step, 0, 1)
        optimizer.zero_grad()
        sum(total / count for total, count in zip(loss(model, batch), counts(batch), strict=True)).backward()
        if settings.clip:
            nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()
    return model


@pytest.mark.parametrize("changes", [{}, {"accumulate": 2}, {"accumulate": 3, "clip": None, "schedule": "noam"}])
def test_it_trains_as_a_plain_loop_does(tmp_path: Path, changes: dict[str, Any]) -> None:
    settings = replace(SETTINGS, **changes)
    fit(new_run(tmp_path, settings, dropout=0.0))
    trained = state(tmp_path)[1]
    for name, tensor in weights.named(plainly(settings, dropout=0.0)).items():
        torch.testing.assert_close(trained[f"model.{name}"], tensor, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nobody stopped."""
    folder = tmp_path_factory.mktemp("whole")
    fit(new_run(folder, replace(SETTINGS, average=0.9, last=2)))
    return folder


@pytest.mark.parametrize(("step", "number"), [(1, signal.SIGINT), (6, signal.SIGTERM), (9, signal.SIGINT)])
def test_stopped_and_resumed_equals_uninterrupted(tmp_path: Path, whole: Path, step: int, number: int) -> None:
    def stop(progress: Progress) -> None:
        if progress.step == step:
            os.kill(os.getpid(), number)

    settings = replace(SETTINGS, average=0.9, last=2)
    first = new_run(tmp_path, settings)
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt):
        fit(first, stop)
    assert handlers == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    assert first.progress.step == step + 1
    second = new_run(tmp_path, settings)
    second.resume()
    fit(second)
    assert same(tmp_path, whole)


def test_what_is_done_is_not_done_again(whole: Path) -> None:
    run = new_run(whole, replace(SETTINGS, average=0.9, last=2))
    run.resume()
    before = (whole / "state.json").read_bytes()
    progress = fit(run, lambda p: pytest.fail("a step after the last"))
    assert progress.step == 11
    assert (whole / "state.json").read_bytes() == before
    best = state(whole)[1]
    assert all(torch.equal(best[f"best.{k}"], v) for k, v in weights.named(run.model).items())
    assert run.model.words.weight is run.model.embedding.weight


def test_another_run_is_not_continued(tmp_path: Path) -> None:
    settings = replace(SETTINGS, steps=1)
    fit(new_run(tmp_path, settings, about={"data": "brown"}))
    with pytest.raises(ValueError, match=r"expected a run with rate = 0\.5, got one with 0\.01"):
        new_run(tmp_path, replace(settings, rate=0.5), about={"data": "brown"}).resume()
    with pytest.raises(ValueError, match=r"expected a run with data = mine, got one with brown"):
        new_run(tmp_path, settings, about={"data": "mine"}).resume()
    with pytest.raises(ValueError, match="expected weights of this model, got a state without its weight"):
        Run(nn.Linear(2, 3), settings, tmp_path, {"data": "brown"}).resume()
    with pytest.raises(FileNotFoundError):
        new_run(tmp_path / "nowhere").resume()
    new_run(tmp_path, replace(settings, accumulate=2, save_every=3.0), about={"data": "brown"}).resume()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "`steps`: expected an integer >= 1, got 0"),
        ({"rate": 0.0}, "`rate`: expected a learning rate > 0, got 0.0"),
        ({"clip": 0.0}, "`clip`: expected a norm > 0 or None, got 0.0"),
        ({"average": 1.0}, "`average`: expected 0 <= average < 1, got 1.0"),
        ({"schedule": "cosine"}, "`schedule`: expected 'linear' or 'noam', got 'cosine'; did you mean 'linear'?"),
        ({"precision": "16"}, "`precision`: expected '32-true' or 'bf16-mixed', got '16'"),
    ],
)  # fmt: skip
def test_bad_settings_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        replace(SETTINGS, **changes)
