"""What a run of `mmha.train.run` is told: how long, how fast, on how many processes."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from mmha import checks

FREE = ("save_every", "accumulate", "checkpoint_activations", "devices", "nodes", "strategy")
"""What a resumed run may do otherwise than the run that it continues."""


@dataclass(frozen=True)
class Settings:
    """How to train: AdamW, without decay for what has one dimension (biases and the scales of layer norms).

    Args:
        steps: optimizer steps in all. rounds: how often to score, at equal distances, the last time at the end.
        rate: the highest learning rate, reached after `warmup` steps. schedule: "linear" falls to 0 at the last step,
            "noam" with 1 / √step, both after a linear rise.
        clip: the largest norm of all gradients together; None leaves them as they are. clip_value: the largest absolute
            value of each number of a gradient, None likewise.
        average: decay of a running mean of the weights, a step; 0 is none. last: what is scored and kept is the mean of
            the weights at the ends of so many last rounds.
        accumulate: parts of a step that a process computes one after the other. precision: "32-true" or "bf16-mixed"
            (autocast). checkpoint_activations: keep the inputs of layers only and compute the rest again in backward.
        save_every: seconds between two writings of the state; more where one takes over a twentieth of that.
        devices: processes on this machine. nodes: machines. strategy: "ddp" gives each process all weights, "fsdp" a
            share of weights, gradients and optimizer state; "auto" is "ddp" when there are several.

    Raises: ValueError or TypeError that names the field.

    >>> Settings(steps=100, rate=1e-4, warmup=10, strategy="fsd")
    Traceback (most recent call last):
    ...
    ValueError: `strategy`: expected 'auto', 'ddp' or 'fsdp', got 'fsd'; did you mean 'fsdp'?
    """

    steps: int
    rate: float
    seed: int = 1
    warmup: int = 0
    schedule: str = "linear"
    rounds: int = 20
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-6
    weight_decay: float = 0.01
    clip: float | None = 1.0
    clip_value: float | None = None
    average: float = 0.0
    last: int = 1
    save_every: float = 60.0
    accumulate: int = 1
    precision: str = "32-true"
    checkpoint_activations: bool = False
    devices: int = 1
    nodes: int = 1
    strategy: str = "auto"

    def __post_init__(self) -> None:
        for name in ("steps", "rounds", "last", "accumulate", "devices", "nodes"):
            checks.integer(name, getattr(self, name), 1)
        for name in ("seed", "warmup"):
            checks.integer(name, getattr(self, name), 0)
        for name in ("weight_decay", "eps", "save_every"):
            checks.number(name, getattr(self, name), 0)
        checks.require(checks.number("rate", self.rate) > 0, "rate", "a learning rate > 0", str(self.rate))
        checks.require(0 <= checks.number("average", self.average) < 1, "average", "0 <= average < 1", self.average)
        if self.clip is not None:
            checks.require(checks.number("clip", self.clip) > 0, "clip", "a norm > 0 or None", self.clip)
        if self.clip_value is not None:
            positive = checks.number("clip_value", self.clip_value) > 0
            checks.require(positive, "clip_value", "a number > 0 or None", self.clip_value)
        checks.one_of("schedule", self.schedule, ("linear", "noam"))
        checks.one_of("precision", self.precision, ("32-true", "bf16-mixed"))
        checks.one_of("strategy", self.strategy, ("auto", "ddp", "fsdp"))

    def identity(self) -> dict[str, Any]:
        """What two runs must have in common for one to continue the other."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items() if k not in FREE}

    def ends(self) -> list[int]:
        """The step after which each round ends.

        >>> Settings(steps=7, rate=1.0, rounds=3).ends()
        [2, 4, 7]
        """
        rounds = min(self.rounds, self.steps)
        return [self.steps * (i + 1) // rounds for i in range(rounds)]


def rate_at(step: int, settings: Settings) -> float:
    """The learning rate of a step, counted from 0.

    With t = step + 1 and w = warmup: rate · t / w while t <= w; then, linear, rate · (steps − step) / (steps − w), or,
    noam, rate · √(w / t).

    Source: Devlin et al. 2019, A.2; Vaswani et al. 2017, equation 3, where rate = (width · w)^-0.5 (`noam_rate`).

    >>> s = Settings(steps=100, rate=1.0, warmup=10)
    >>> [round(rate_at(i, s), 2) for i in (0, 9, 10, 55, 99)]
    [0.1, 1.0, 1.0, 0.5, 0.01]
    >>> s = Settings(steps=100, rate=1.0, warmup=10, schedule="noam")
    >>> [round(rate_at(i, s), 2) for i in (0, 9, 39)]
    [0.1, 1.0, 0.5]
    """
    warm = settings.warmup if settings.schedule == "linear" else max(1, settings.warmup)
    if step < warm:
        return settings.rate * (step + 1) / warm
    if settings.schedule == "noam":
        return settings.rate * math.sqrt(warm / (step + 1))
    return settings.rate * (settings.steps - step) / max(1, settings.steps - warm)


def noam_rate(width: int, warmup: int) -> float:
    """The highest rate of the schedule of "Attention is all you need", (width · warmup)^-0.5.

    >>> round(noam_rate(512, 4000), 6)
    0.000699
    """
    return float((width * warmup) ** -0.5)
