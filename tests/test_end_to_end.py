"""Whole models in benchmarks/: the sides of every row compute the same, take turns, and become the README's tables."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch

import mmha
from mmha.data import registry

FOLDER = Path(__file__).parent.parent / "benchmarks"
NAMES = ("minilm", "bert", "prefill", "generation", "sliding", "training")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module(request.param)


@pytest.mark.parametrize("script", ["end_to_end"], indirect=True)
@pytest.mark.parametrize("name", NAMES)
def test_every_row_runs_on_all_sides_that_need_no_compiler(script: ModuleType, name: str, one_thread: None) -> None:
    if name == "minilm" and not (registry.is_here("minilm") and registry.is_here("brown")):
        pytest.skip("needs MiniLM and the Brown corpus: mmha data get minilm, mmha data get brown")
    assert tuple(row.name for row in script.ROWS) == NAMES
    mmha.huggingface.register()
    row = next(row for row in script.ROWS if row.name == name)
    found = script.measure(row, quick=True, seconds=0.0)  # compares, or raises
    fewest = importlib.import_module("turns").FEWEST
    wanted = ["torch", "mmha.patch()", "mmha.nn"] if name == "training" else ["eager", "sdpa", "mmha"]
    assert [side["side"] for side in found["sides"]] == wanted
    assert list(found["without"]) == ([] if name == "training" else ["flex"])
    assert found["sides"][0]["difference"] == 0
    assert all(0 < side["difference"] < 1e-5 for side in found["sides"][1:])
    assert all(len(side["samples_s"]) == fewest and side["s"] > 0 for side in found["sides"])


@pytest.mark.parametrize("script", ["end_to_end"], indirect=True)
def test_a_side_that_computes_otherwise_ends_the_run_and_one_that_cannot_is_left_out(script: ModuleType) -> None:
    calls: list[str] = []

    def side(name: str, result: float | None) -> object:
        def work() -> torch.Tensor:
            calls.append(name)
            if result is None:
                raise RuntimeError("no compiler\nand more")
            return torch.tensor([3.0, result])

        return script.Side(name, work, work)

    row = script.Row("r", "a row", lambda quick: [side("eager", 4.0), side("flex", None), side("mmha", 4.0)])
    found = script.measure(row, quick=False, seconds=0.0)
    assert found["without"] == {"flex": "RuntimeError: no compiler"}
    assert calls == ["eager", "flex", "mmha", "eager", "mmha", "mmha", "eager", "eager", "mmha"]
    row = script.Row("r", "a row", lambda quick: [side("eager", 4.0), side("mmha", 4.005)])
    with pytest.raises(SystemExit, match=r"r: mmha differs by 1\.0e-03 relative, allowed 1e-04"):
        script.measure(row, quick=False, seconds=0.0)


@pytest.mark.parametrize("script", ["end_to_end_section"], indirect=True)
def test_the_tables_of_whole_models_are_written_from_a_run(script: ModuleType) -> None:
    def row(title: str, without: dict[str, str], **sides: float) -> dict[str, object]:
        made = [{"side": name, "s": s, "first_s": 10 * s} for name, s in sides.items()]
        return {"title": title, "without": without, "sides": made}

    run = {
        "measured": "2026-11-24T",
        "machine": {"cpu": "X"},
        "threads": 2,
        "rows": [
            row("A", {}, eager=6.0, sdpa=3.0, flex=4.0, mmha=1.5),
            row("B", {"flex": "E: no"}, eager=1234.0, sdpa=1.0, mmha=2.0),
            row("C", {}, **{"torch": 9.0, "mmha.patch()": 6.0, "mmha.nn": 4.5}),
        ],
    }
    lines = script.section(run).splitlines()
    assert "took 40 to 40 s" in lines[0]
    assert "Where flex is missing: E: no." in lines[0]
    assert lines[4] == "| A | 6 | 3 | 4 | 1.5 | 4.00 | 2.00 | 2.67 |"
    assert lines[5] == "| B | 1234 | 1 | – | 2 | 617.00 | 0.50 | – |"
    assert lines[-1] == "| C | 9 | 6 | 4.5 | 1.50 | 2.00 |"
    for table in (lines[2:6], lines[7:10]):
        assert len({line.count("|") for line in table}) == 1
