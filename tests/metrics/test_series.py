"""Pearson's r against numpy's."""

from __future__ import annotations

import numpy as np
import pytest

from mmha.metrics.series import correlation


def test_correlation_is_numpys() -> None:
    a, b = np.random.default_rng(1).normal(size=(2, 13, 5)) * 3 + 7
    wanted = [np.corrcoef(a[:, i], b[:, i])[0, 1] for i in range(5)]
    np.testing.assert_allclose(correlation(a, b), wanted, atol=1e-12)


def test_correlation_with_a_constant_and_of_nothing_is_0() -> None:
    assert correlation(np.ones((7, 1)), np.arange(7.0)[:, None]).tolist() == [0.0]
    assert correlation(np.zeros((1, 2)), np.zeros((1, 2))).tolist() == [0.0, 0.0]
    assert correlation(np.zeros((0, 3)), np.zeros((0, 3))).tolist() == [0.0, 0.0, 0.0]


def test_correlation_names_another_shape() -> None:
    with pytest.raises(ValueError, match=r"`b`: expected shape \(T, n\) = \(7, 2\), got \(7, 3\)"):
        correlation(np.zeros((7, 2)), np.zeros((7, 3)))
