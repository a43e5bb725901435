"""benchmarks/growth.py and long_runs.py: small sizes of each case, comparisons that notice, and their tables."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, one_thread: None) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module(request.param)


@pytest.mark.parametrize("script", ["growth"], indirect=True)
def test_every_case_has_its_times_and_its_bytes(script: ModuleType) -> None:
    found = {case: work(97) for case, (_, work) in script.CASES.items()}
    assert all(value > 0 for times, _ in found.values() for value in times.values())
    tensors = {case: round(1024 * megabytes) for case, (_, megabytes) in found.items()}
    assert tensors["window of 256, float32"] == round(97 * 64 * 4 * 8 / 1024)  # q, k, v, out and their gradients
    assert tensors["window of 256, bfloat16"] == round(97 * 64 * 2 * 8 / 1024)
    assert tensors["problems of 32 tokens"] == 2 * tensors["problems of 16 tokens"] == 96 * 32 * 64 * 4 * 8 // 1024
    assert tensors["a token, PagedKVCache"] == (97 // 16 + 4) * 16 * 2 * 2 * 64 * 4 // 1024


@pytest.mark.parametrize("script", ["growth"], indirect=True)
def test_a_slope_is_the_power_of_the_size(script: ModuleType, tmp_path: Path) -> None:
    times = {"lowering": 3.0, "forward": 1.0, "backward": 2.0}
    rows = [
        {"case": case, "size": 5 * 4**n, "s": {k: v * 8**n for k, v in times.items()}, "peak_mb": 2.0**n}
        for case in script.CASES
        for n in range(3)
    ]
    assert script.slope(rows[:3], script.work_s) == pytest.approx(1.5)
    script.plot(rows, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").stat().st_size > 10_000


@pytest.mark.parametrize("script", ["growth_section"], indirect=True)
def test_the_table_of_growth(script: ModuleType) -> None:
    times = {"lowering": 0.0124, "forward": 1.5, "backward": 2.5}
    last = {"case": "problems of 16 tokens", "size": 100_000, "s": times, "tensors_mb": 1000.4, "peak_mb": 1203.0}
    first = {**last, "size": 25_000, "s": {name: value / 4 for name, value in times.items()}, "peak_mb": 1203.0}
    machine = {"cpu": "X", "kernels": {"isa": "scalar"}, "torch": {"threads": 3}}
    run = {"measured": "2026-11-28T1", "machine": machine, "rows": [first, last]}
    assert "| problems of 16 tokens | 100,000 | 12.4 | 1,500 | 2,500 | 1,203 | 1,000 | 1.00 | 0.00 |" in script.section(
        run
    )
    assert "| 16 个词元的小问题 | 100,000 | 12.4 |" in script.section(run, script.CHINESE)


@pytest.mark.parametrize("script", ["long_runs"], indirect=True)
def test_the_ends_of_long_runs_are_right(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "WINDOW", 13)
    found = {name: work(units) for name, (work, _, _) in script.RUNS.items() for units in [2] if name != "training"}
    assert found["stream"]["apart"] < 1e-5
    assert found["generation"]["apart"] < 1e-4  # 120 tokens, of which the last can see 4 + 6 · 12 + 1
    assert found["pages"]["apart"] == 0.0
    assert {len(row["marks"]) for row in found.values()} == {4}


@pytest.mark.parametrize("script", ["long_section"], indirect=True)
def test_the_table_of_long_runs(script: ModuleType) -> None:
    marks = [{"at": at, "memory_mb": 200.4, "ms": at / 60 + 1} for at in (1, 10, 30, 60)]
    rows = [
        {"run": "stream", "measured": "2026-11-28T1", "units": 225_000, "marks": marks, "apart": 2.6e-7},
        {"run": "pages", "units": 60, "marks": marks, "apart": float("inf")},
        {"run": "training", "units": 2, "marks": [{"step": 4}, {"step": 20}], "apart": 0.0},
    ]
    *_, stream, pages, _, training = script.section({"rows": rows}).splitlines()
    assert "| 225,000 | 200 | 200 | 200 | 200 | 1.97 | the last sixtieth is 3e-07 of its peak" in stream
    assert pages.endswith("| NOT AS IT MUST BE |")
    assert "killed 2 times (SIGKILL, with a state of step 4, 20)" in training


@pytest.mark.slow
@pytest.mark.parametrize("script", ["long_training"], indirect=True)
def test_killed_again_and_again_it_writes_the_same_bytes(script: ModuleType) -> None:
    assert script.killed(3)["apart"] == 0.0
