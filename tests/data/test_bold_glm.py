"""The general linear model against its formula."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mmha.data.bold import Bold, glm

RUNS = np.repeat([0, 1], [23, 18])


def bold(values: np.ndarray) -> Bold:
    return Bold(values.astype(np.float32), 2.0, np.ones((len(values), 1, 1), bool), np.eye(4), RUNS)


def data() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    curves = generator.normal(size=(41, 3))
    values = generator.normal(size=(5, 41)) + 0.4 * curves[:, 0] + 3 * RUNS
    return values.astype(np.float32).astype(np.float64), curves


def test_least_squares_is_the_formula() -> None:
    values, curves = data()
    x = np.concatenate([curves, RUNS[:, None] == [0, 1]], 1)
    inverse = np.linalg.inv(x.T @ x)
    beta = inverse @ x.T @ values.T
    free = 41 - 5
    variance = ((values.T - x @ beta) ** 2).sum(0) / free
    t = (beta / np.sqrt(np.outer(np.diag(inverse), variance)))[:3].T
    np.testing.assert_allclose(glm(bold(values), curves, noise="ols"), stats.norm.isf(stats.t.sf(t, free)), rtol=1e-4)


def test_noise_that_remembers_makes_it_less_sure() -> None:
    generator = np.random.default_rng(2)
    noise = generator.normal(size=(101, 41))
    for t in range(1, 41):
        noise[:, t] += 0.8 * noise[:, t - 1]
    slow = np.cumsum(generator.normal(size=41))[:, None]
    plain, aware = (glm(bold(noise), slow, noise=kind) for kind in ("ols", "ar1"))
    assert np.std(aware) < 0.8 * np.std(plain)


def test_a_constant_curve_is_followed_by_no_voxel() -> None:
    values, curves = data()
    curves[:, 1] = 4.0
    found = glm(bold(values), curves)
    assert found.shape == (5, 3)
    assert (found[:, 1] == 0).all()
    np.testing.assert_allclose(found[:, [0, 2]], glm(bold(values), curves[:, [0, 2]]))


def test_glm_names_what_does_not_fit() -> None:
    values, curves = data()
    with pytest.raises(ValueError, match=r"`curves`: expected \(41, n\), a line a volume, got \(40, 3\)"):
        glm(bold(values), curves[:40])
    with pytest.raises(ValueError, match="`curves`: expected fewer columns and runs than volumes, 41, got 41"):
        glm(bold(values), np.random.default_rng(1).normal(size=(41, 39)))
    with pytest.raises(ValueError, match="`noise`: expected 'ar1' or 'ols', got 'white'"):
        glm(bold(values), curves, noise="white")
