"""The general linear model: which voxels follow which curve, as everybody's first analysis has it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from mmha import checks
from mmha.data.bold.images import Bold
from mmha.data.bold.tables import needs


def glm(bold: Bold, curves: Any, noise: str = "ar1") -> np.ndarray[Any, np.dtype[np.float64]]:
    """How surely each voxel follows each curve, beside all others: z of the weight's t.

    values_v = curves · β_v + a mean for each run + noise; z is t = β / σ(β) on the scale of a normal distribution.

    Args: curves (T, n), one for a kind of event (`design`); noise "ar1" or "ols".
    Returns: float64 (voxels, n); 0 for a curve that is constant.
    Raises: ValueError for another T, or more columns than volumes; ImportError without nilearn.
    Source: Friston et al. (1994); computed by nilearn.
    """
    total, given = bold.values.shape[1], np.asarray(curves, np.float64)
    fits = given.ndim == 2 and len(given) == total
    checks.require(fits, "curves", f"({total}, n), a line a volume", checks.shape_text(given.shape))
    checks.one_of("noise", noise, ("ar1", "ols"))
    varying = given.std(0) > 1e-12
    runs = (bold.runs[:, None] == np.unique(bold.runs)).astype(np.float64)
    matrix = np.concatenate([given[:, varying], runs], 1)
    count = matrix.shape[1]
    checks.require(count < total, "curves", f"fewer columns and runs than volumes, {total}", f"{count}")
    models, contrasts = needs("nilearn.glm.first_level"), needs("nilearn.glm.contrasts")
    found = np.zeros((len(bold.values), given.shape[1]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of curves that are nearly alike: their z says it
        labels, results = models.run_glm(bold.values.T.astype(np.float64), matrix, noise_model=noise)
        for column, place in enumerate(np.flatnonzero(varying)):
            chosen = np.eye(count)[column]
            found[:, place] = contrasts.compute_contrast(labels, results, chosen, stat_type="t").z_score()
    return found
