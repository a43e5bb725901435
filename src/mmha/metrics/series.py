"""Figures that compare series of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmha import checks


def correlation(a: Any, b: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Pearson's r of each column with its counterpart, Σ (a − ā)(b − b̄) / √(Σ (a − ā)² · Σ (b − b̄)²).

    Args: a, b (T, n). Returns: float64 (n,), 0 where a column is constant.
    Raises: ValueError for two shapes.

    >>> correlation([[1.0, 1.0], [2.0, 1.0], [3.0, 1.0]], [[4.0, 1.0], [2.0, 2.0], [0.0, 3.0]]).tolist()
    [-1.0, 0.0]
    """
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    checks.shape_is("b", y, x.shape, "(T, n)")
    if not len(x):
        return np.zeros(x.shape[1])
    x, y = x - x.mean(0), y - y.mean(0)
    size = np.sqrt((x * x).sum(0) * (y * y).sum(0))
    return np.asarray(np.divide((x * y).sum(0), size, out=np.zeros_like(size), where=size > 1e-12))
