"""What benchmarks/fmri.py judges by: known networks, the choice of time courses, and accuracy on held-out runs."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module(request.param)


@pytest.mark.parametrize("script", ["fmri_simulation"], indirect=True)
def test_simulated_voxels_follow_their_networks(script: ModuleType) -> None:
    made = script.simulate(401, 3, seed=1)
    assert made.values.shape == (400, 401)
    np.testing.assert_allclose(made.values.std(1), 1, rtol=1e-5)
    weights = np.linalg.lstsq(made.curves - made.curves.mean(0), made.values.T, rcond=None)[0].T
    for i in range(3):
        inside = made.truth[:, i]
        assert weights[inside, i].mean() > 10 * abs(weights[~inside, i].mean())


@pytest.mark.parametrize("script", ["fmri_simulation"], indirect=True)
def test_a_seed_makes_the_same_simulation(script: ModuleType) -> None:
    first, again, other = (script.simulate(101, 2, seed=seed).values for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("script", ["fmri_methods"], indirect=True)
def test_best_takes_the_most_similar_in_the_chosen_volumes_and_turns_it(script: ModuleType) -> None:
    generator = np.random.default_rng(1)
    curves, others = generator.normal(size=(2, 41, 3))
    chosen = np.arange(41) < 29
    misleading = np.where(chosen[:, None], others, curves)  # like the curves in volumes that must not be looked at
    found = script.best(np.concatenate([misleading, -2 * curves[:, ::-1]], 1), curves, chosen)
    np.testing.assert_allclose(found, 2 * curves)


@pytest.mark.parametrize("script", ["fmri"], indirect=True)
def test_accuracy_counts_blocks_of_the_runs_left_out(script: ModuleType) -> None:
    labels = np.array((["rest"] * 2 + ["face"] * 3 + ["house"] * 3 + ["face"] * 2) * 3)
    runs = np.repeat([0, 1, 2], 10)
    rows = np.where(labels == "face", 1.0, -1.0)[:, None] + 0.01 * np.arange(30)[:, None] / 30
    parts = [runs != run for run in range(3)]
    assert script.accuracy(lambda number: rows, parts, runs, labels) == 1.0
    turned = np.where((runs == 0)[:, None], -rows, rows)  # one run of three has no part in what the others say
    assert script.accuracy(lambda number: turned, parts[:1], runs, labels) == 0.0
