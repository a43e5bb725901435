"""Training through Lightning: it does what a plain loop of torch does, and a stopped run goes on to the same bits."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmha import checkpoint
from mmha.train import weights
from mmha.train.lightning_fit import recomputed
from mmha.train.run import Progress, Run, Settings
from mmha.train.settings import rate_at
from small_run import SETTINGS, Encoder, batches, counts, fit, loss, new_run


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
        for parameter in model.parameters():
            if settings.clip_value:
                parameter.grad = parameter.grad.clamp(-settings.clip_value, settings.clip_value)
        if settings.clip:
            nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()
    return model


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"accumulate": 2},
        {"accumulate": 3, "clip": None, "schedule": "noam"},
        {"clip": None, "clip_value": 0.002},
    ],
)
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
        ({"clip_value": -1.0}, "`clip_value`: expected a number > 0 or None, got -1.0"),
        ({"average": 1.0}, "`average`: expected 0 <= average < 1, got 1.0"),
        ({"schedule": "cosine"}, "`schedule`: expected 'linear' or 'noam', got 'cosine'; did you mean 'linear'?"),
        ({"precision": "16"}, "`precision`: expected '32-true' or 'bf16-mixed', got '16'"),
    ],
)  # fmt: skip
def test_bad_settings_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        replace(SETTINGS, **changes)


def test_without_lightning_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning", None)
    with pytest.raises(ImportError, match=r'^this training needs Lightning: pip install "mmha\[train\]"$'):
        new_run(tmp_path)


def test_the_best_round_is_kept(tmp_path: Path) -> None:
    """Scores 1, 5, 3: the second round's weights are in the model at the end, the running mean and not its own."""
    seen: list[dict[str, Tensor]] = []
    run = new_run(tmp_path, replace(SETTINGS, average=0.5))

    def score(model: nn.Module) -> float:
        seen.append(weights.copied(weights.named(model)))
        return [1.0, 5.0, 3.0][len(seen) - 1]

    progress = run.fit(batches, loss, counts=counts, evaluate=score)
    assert (progress.best, progress.best_epoch, [row["score"] for row in progress.history]) == (5.0, 2, [1.0, 5.0, 3.0])
    assert all(torch.equal(tensor, seen[1][name]) for name, tensor in weights.named(run.model).items())


def test_means_are_those_of_the_formula() -> None:
    """The running mean m ← d·m + (1 − d)·w with d = min(decay, (1 + t) / (10 + t)), and the mean of the last rounds."""
    layer = nn.Linear(1, 1, bias=False)
    means = weights.Means(weights.named(layer), decay=0.25, last=3)
    expected, ends = layer.weight.item(), []
    for step in range(1, 12):
        weights.put(layer, {"weight": torch.full((1, 1), float(step * step))})
        means.update(step)
        decay = min(0.25, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step * step
        if step % 2:
            means.end_round()
            ends.append(expected)
            now = means.now()["weight"].item()
            assert now == pytest.approx(sum(ends[-3:]) / len(ends[-3:]), rel=1e-6)


def test_activations_computed_again_give_the_same_bits(tmp_path: Path, whole: Path) -> None:
    fit(new_run(tmp_path, replace(SETTINGS, average=0.9, last=2, checkpoint_activations=True)))
    assert same(tmp_path, whole)


def test_activations_computed_again_are_not_kept() -> None:
    def kept(model: nn.Module) -> int:
        sizes: dict[int, int] = {}

        def count(tensor: Tensor) -> Tensor:
            sizes[tensor.data_ptr()] = tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss(model, batches(0, 0, 1)).sum()
        return sum(sizes.values())

    model = Encoder()
    before = kept(model)
    with recomputed(weights.blocks(model)):
        assert kept(model) < before / 2
    assert kept(model) == before


def test_bfloat16_trains(tmp_path: Path) -> None:
    settings = replace(SETTINGS, steps=61, rate=0.03)
    lost: dict[str, list[float]] = {}
    for precision in ("32-true", "bf16-mixed"):
        run = new_run(tmp_path / precision, replace(settings, precision=precision), dropout=0.0)
        lost[precision] = []
        fit(run, lambda at, kept=lost[precision]: kept.append(at.loss))  # type: ignore[misc]
        assert all(p.dtype == torch.float32 for p in run.model.parameters())
    exact, rounded = lost["32-true"], lost["bf16-mixed"]
    assert exact != rounded
    assert exact == pytest.approx(rounded, rel=0.02)
    assert rounded[-1] < 0.75 * rounded[0]
