"""The scripts in benchmarks/: every side computes the same, and their results become the README's tables."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from mmha.bench.cases import Sizes
from mmha.models.causal_lm import CausalLM, small

FOLDER = Path(__file__).parent.parent / "benchmarks"
SHARED = Sizes(batch=3, heads=10, kv_heads=2, q_len=1, k_len=263, dim=32)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module(request.param)


@pytest.fixture
def section(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("decode_section")


@pytest.mark.parametrize("script", ["decode_peers"], indirect=True)
@pytest.mark.parametrize("name", ["onnxruntime", "llama.cpp"])
def test_other_systems_compute_the_same(script: ModuleType, name: str) -> None:
    reason = script.missing().get(name)
    if reason is not None:
        pytest.skip(reason)
    sides, _ = script.shape_rows(SHARED, [script.MAKERS["mmha"], script.MAKERS[name]], 1, 0.0)  # compares, or raises
    assert len(sides) == 4 + 2
    assert all(0 < side["error"] < 3e-2 for side in sides)


@pytest.mark.parametrize("script", ["decode_peers"], indirect=True)
def test_a_side_that_computes_otherwise_ends_the_run(script: ModuleType) -> None:
    q, k, v = script.problem(SHARED)
    side = script.ours(SHARED, q, k, v, 1)[0]
    side.work()
    exact = side.out()
    with pytest.raises(SystemExit, match=r"mmha float32 differs from float32 by .* relative, allowed 2e-05"):
        script.compared(replace(side, out=lambda: exact * 1.001), exact)


@pytest.mark.parametrize("script", ["decode_peers"], indirect=True)
def test_bytes_and_rates_are_those_of_each_format(script: ModuleType) -> None:
    sides, reads = script.shape_rows(SHARED, [script.MAKERS["mmha"], script.MAKERS["torch"]], 1, 0.0)
    assert len(reads) == script.FEWEST
    numbers = 2 * 3 * 2 * 263 * 32
    formats = {"mmha float32": 4 * numbers, "mmha bfloat16": 2 * numbers, "mmha int8": numbers * 36 // 32}
    assert {side["side"]: side["read_bytes"] for side in sides}.items() >= formats.items()
    for side in sides:
        assert side["gbs"] == pytest.approx(side["read_bytes"] / side["ms"] / 1e6, rel=1e-2, abs=6e-3)
    assert all(len(side["samples_ms"]) == script.FEWEST for side in sides)


@pytest.mark.parametrize("script", ["generation"], indirect=True)
def test_a_model_says_the_same_on_both_attentions(script: ModuleType) -> None:
    torch.manual_seed(1)
    with torch.inference_mode():
        row = script.row("tiny", CausalLM(small(263)).eval(), 3, 37, 0.0)  # compares in float32, or raises
    assert [side["side"] for side in row["sides"]] == [
        "torch growing", "torch careful", "mmha float32", "mmha bfloat16", "mmha int8",
    ]  # fmt: skip
    assert all(side["tokens_per_second"] > 0 and len(side["samples_s"]) == script.FEWEST for side in row["sides"])


def test_the_tables_of_decoding_are_written_from_runs(section: ModuleType) -> None:
    def sides(names: list[str], **figures: float) -> list[dict[str, object]]:
        return [{"side": name, **figures} for name in names]

    names = [*section.SIDES, section.SHARED]
    shape = {"batch": 3, "heads": 10, "kv_heads": 2, "dim": 32, "k_len": 263}
    peers = {"measured": "2026-11-24T", "machine": {"cpu": "X", "kernels": {"isa": "scalar"}}, "threads": 2}
    there = [side for side in names if not side.startswith("llama.cpp")]
    peers["shapes"] = [{**shape, "read_gbs": 20.0, "sides": sides(there, ms=0.123456, gbs=16.0)}]
    row = {"model": "100M", "batch": 8, "context": 128}
    generation = {**peers, "rows": [{**row, "sides": sides(list(section.GENERATION), tokens_per_second=123.456)}]}
    lines = section.section(peers, generation).splitlines()
    cells = ["0.123", "0.123", "0.123 (80%)", "0.123", "0.123 (80%)", "0.123 (80%)", "0.123", "0.123 (80%)"]
    assert lines[4] == "| 3 × 10/2, 32, 263 | " + " | ".join(cells) + " |"
    assert lines[-1] == "| 100 M weights | 8 | 128 | 123 | 123 | 123 | 123 | 123 |"
    for table in (lines[2:5], lines[-3:]):
        assert len({line.count("|") for line in table}) == 1
