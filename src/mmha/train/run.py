"""Training through Lightning: one process or many, to the same weights, bit for bit, after a kill and a resume.

A step's batch is cut into `parts`, one for each process and each turn of accumulation, and `batches(step, part, parts)`
gives one of them; the parts of a step together are the same batch whatever their number. So a run computes the same on
one process that accumulates two parts, or on two processes, and may be resumed with another number of either.

Every part is a function of (weights, seed, step, part): dropout is drawn after `torch.manual_seed` of these. A state
(`state.json` and a safetensors file beside it) therefore holds weights, optimizer and progress, and no generator; it
holds them whole, whichever strategy shares them out.

The loss is a sum of means, and a mean over a batch is not the mean of its parts' means when these hold unequal numbers
of tokens. So `counts(batch)` says, from the data alone, over how many items each mean of the loss goes, `loss(model,
batch)` gives the sums over them, and what is minimised is Σ_k (Σ_parts sums_k) / (Σ_parts counts_k), exactly. Without
`counts` the loss is one mean a part and all parts weigh the same.

>>> import tempfile
>>> from torch import nn
>>> torch.manual_seed(0).__class__.__name__
'Generator'
>>> model = nn.Linear(3, 1)
>>> points = torch.randn(20, 3)
>>> run = Run(model, Settings(steps=40, rate=0.3, rounds=4), tempfile.mkdtemp())
>>> progress = run.fit(
...     lambda step, part, parts: points[part::parts],
...     lambda model, x: (model(x)[:, 0] - x.sum(1)).square().sum(),
...     counts=lambda x: [len(x)],
... )
>>> progress.step, progress.epoch, bool((model.weight - 1).abs().max() < 0.2)
(40, 4, True)
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmha import checkpoint
from mmha.train import processes, weights
from mmha.train.loop import Progress
from mmha.train.settings import Settings

__all__ = ["Batches", "Counts", "Loss", "Progress", "Run", "Settings"]

Batches = Callable[[int, int, int], Any]
"""(step, part, parts) → one of `parts` shares of that step's batch."""
Loss = Callable[[Any, Any], Tensor]
"""(model, batch) → the sums, a scalar or (K,), whose means are the loss; without `Counts`, the mean itself."""
Counts = Callable[[Any], Sequence[float]]
"""batch → the K numbers of items that the sums go over."""

OPTIMIZER = ("step", "exp_avg", "exp_avg_sq")


