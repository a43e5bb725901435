"""What is taken out of the signals, run by run: trends, scale, confounds; and which voxels have any signal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmha import checks
from mmha.data.bold import tables
from mmha.data.bold.tables import needs

CHUNK = 1 << 22  # numbers that nilearn, which computes in float64, is given at a time
FEWEST = 3  # volumes of a run: with 2 nothing is left when a straight line is taken out


def run_numbers(runs: Sequence[int] | None, lengths: Sequence[int]) -> Any:
    """The run of each volume, int64 (T,), counted from 0 in the order of time.

    Raises: TypeError or ValueError unless there is a whole number for each volume, a run's volumes stand together,
        and there are three of them.

    >>> run_numbers([7, 7, 7, 2, 2, 2], [6])
    array([0, 0, 0, 1, 1, 1])
    """
    total = sum(lengths)
    given = np.repeat(np.arange(len(lengths)), lengths) if runs is None else np.asarray(runs)
    if given.dtype.kind not in "iu":
        raise checks.type_error("runs", f"integers ({total},), the run of each volume", runs)
    fits = given.shape == (total,)
    checks.require(fits, "runs", f"integers ({total},), the run of each volume", checks.shape_text(given.shape))
    numbers = np.concatenate(([0], np.cumsum(given[1:] != given[:-1]))).astype(np.int64)
    together = len(np.unique(given)) == numbers[-1] + 1
    checks.require(together, "runs", "volumes of one run side by side", "a run that comes twice")
    fewest = int(np.bincount(numbers).min())
    checks.require(fewest >= FEWEST, "runs", f"runs of at least {FEWEST} volumes", fewest)
    return numbers


def finite(values: Any) -> Any:
    """Which voxels have finite numbers only: bool (voxels,)."""
    # A sum is not finite if one of its numbers is not; float64, or large ones would run over.
    return np.isfinite(values.sum(1, dtype=np.float64))


def varying(values: Any, runs: Any) -> Any:
    """Which voxels change within each run (or are not finite): bool (voxels,)."""
    changing = np.ones(len(values), bool)
    for number in range(int(runs[-1]) + 1):
        part = values[:, np.searchsorted(runs, number) : np.searchsorted(runs, number, "right")]
        changing &= part.min(1) != part.max(1)
    return changing


def confounds(paths: Sequence[Path], lengths: Sequence[int]) -> Any:
    """The columns of all tables, a line a volume: float64 (T, n).

    Raises: ValueError for a table without numbers, of another length or with other columns; OSError.
    """
    wanted = f"{len(lengths)} tables, one for each image"
    checks.require(len(paths) == len(lengths), "confounds", wanted, len(paths))
    found = [tables.numbers(path, length) for path, length in zip(paths, lengths, strict=True)]
    for path, (names, _) in zip(paths[1:], found[1:], strict=True):
        if names != found[0][0]:
            raise ValueError(f"{path}: expected the columns of {paths[0]}, got others")
    return np.concatenate([columns for _, columns in found])


def clean(values: Any, runs: Any, confounds: Any, *, detrend: bool, standardize: bool) -> None:
    """Detrend and standardise the signals float32 (voxels, T) in place, by nilearn, some voxels at a time."""
    if not (detrend or standardize or confounds is not None):
        return
    signal = needs("nilearn.signal")
    step = max(1, CHUNK // values.shape[1])
    for start in range(0, len(values), step):
        values[start : start + step] = signal.clean(
            values[start : start + step].T.astype(np.float64),
            runs=runs,
            detrend=detrend,
            standardize="zscore_sample" if standardize else None,
            confounds=confounds,
            filter=False,
        ).T
