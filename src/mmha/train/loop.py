"""A training loop that can be stopped at any step and continued to the same weights, bit for bit.

Every step is a function of (weights, optimizer state, step number) alone: the order of the batches comes from the
seed and the epoch, dropout from the seed and the step. So a checkpoint holds no generator state, and a run that was
killed and resumed equals one that was not, given the same machine and number of threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmha import checkpoint
from mmha.train.interrupt import Interrupt

Batches = Callable[[int], Sequence[Any]]
"""The batches of an epoch, in order; the number of batches is the same for every epoch."""


@dataclass(frozen=True)
class Settings:
    """How to train. `warmup` is a share of all steps; `average` the decay of the running mean of the weights."""

    epochs: int
    rate: float
    seed: int = 1
    warmup: float = 0.05
    weight_decay: float = 0.01
    clip: float = 1.0
    average: float = 0.999
    save_every: float = 60.0


@dataclass
class Progress:
    """Where a run stands. `score` is of the averaged weights on the dev set, higher is better."""

    step: int = 0
    steps: int = 0
    epoch: int = 0
    loss: float = math.nan
    score: float = 0.0
    best: float = -math.inf
    best_epoch: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


def rate_at(step: int, steps: int, settings: Settings) -> float:
    """Linear warm-up, then half a cosine down to 1 % of the rate.

    >>> s = Settings(epochs=1, rate=1.0, warmup=0.1)
    >>> [round(rate_at(i, 100, s), 2) for i in (0, 9, 10, 55, 99)]
    [0.1, 1.0, 1.0, 0.51, 0.01]
    """
    warm = max(1, round(settings.warmup * steps))
    if step < warm:
        return settings.rate * (step + 1) / warm
    part = (step - warm) / max(1, steps - warm)
    return settings.rate * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * part)))


def _groups(model: nn.Module, factors: Mapping[str, float]) -> list[dict[str, Any]]:
    """The parameters that decay and those that do not, for each of the rates."""
    found: dict[tuple[float, bool], list[nn.Parameter]] = {(1.0, True): [], (1.0, False): []}
    for name, parameter in model.named_parameters():
        factor = next((value for prefix, value in factors.items() if name.startswith(prefix)), 1.0)
        found.setdefault((factor, parameter.ndim > 1), []).append(parameter)
    return [
        {"params": parameters, "factor": factor, **({} if decays else {"weight_decay": 0.0})}
        for (factor, decays), parameters in found.items()
    ]


class Run:
    """One training run in a folder, with `state.json` (+ tensors) to continue from.

    `about` is what else, beside the settings, a run must have in common with the one that it continues. `factors` give
    parameters whose name begins so a rate of their own, that many times the rate of the others.

    Raises: FileNotFoundError or ValueError from `resume` when there is nothing, or something else, to continue.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: Settings,
        folder: Path,
        about: dict[str, Any] | None = None,
        factors: Mapping[str, float] | None = None,
    ) -> None:
        self.model, self.settings, self.folder, self.about = model, settings, folder, about or {}
        self.progress = Progress()
        self.average = {k: v.detach().clone() for k, v in model.state_dict().items()}
        self.best = {k: v.clone() for k, v in self.average.items()}
        self.optimizer = torch.optim.AdamW(
            _groups(model, factors or {}),
            lr=settings.rate,
            betas=(0.9, 0.98),
            weight_decay=settings.weight_decay,
            fused=True,
        )

    @property
    def rounds(self) -> int:
        """How often the run scores."""
        return self.settings.epochs

    def fit(
        self,
        batches: Batches,
        loss: Callable[[nn.Module, Any], Tensor],
        evaluate: Callable[[nn.Module], float],
        show: Callable[[Progress], None] = lambda progress: None,
    ) -> Progress:
        """Train to the end, or to Ctrl-C; the best averaged weights on the dev set are in `best`.

        Raises: KeyboardInterrupt after the state is saved, when the user stopped it.
        """
        with Interrupt() as stop:
            saved = time.monotonic()
            while self.progress.epoch < self.settings.epochs:
                epoch = batches(self.progress.epoch)
                self.progress.steps = len(epoch) * self.settings.epochs
                for batch in epoch[self.progress.step - self.progress.epoch * len(epoch) :]:
                    self.step(batch, loss)
                    show(self.progress)
                    if stop.asked or time.monotonic() - saved > self.settings.save_every:
                        self.save()
                        saved = time.monotonic()
                    stop.leave()
                self._finish_epoch(evaluate)
                show(self.progress)
                self.save()
                stop.leave()
        return self.progress

    def step(self, batch: Any, loss: Callable[[nn.Module, Any], Tensor]) -> None:
        """One step of the optimizer, at the rate and with the dropout that belong to its number."""
        begun = time.perf_counter()
        at = self.progress
        torch.manual_seed(self.settings.seed * 1_000_003 + at.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(at.step, at.steps, self.settings) * group["factor"]
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        value = loss(self.model, batch)
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimizer.step()
        at.step += 1
        self._update_average()
        # A mean over about 100 steps, so that the number shown can be read.
        now = value.item()
        at.loss = now if math.isnan(at.loss) else 0.99 * at.loss + 0.01 * now
        at.seconds += time.perf_counter() - begun

    def _update_average(self) -> None:
        # Young averages forget faster, else the random start would weigh for a thousand steps.
        decay = min(self.settings.average, (1 + self.progress.step) / (10 + self.progress.step))
        state = self.model.state_dict()
        torch._foreach_lerp_([self.average[k] for k in state], list(state.values()), 1.0 - decay)

    def _finish_epoch(self, evaluate: Callable[[nn.Module], float]) -> None:
        at = self.progress
        begun = time.perf_counter()
        at.epoch += 1
        at.score = self.with_weights(self.average, evaluate)
        if at.score > at.best:
            at.best, at.best_epoch = at.score, at.epoch
            self.best = {k: v.clone() for k, v in self.average.items()}
        at.seconds += time.perf_counter() - begun
        at.history.append({"epoch": at.epoch, "loss": at.loss, "score": at.score, "seconds": round(at.seconds, 1)})

    def with_weights(self, weights: dict[str, Tensor], evaluate: Callable[[nn.Module], float]) -> float:
        """Evaluate the model with other weights, then put its own back."""
        own = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.model.load_state_dict(weights)
        self.model.eval()
        try:
            with torch.no_grad():
                return evaluate(self.model)
        finally:
            self.model.load_state_dict(own)

    def save(self) -> None:
        """Write the state so that a crash at any moment leaves the old state or the new one, never a mixture."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        tensors |= {f"best.{k}": v for k, v in self.best.items()}
        for number, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{k}": v for k, v in values.items()}
        document = {"run": self._identity(), "progress": asdict(self.progress)}
        checkpoint.save(self.folder / "state.json", tensors, document)

    def resume(self) -> None:
        """Continue from the folder's state."""
        document, tensors = checkpoint.load(self.folder / "state.json")
        own = self._identity()
        other = document.get("run", {})
        for key in own:
            if own[key] != other.get(key):
                raise ValueError(
                    f"{self.folder}: expected a run with {key} = {own[key]}, got one with {other.get(key)}"
                )

        def part(name: str) -> dict[str, Tensor]:
            return {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}

        self.model.load_state_dict(part("model"))
        self.average, self.best = part("average"), part("best")
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in part("optimizer").items():
            number, name = key.split(".")
            state.setdefault(int(number), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.progress = Progress(**document["progress"])

    def _identity(self) -> dict[str, Any]:
        """What two runs must have in common for one to continue the other."""
        identity = asdict(self.settings) | self.about
        del identity["save_every"]
        return identity