class Run:
    """A training run in a folder, with `state.json` (+ tensors) to continue from.

    Args: model, trained in place; settings; folder, written by the first process alone; about, what else, beside the
        settings, a run must have in common with the one that it continues.

    `progress` says where it stands (an `epoch` is a round) and `best` holds the best weights so far, both in the first
    process; `rank` is the number of this process. Work that only one process should do, like printing, is for rank 0.

    Raises: ImportError without Lightning, which `pip install "mmha[train]"` brings; ValueError as `processes.start`.
    """

    def __init__(
        self, model: nn.Module, settings: Settings, folder: str | Path, about: Mapping[str, Any] | None = None
    ) -> None:
        require_lightning()
        processes.start(settings.devices, settings.nodes)
        self.model, self.settings, self.folder, self.about = model, settings, Path(folder), dict(about or {})
        self.rank = processes.rank()
        self.rounds = len(settings.ends())
        self.progress = Progress(steps=settings.steps)
        self.best: dict[str, Tensor] = {}
        self.stored: dict[str, Tensor] = {}  # of the state that is resumed, until the fit has taken it over
        self.saved = self.begun = time.monotonic()
        self.cost = 0.0  # seconds that the state took to write
        self.evaluate: Callable[[Any], float] | None = None

    def fit(
        self,
        batches: Batches,
        loss: Loss,
        *,
        counts: Counts | None = None,
        evaluate: Callable[[Any], float] | None = None,
        show: Callable[[Progress], None] = lambda progress: None,
    ) -> Progress:
        """Train to the end, or to Ctrl-C or SIGTERM; then the model holds the best weights.

        Args: evaluate, the score of a model with the (averaged) weights of a round's end, higher is better, called in
            the first process alone; without it the last round is the best. show, called there after every step.

        Raises: KeyboardInterrupt after the state is saved, when the user stopped it; ConnectionError when another
            process of the run is gone.
        """
        from mmha.train.lightning_fit import fit

        self.evaluate = evaluate
        self.saved = self.begun = time.monotonic()
        if self.progress.step < self.settings.steps:
            fit(self, batches, loss, counts, show)
        if self.best:
            weights.put(self.model, self.best)
        return self.progress

    def resume(self) -> None:
        """Continue from the folder's state, which the first process alone has to see.

        Raises: FileNotFoundError or ValueError when there is nothing, or something else, to continue.
        """
        if self.rank:
            return
        document, tensors = checkpoint.load(self.folder / "state.json")
        own, other = self._identity(), document.get("run", {})
        for key in own:
            if own[key] != other.get(key):
                raise ValueError(
                    f"{self.folder}: expected a run with {key} = {own[key]}, got one with {other.get(key)}"
                )
        self.stored = tensors
        self.best, found = self.part("best"), self.part("model")
        for name, tensor in weights.named(self.model).items():
            if name not in found or found[name].shape != tensor.shape:
                raise ValueError(f"{self.folder}: expected weights of this model, got a state without its {name}")
        weights.put(self.model, found)
        self.progress = Progress(**document["progress"])

    def part(self, name: str) -> dict[str, Tensor]:
        """The stored tensors under a name."""
        return {k.removeprefix(f"{name}."): v for k, v in self.stored.items() if k.startswith(f"{name}.")}

    def _identity(self) -> dict[str, Any]:
        return self.settings.identity() | self.about

    def finish_round(self, averaged: Mapping[str, Tensor]) -> None:
        """Score the weights of a round's end (all of them, whole) and keep them when none were better."""
        at = self.progress
        at.epoch += 1
        if self.rank:
            return
        score = at.epoch if self.evaluate is None else self._score(self.evaluate, averaged)
        at.score = float(score)
        if at.score > at.best:
            at.best, at.best_epoch = at.score, at.epoch
            self.best = weights.copied(averaged)
        self.tick()
        at.history.append({"epoch": at.epoch, "loss": at.loss, "score": at.score, "seconds": round(at.seconds, 1)})

    def _score(self, evaluate: Callable[[Any], float], averaged: Mapping[str, Tensor]) -> float:
        own = weights.copied(weights.named(self.model))
        weights.put(self.model, averaged)
        mode = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                return evaluate(self.model)
        finally:
            weights.put(self.model, own)
            self.model.train(mode)

    def finish_step(self, value: float) -> None:
        """Count a step, with the loss it began with."""
        at = self.progress
        at.step += 1
        # A mean over about 100 steps, so that the number shown can be read.
        at.loss = value if math.isnan(at.loss) else 0.99 * at.loss + 0.01 * value
        self.tick()

    def due(self) -> bool:
        """Whether the state was not written for long enough; writing takes no more than a twentieth of the time."""
        return time.monotonic() - self.saved > max(self.settings.save_every, 20 * self.cost)

    def tick(self) -> None:
        """Add the time that has passed."""
        now = time.monotonic()
        self.progress.seconds += now - self.begun
        self.begun = now

    def save(self, model: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, means: weights.Means) -> None:
        """Write the state so that a crash at any moment leaves the old state or the new one; all processes join."""
        tensors = {f"model.{name}": tensor for name, tensor in model.items()} | means.tensors()
        for name, tensor in model.items():
            tensors |= {f"optimizer.{name}.{key}": value for key, value in optimizer.state.get(tensor, {}).items()}
        first, begun = self.rank == 0, time.monotonic()
        state = {}
        for name, tensor in tensors.items():
            full = processes.whole(tensor)
            if first:
                state[name] = full
        if first:
            state |= {f"best.{name}": tensor for name, tensor in self.best.items()}
            document = {"run": self._identity(), "progress": asdict(self.progress)}
            checkpoint.save(self.folder / "state.json", state, document)
        self.saved = time.monotonic()
        self.cost = self.saved - begun


def require_lightning() -> None:
    """Raise the ImportError that says how to get Lightning, when it is not there."""
    import importlib.util

    if importlib.util.find_spec("lightning") is None:
        raise ImportError('this training needs Lightning: pip install "mmha[train]"')
