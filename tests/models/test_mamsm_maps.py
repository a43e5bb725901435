"""Spatial maps against the Lasso's closed form, and against networks that are known."""

from __future__ import annotations

import numpy as np
import pytest

from mmha.models.mamsm.maps import chance, network, overlap, spatial


def orthonormal(length: int, count: int) -> np.ndarray:
    """Curves of mean 0 and deviation 1 that are uncorrelated."""
    made = np.random.default_rng(1).normal(size=(length, count))
    q, _ = np.linalg.qr(made - made.mean(0))
    return q * np.sqrt(length)


def test_uncorrelated_courses_have_soft_thresholded_correlations() -> None:
    courses = orthonormal(41, 3)
    values = np.random.default_rng(2).normal(size=(13, 41)) * 4 + 9
    r = np.array([[np.corrcoef(v, c)[0, 1] for c in courses.T] for v in values])
    wanted = np.sign(r) * np.maximum(np.abs(r) - 0.1, 0)
    np.testing.assert_allclose(spatial(values, courses, alpha=0.1), wanted, atol=1e-6)


def test_a_map_that_is_mostly_negative_is_turned_round_when_asked() -> None:
    course = orthonormal(23, 1)
    values = course[:, 0] * np.array([-1.0, -1.0, -1.0, 1.0, 1.0])[:, None]
    assert (spatial(values, course, turn=True)[:, 0] > 0).tolist() == [True, True, True, False, False]
    assert (spatial(values, course)[:, 0] > 0).tolist() == [False, False, False, True, True]


def test_constant_voxels_and_courses_are_nowhere() -> None:
    courses = orthonormal(23, 2)
    courses[:, 1] = 3.0
    values = np.stack([courses[:, 0], np.full(23, 5.0)])
    np.testing.assert_allclose(spatial(values, courses, alpha=0.25), [[0.75, 0], [0, 0]], atol=1e-9)


def test_known_networks_are_found() -> None:
    generator = np.random.default_rng(3)
    courses = orthonormal(97, 2)
    truth = np.zeros((53, 2))
    truth[:11, 0] = truth[7:23, 1] = 1
    values = truth @ courses.T + 0.5 * generator.normal(size=(53, 97))
    found = network(spatial(values, courses))
    assert [overlap(found[:, i], truth[:, i] > 0) for i in range(2)] == [1.0, 1.0]


def test_spatial_names_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"`courses`: expected values .* of one T, got \(3, 7\) and \(5, 2\)"):
        spatial(np.zeros((3, 7)), np.zeros((5, 2)))
    with pytest.raises(ValueError, match="`alpha`: expected a number > 0, got 0"):
        spatial(np.zeros((3, 7)), np.zeros((7, 2)), alpha=0.0)


def test_network_is_what_is_above_a_share_of_the_largest() -> None:
    assert network(np.array([10.0, 3.1, 3.0, -20.0, 0.0])).tolist() == [True, True, False, False, False]
    assert network(np.zeros(0)).shape == (0,)


def test_network_of_several_maps_judges_each_by_itself() -> None:
    maps = np.array([[10.0, 1.0], [2.0, 0.5], [4.0, 0.1]])
    assert network(maps).T.tolist() == [[True, False, True], [True, True, False]]


def test_overlap_of_nothing_is_0() -> None:
    nothing = np.zeros(3, bool)
    assert overlap(nothing, nothing) == chance(nothing, nothing) == 0.0
    assert chance(np.zeros(0, bool), np.zeros(0, bool)) == 0.0


def test_chance_is_what_random_sets_overlap_by() -> None:
    generator = np.random.default_rng(4)
    a, b = np.arange(401) < 101, np.arange(401) < 59
    drawn = [overlap(a, generator.permutation(b)) for _ in range(300)]
    assert abs(np.mean(drawn) - chance(a, b)) < 0.01
