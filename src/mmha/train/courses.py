"""Stage 2 in one piece: features of voxels and the task's curves → time courses that follow the task, resumable.

All volumes are one batch, T samples: x the features of a volume, v its values, z its hidden numbers, y their decoding.

L = Σ (y − v)² / (T · voxels) + Σ_i (1 − cos(z_i, c_i)) / n over the first n hidden time courses z_i and the n curves
c_i. Curves are centred: features have mean 0, so have time courses, and the cosine is Pearson's r.

Source: He et al. (2023), section 2.4.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from mmha import checks
from mmha.metrics.series import correlation
from mmha.train.run import Progress, Run, Settings

RATE, EPOCHS, ROUNDS = 5e-4, 30, 20


def settings(epochs: int = EPOCHS, rate: float = RATE, seed: int = 1) -> Settings:
    """Adam over all volumes at a time; the rate falls to 0 along a line.

    30 epochs where 2000 are published: more make time courses worse on volumes that were not trained on.
    """
    return Settings(epochs, rate, seed, rounds=min(ROUNDS, epochs), eps=1e-8, weight_decay=0.0, clip=None)


class Sample(NamedTuple):
    """Volumes: inputs float32 (T, voxels · heads), values float32 (T, voxels), curves float32 (T, n), n may be 0."""

    inputs: Tensor
    values: Tensor
    curves: Tensor


def loss(model: Any, sample: Sample) -> Tensor:
    """L, of an `Autoencoder`."""
    hidden = model.encode(sample.inputs)
    value: Tensor = (model.decoder(hidden) - sample.values).square().mean()
    count = sample.curves.shape[1]
    if count:
        centred = sample.curves - sample.curves.mean(0)
        value = value + (1 - cosine_similarity(hidden[:, :count], centred, dim=0)).mean()
    return value


class Courses(NamedTuple):
    """hidden: float32 numpy (T, hidden), the time courses of all volumes. r: of the first n with the n curves."""

    hidden: Any
    r: Any
    progress: Progress


class Guided:
    """A run of stage 2 in a folder.

    Args:
        model: an `mmha.models.mamsm.Autoencoder`, trained in place; features float32 (voxels, heads, T), of
            `mmha.models.mamsm.features`; values float32 (voxels, T); curves (T, n), n at most its hidden time courses;
        settings; folder, of `state.json`; chosen: bool (T,), the volumes to train on, None = all.

    Raises: ValueError naming the argument.

    >>> import tempfile
    >>> from mmha.models.mamsm import Autoencoder
    >>> features = torch.randn(7, 2, 26, generator=torch.Generator().manual_seed(0))
    >>> curves = features[3, 0, :, None] - features[4, 1, :, None]
    >>> stage = Guided(Autoencoder(14, 7, 5), features, features[:, 0], curves, settings(99, 0.02), tempfile.mkdtemp())
    >>> found = stage.fit()
    >>> found.hidden.shape, bool(found.r[0] > 0.9)
    ((26, 5), True)
    """

    def __init__(
        self,
        model: Any,
        features: Tensor,
        values: Any,
        curves: Any,
        settings: Settings,
        folder: str | Path,
        chosen: Any = None,
    ) -> None:
        voxels, _, total = features.shape
        self.model = model
        values, curves = (torch.as_tensor(x, dtype=torch.float32) for x in (values, curves))
        checks.shape_is("values", values, (voxels, total), "(voxels, T)")
        checks.shape_is("curves", curves, (total, None), "(T, n)")
        most, count = model.encoder.out_features, curves.shape[1]
        checks.require(count <= most, "curves", f"at most {most}, a hidden time course for each", count)
        at = torch.as_tensor(np.ones(total, bool) if chosen is None else chosen)
        checks.shape_is("chosen", at, (total,), "(T,)")
        self.inputs, self.curves, self.chosen = features.reshape(-1, total).T.contiguous(), curves, at
        self.sample = Sample(self.inputs[at], values.T[at], curves[at])
        self.run = Run(model, settings, folder, {"data": self._digest(), "hidden": most})

    def _digest(self) -> str:
        """Of all that is fitted: a run on other data is another run."""
        found = hashlib.sha256()
        for tensor in self.sample:
            found.update(tensor.contiguous().numpy().tobytes())
        return found.hexdigest()[:16]

    def fit(self, resume: bool = False, show: Callable[[Progress], None] = lambda progress: None) -> Courses:
        """Train to the end, or to Ctrl-C or SIGTERM.

        Args: resume, go on with the folder's state; show, called after every step.
        Raises: KeyboardInterrupt after the state is saved; as `Run.resume`.
        """
        if resume:
            self.run.resume()
        progress = self.run.fit(lambda step, part, parts: self.sample, loss, show=show)
        with torch.no_grad():
            hidden = self.model.encode(self.inputs).numpy()
        return Courses(hidden, self.r(hidden, self.chosen), progress)

    def r(self, hidden: Any, volumes: Any) -> Any:
        """Pearson's r of the first n time courses with the curves over some volumes, bool (T,): float64 (n,)."""
        at = np.asarray(volumes)
        return correlation(hidden[at][:, : self.curves.shape[1]], self.curves.numpy()[at])
