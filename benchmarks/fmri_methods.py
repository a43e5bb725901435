"""What MAMSM is compared with: regression, ICA, dictionary learning, and itself with parts missing."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import FastICA, MiniBatchDictionaryLearning

from mmha.metrics.series import correlation
from mmha.models import mamsm
from mmha.models.mamsm.attended import standardise
from mmha.train import courses
from mmha.train.series_fit import Fitted, Options, Stage
from mmha.train.settings import Settings

COMPONENTS = 20
PENALTIES = tuple(10.0**k for k in range(-1, 6))  # of ridge regression, times the mean square of a volume's numbers


@dataclass(frozen=True)
class Data:
    """values float32 (voxels, T), lengths of the runs, curves float64 (T, n), seconds between volumes."""

    values: Any
    lengths: list[int]
    curves: Any
    tr: float


def stage_1(
    data: Data, steps: int, rows: int, folder: str | Path | None = None, size: str = "small", faithful: bool = False
) -> tuple[mamsm.MAMSM, mamsm.Scale, Fitted | None]:
    """A model trained for so many steps, or with the weights that it began with (steps = 0).

    A folder keeps the state of a run that is stopped, and what it came to: it goes on from there.
    """
    scale = mamsm.Scale.of(data.values)
    torch.manual_seed(1)
    sizes = mamsm.BUILDERS[size](scale.vocabulary, positions=max(data.lengths) + 2, faithful=faithful)
    model = mamsm.MAMSM(sizes)
    if not steps:
        return model, scale, None
    rate = 2e-3 if size == "small" else 5e-4
    settings = Settings(steps, rate, 1, warmup=steps // 20, rounds=4, precision="bf16-mixed")
    with tempfile.TemporaryDirectory() as other:
        place = Path(folder or other)
        stage = Stage(model, scale, data.values, data.lengths, settings, place, Options(rows, faithful=faithful))
        return model, scale, stage.fit(resume=(place / "state.json").exists())


def attention(data: Data, model: mamsm.MAMSM, scale: mamsm.Scale, published: bool | None = None) -> torch.Tensor:
    """The features of stage 2."""
    return mamsm.features(model, scale, data.values, data.lengths, mamsm.window(data.tr), published=published)


def smoothed(data: Data) -> torch.Tensor:
    """The voxels' own signals, treated as features are: (voxels, 1, T)."""
    averages = mamsm.moving_average(torch.from_numpy(data.values), mamsm.window(data.tr), data.lengths)
    return standardise(averages, data.lengths)[:, None]


def stage_2(data: Data, features: torch.Tensor, chosen: Any, curves: Any, epochs: int) -> Any:
    """The hidden time courses of all volumes, (T, 256), fitted to the chosen volumes."""
    torch.manual_seed(1)
    model = mamsm.Autoencoder(features.shape[0] * features.shape[1], len(data.values))
    with tempfile.TemporaryDirectory() as folder:
        settings = courses.settings(epochs)
        return courses.Guided(model, features, data.values, curves, settings, folder, chosen).fit().hidden


def decision(data: Data, runs: Any, features: dict[str, torch.Tensor], epochs: Sequence[int]) -> dict[str, list[float]]:
    """What the features and the number of epochs were chosen by: r in runs 2 and 3, and 4 and 5, counted from 0, of
    stage 2 fitted to the others without runs 0 and 1; for each of the features, by epochs."""
    found: dict[str, list[float]] = {}
    for name, made in features.items():
        for count in epochs:
            r = []
            for first in (2, 4):
                held = np.isin(runs, (first, first + 1))
                courses = stage_2(data, made, ~held & (runs > 1), data.curves, count)
                r.append(r_of(courses, data.curves, held))
            found.setdefault(name, []).append(mean(r))
    return found


def regression(rows: Any, chosen: Any, curves: Any, runs: Any) -> Any:
    """Ridge regression of the curves on rows (n, T) of numbers, (T, n curves).

    The penalty is the one of `PENALTIES` with the highest r in the last two of the chosen runs, fitted to the others.
    """
    alike = rows.T @ rows
    alike = alike / alike.diagonal().mean()
    inner = chosen & ~np.isin(runs, np.unique(runs[chosen])[-2:])
    r = [r_of(_ridge(alike, inner, curves, alpha), curves, chosen & ~inner) for alpha in PENALTIES]
    return _ridge(alike, chosen, curves, PENALTIES[int(np.argmax(r))])


def _ridge(alike: Any, chosen: Any, curves: Any, alpha: float) -> Any:
    """From the products of all volumes with all volumes."""
    inside = alike[np.ix_(chosen, chosen)].astype(np.float64)
    mean = curves[chosen].mean(0)
    return alike[:, chosen] @ np.linalg.solve(inside + alpha * np.eye(len(inside)), curves[chosen] - mean) + mean


def timing(chosen: Any, curves: Any, runs: Any) -> Any:
    """What the volume's number in its run tells without any data: the mean of all curves of the chosen runs."""
    number = np.arange(len(runs)) - np.searchsorted(runs, runs)
    mean = curves.mean(1)
    known = np.array([mean[chosen & (number == at)].mean() for at in range(int(number.max()) + 1)])
    return np.repeat(known[number][:, None], curves.shape[1], 1)


def components(values: Any, chosen: Any, kind: str) -> Any:
    """Time courses (T, 20) of maps that were found in the chosen volumes: each volume as a sum of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a fit that has not quite converged
        if kind == "ica":
            maps = FastICA(COMPONENTS, whiten="unit-variance", random_state=1, max_iter=400).fit_transform(
                values[:, chosen]
            )
        else:
            model = MiniBatchDictionaryLearning(COMPONENTS, alpha=1.0, batch_size=64, max_iter=20, random_state=1)
            maps = model.fit(values[:, chosen].T).components_.T
    return np.linalg.lstsq(maps, values, rcond=None)[0].T


def best(courses: Any, curves: Any, chosen: Any) -> Any:
    """For each curve the time course that is most like it over the chosen volumes, turned to be so: (T, n)."""
    found = []
    for i in range(curves.shape[1]):
        same = np.repeat(curves[chosen][:, i : i + 1], courses.shape[1], 1)
        r = correlation(courses[chosen], same)
        k = int(np.abs(r).argmax())
        found.append(courses[:, k] * np.sign(r[k]))
    return np.stack(found, 1)


def r_of(found: Any, curves: Any, volumes: Any) -> float:
    """The mean over curves of Pearson's r, over some volumes."""
    return float(correlation(found[volumes][:, : curves.shape[1]], curves[volumes]).mean())


def r_beyond_timing(found: Any, curves: Any, volumes: Any) -> float:
    """`r_of` after the mean of all curves has been taken out of both: what tells one condition from the others."""
    found, curves = found[volumes][:, : curves.shape[1]], curves[volumes]
    base = np.c_[np.ones(len(curves)), curves.mean(1)]

    def rest(x: Any) -> Any:
        return x - base @ np.linalg.lstsq(base, x, rcond=None)[0]

    left = rest(found)
    return float(correlation(np.where(abs(left) < 1e-9, 0, left), rest(curves)).mean())


def mean(values: Sequence[float]) -> float:
    """A mean as JSON takes it."""
    return round(float(np.mean(values)), 4)
