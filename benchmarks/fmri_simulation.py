"""Simulated tasks, as long as the seven of the Human Connectome Project, with networks that are known."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

TR = 0.72
SIDE = 20  # a slice of 20 x 20 voxels
TASKS = {  # volumes, conditions
    "emotion": (176, 2),
    "gambling": (253, 2),
    "language": (316, 2),
    "motor": (284, 6),
    "relational": (232, 2),
    "social": (274, 2),
    "working memory": (405, 8),
}
RESTING, NOISE, MEMORY = 3, 2.0, 0.4


class Simulation(NamedTuple):
    """values float32 (400, T), standardised; curves float64 (T, n); truth bool (400, n)."""

    values: Any
    curves: Any
    truth: Any


def simulate(volumes: int, conditions: int, seed: int) -> Simulation:
    """Discs of voxels that follow a condition, discs that follow a slow course of their own, and noise that remembers.

    values = Σ network · curve + Σ disc · course + e, curves and courses of deviation 1, e_t = 0.4·e_{t−1} + noise, of
    deviation 2. Conditions come in blocks of 12 s, in turns that are dealt, with rests of 8 s.
    """
    from mmha.data.bold import design

    generator = np.random.default_rng(seed)
    table = _events(volumes, conditions, generator)
    _, curves = design(table, TR, volumes)
    truth = np.stack([_disc(generator) for _ in range(conditions)], 1)
    rest = np.stack([_disc(generator) for _ in range(RESTING)], 1)
    slow = np.cumsum(generator.normal(size=(volumes, RESTING)), 0)
    noise = generator.normal(size=(SIDE * SIDE, volumes))
    for t in range(1, volumes):
        noise[:, t] = MEMORY * noise[:, t - 1] + np.sqrt(1 - MEMORY**2) * noise[:, t]
    values = truth @ _unit(curves).T + rest @ _unit(slow).T + NOISE * noise
    return Simulation(_unit(values.T).T.astype(np.float32), curves, truth)


def _events(volumes: int, conditions: int, generator: np.random.Generator) -> Any:
    import pandas as pd

    count = int((volumes * TR - 4) // 20)
    order = np.concatenate([generator.permutation(conditions) for _ in range(-(-count // conditions))])[:count]
    return pd.DataFrame(
        {"onset": 4.0 + 20.0 * np.arange(count), "duration": 12.0, "trial_type": [f"condition {i}" for i in order]}
    )


def _disc(generator: np.random.Generator) -> Any:
    x, y = generator.integers(3, SIDE - 3, 2)
    places = np.indices((SIDE, SIDE))
    return ((places[0] - x) ** 2 + (places[1] - y) ** 2 <= 9).reshape(-1)


def _unit(x: Any) -> Any:
    return (x - x.mean(0)) / x.std(0)


def as_bold(made: Simulation) -> Any:
    """As data of one run."""
    from mmha.data.bold import Bold

    return Bold(made.values, TR, np.ones((SIDE, SIDE, 1), bool), np.eye(4), np.zeros(len(made.curves), np.int64))
