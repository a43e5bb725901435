"""What benchmarks/fmri.py judges by: known networks, the choice of time courses, and accuracy on held-out runs."""

from __future__ import annotations

import importlib
import re
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


@pytest.mark.parametrize("script", ["fmri_section"], indirect=True)
@pytest.mark.parametrize("language", ["ENGLISH", "CHINESE"])
def test_the_tables_are_written_from_a_run(script: ModuleType, language: str) -> None:
    keys = ("r_fitted", "r_held_out", "r_beyond_timing", "r_first_fold")
    courses = {name: dict(zip(keys, (0.5, 0.25, 0.125, 0.0625), strict=True), decoded=0.5) for name in script.COURSES}
    seen = {"effective": 48.6, "volumes": 121, "place": 0.5, "value": 0.25, "kept": {"log": 0.75, "weights": 0.5}}
    tasks = ("emotion", "gambling", "language", "motor", "relational", "social", "working memory")
    rows = {name: {"r": 0.5, "iou": 0.25, "map_r": 0.125} for name in script.SIMULATED}
    run = {
        "processor_minutes": 23,
        "haxby": {
            "steps": 307, "epochs": 31, "longer": 6, "published_steps": 101, "time_courses": courses,
            "hidden_values": {key: {"rms": 0.875} for key in ("model", "published size", "published size, faithful")},
            "decision": {"epochs": [31, 101], "r": {key: [0.75, 0.375] for key in script.DECIDED}},
            "looks": dict.fromkeys(script.LOOKS, seen),
            "decoding": {key: {"one": 0.5, "two": None} for key in script.DECODED},
        },
        "simulation": {"steps": 41, "epochs": 103, "tasks": dict.fromkeys(tasks, rows)},
    }  # fmt: skip
    words = getattr(script, language)
    made = [script.haxby(run, words), script.simulation(run, words)]
    lines = "\n".join(made).splitlines()
    assert any(line.endswith("| **0.500** | **0.250** | **0.125** | **0.062** |") for line in lines)
    assert sum(line.endswith("| 0.750 | 0.375 |") for line in lines) == len(script.DECIDED)
    assert any(line.endswith("| 49 | 50 % | 25 % | 0.75 | 0.50 |") for line in lines)
    assert any(line.endswith("| 50.0 % | – |") for line in lines)
    assert lines[-1] == "| GLM | 0.500 | 0.250 | 0.125 |" + " 0.25 |" * 7
    assert all(number in "".join(made) for number in ("307", "101", "0.875", "103", "23", "121"))
    if language == "CHINESE":
        said = re.sub(r"`[^`]*`", "", "".join(made))
        assert re.findall(r"[a-z]{2,} [a-z]{2,}", said) == []
