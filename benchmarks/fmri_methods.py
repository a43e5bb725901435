"""What MAMSM is compared with: regression, ICA, dictionary learning, and itself with parts missing."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import FastICA, MiniBatchDictionaryLearning
from sklearn.linear_model import Ridge

from mmha.metrics.series import correlation
from mmha.models import mamsm
from mmha.train import courses
from mmha.train.series_fit import Fitted, Options, Stage
from mmha.train.settings import Settings

COMPONENTS = 20


@dataclass(frozen=True)
class Data:
    """values float32 (voxels, T), lengths of the runs, curves float64 (T, n), seconds between volumes."""

    values: Any
    lengths: list[int]
    curves: Any
    tr: float


def stage_1(data: Data, steps: int, rows: int, seed: int = 1) -> tuple[mamsm.MAMSM, mamsm.Scale, Fitted | None]:
    """A model trained for so many steps, or with the weights that it began with (steps = 0)."""
    scale = mamsm.Scale.of(data.values)
    torch.manual_seed(seed)
    model = mamsm.MAMSM(mamsm.small(scale.vocabulary, positions=max(data.lengths) + 2))
    if not steps:
        return model, scale, None
    settings = Settings(steps, 2e-3, seed, warmup=steps // 20, rounds=4, precision="bf16-mixed")
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(model, scale, data.values, data.lengths, settings, folder, Options(rows))
        return model, scale, stage.fit()


def attention(data: Data, model: mamsm.MAMSM, scale: mamsm.Scale) -> torch.Tensor:
    """The features of stage 2."""
    return mamsm.features(model, scale, data.values, data.lengths, mamsm.window(data.tr))


def stage_2(data: Data, features: torch.Tensor, chosen: Any, curves: Any, epochs: int) -> Any:
    """The hidden time courses of all volumes, (T, 256), fitted to the chosen volumes."""
    torch.manual_seed(1)
    model = mamsm.Autoencoder(features.shape[0] * features.shape[1], len(data.values))
    with tempfile.TemporaryDirectory() as folder:
        settings = courses.settings(epochs)
        return courses.Guided(model, features, data.values, curves, settings, folder, chosen).fit().hidden


def regression(rows: Any, chosen: Any, curves: Any) -> Any:
    """Ridge regression of the curves on rows (n, T) of numbers, (T, n curves)."""
    x = rows.T
    return Ridge(alpha=1000.0).fit(x[chosen], curves[chosen]).predict(x)


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


def mean(values: Sequence[float]) -> float:
    """A mean as JSON takes it."""
    return round(float(np.mean(values)), 4)
