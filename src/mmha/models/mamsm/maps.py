"""Where in the brain a time course is: maps of its share in the data, and how far two maps agree."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from mmha import checks

Floats = np.ndarray[Any, np.dtype[np.float64]]
ALPHA, SHARE = 0.01, 0.3


def spatial(values: Any, courses: Any, alpha: float = ALPHA, turn: bool = False) -> Floats:
    """How much of each time course is in each voxel.

    min over w_v of |values_v − courses · w_v|² / 2T + alpha · |w_v|₁, voxel by voxel, time courses and values with mean
    0 and deviation 1 (constant ones are 0). A map with more negative than positive weights is turned round.

    Args: values (voxels, T); courses (T, n).
    Returns: float64 (voxels, n).
    Raises: ValueError for another T, or alpha <= 0; ImportError without scikit-learn, which `pip install "mmha[fmri]"`
        brings.
    Source: Tibshirani (1996); as a map, Lv et al. (2015). Computed by scikit-learn.

    >>> t = np.arange(20.0)
    >>> courses = np.stack([np.sin(t), np.cos(3 * t)], 1)
    >>> spatial(np.stack([5 * np.sin(t), -np.cos(3 * t)]), courses, alpha=0.25).round(2).tolist()
    [[0.75, 0.0], [0.0, -0.75]]
    """
    values, courses = np.asarray(values, np.float64), np.asarray(courses, np.float64)
    fits = values.ndim == courses.ndim == 2 and values.shape[1] == len(courses)
    shapes = f"{checks.shape_text(values.shape)} and {checks.shape_text(courses.shape)}"
    checks.require(fits, "courses", "values (voxels, T) and courses (T, n) of one T", shapes)
    checks.require(checks.number("alpha", alpha) > 0, "alpha", "a number > 0", alpha)
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import Lasso
    except ImportError:
        raise ImportError('spatial maps need scikit-learn: pip install "mmha[fmri]"') from None
    x, y = _standard(courses), _standard(values.T)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # time courses may be nearly alike
        model = Lasso(alpha=alpha, fit_intercept=False, precompute=x.T @ x, max_iter=2000).fit(x, y)
    found = np.asarray(model.coef_, np.float64).reshape(len(values), courses.shape[1])
    turned = turn & ((found < 0).sum(0) > (found > 0).sum(0))
    return np.asarray(np.where(turned, -found, found) + 0.0)  # no -0


def _standard(x: Floats) -> Floats:
    x = x - x.mean(0)
    scale = x.std(0)
    return np.asarray(np.divide(x, scale, out=np.zeros_like(x), where=scale > 1e-12))


def network(weights: Any, share: float = SHARE) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Where a map is strong: its positive weights above `share` of the largest.

    Args: weights (voxels,), or (voxels, n) of n maps, each of which is judged by itself.
    Returns: bool of the same shape.

    >>> network(np.array([-2.0, 0.0, 0.2, 0.4, 1.0])).tolist(), network(np.array([-1.0, 0.0])).tolist()
    ([False, False, False, True, True], [False, False])
    """
    weights = np.asarray(weights, np.float64)
    return np.asarray((weights > 0) & (weights > share * weights.max(0, initial=0.0)))


def overlap(a: Any, b: Any) -> float:
    """|A ∩ B| / |A ∪ B| of two sets of voxels, bool of one shape; 0 when both are empty.

    >>> overlap(np.array([True, True, False]), np.array([True, False, True]))
    0.3333333333333333
    """
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    checks.shape_is("b", b, a.shape)
    either = int((a | b).sum())
    return int((a & b).sum()) / either if either else 0.0


def chance(a: Any, b: Any) -> float:
    """The overlap that sets as large as these would have at random, |A|·|B|/V voxels being in both.

    >>> half = np.arange(10) < 5
    >>> chance(half, half)
    0.3333333333333333
    """
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    both = float(a.sum()) * float(b.sum()) / max(1, a.size)
    either = float(a.sum()) + float(b.sum()) - both
    return both / either if either else 0.0
