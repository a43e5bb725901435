"""BERT in benchmarks/: the same on all sides, forward, backward and over steps of training, and its tables."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from mmha.data import registry
from mmha.models.bert import Bert, Config
from mmha.train.masking import Masking
from mmha.train.pairs import Pairs
from mmha.train.pretraining import Batches, Frame
from mmha.train.settings import Settings

FOLDER = Path(__file__).parent.parent / "benchmarks"
NAMES = ["forward-f32", "forward-bf16", "long-f32", "training-f32", "training-bf16", "embedding"]
CONFIG = Config(vocabulary=97, width=22, layers=3, heads=2, hidden=37, positions=31, dropout=0.0)
STEPS = 7

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module(request.param)


@pytest.mark.parametrize("script", ["bert"], indirect=True)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_every_row_computes_the_same_on_all_sides(script: ModuleType, name: str) -> None:
    if not (registry.is_here("minilm") and registry.is_here("brown")):
        pytest.skip("needs MiniLM and the Brown corpus: mmha data get minilm, mmha data get brown")
    assert [row.name for row in script.ROWS] == NAMES
    row = next(row for row in script.ROWS if row.name == name)
    sides = row.sides(True)
    assert [side.name for side in sides] == ["transformers", SORTED if name == "embedding" else "torch", "mmha"]
    exact, *others = [side.result() for side in sides]
    allowed = 5e-3 if "bf16" in name else 1e-5
    for other in others:
        assert 0 <= (other - exact).norm() <= allowed * exact.norm()


SORTED = "transformers, sorted"


@pytest.mark.parametrize("script", ["bert_twin"], indirect=True)
def test_training_takes_the_steps_that_transformers_takes(script: ModuleType) -> None:
    generator = np.random.default_rng(3)
    texts = [[generator.integers(5, 97, generator.integers(1, 9)).tolist() for _ in range(11)] for _ in range(5)]
    batches = Batches(Pairs(texts, 31), Frame(2, 3), Masking(4, (0, 1, 2, 3, 4), 97), rows=5, seed=1)
    torch.manual_seed(1)
    model = Bert(CONFIG)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    sides = script.trained(model, batches, Settings(STEPS, 3e-3, warmup=2))
    ours, theirs = sides["mmha"], sides["transformers"]
    assert len(ours.losses) == len(theirs.losses) == len(ours.seconds) == STEPS
    assert ours.losses == pytest.approx(theirs.losses, abs=1e-4)
    assert ours.losses[-1] != pytest.approx(ours.losses[0], abs=1e-2)
    learned = script.from_transformers(model, dict(theirs.model.named_parameters()))
    for name, weight in model.named_parameters():
        assert (weight - before[name]).abs().max() > 1e-4, name
        torch.testing.assert_close(weight, learned[name], atol=2e-4, rtol=0)


@pytest.mark.parametrize("script", ["bert_section"], indirect=True)
def test_the_tables_are_written_from_runs(script: ModuleType) -> None:
    def row(title: str, **sides: float) -> dict[str, Any]:
        return {"title": title, "sides": [{"side": name, "s": s} for name, s in sides.items()]}

    run = {
        "measured": "2026-11-24T",
        "machine": {"cpu": "X", "torch": {"version": "2"}},
        "threads": 2,
        "rows": [row("A", transformers=6.0, torch=3.0, mmha=1.5),
                 row("B", **{"transformers": 4.0, SORTED: 3.0, "mmha": 2.0})],
    }  # fmt: skip
    lines = script.section(run).splitlines()
    assert lines[4] == "| A | 6 | 3 | 1.5 | 4.00 | 2.00 |"
    assert lines[8] == "| B | 4 | 3 | 2 | 2.00 | 1.50 |"
    for table in (lines[2:5], lines[6:9]):
        assert len({line.count("|") for line in table}) == 1


@pytest.mark.parametrize("script", ["bert_section"], indirect=True)
def test_the_table_of_the_twins_is_written_from_a_run(script: ModuleType) -> None:
    def pair(dropout: float, ours: float, theirs: float) -> dict[str, Any]:
        def side(loss: float, seconds: float) -> dict[str, Any]:
            return {"losses": [loss] * 12, "loss": loss, "words": 0.25, "next": 0.5, "seconds": seconds}

        return {"dropout": dropout, "sides": {"mmha": side(ours, 2.0), "transformers": side(theirs, 5.0)}}

    run = {
        "measured": "2026-11-24T",
        "machine": {"cpu": "X"},
        "threads": 2,
        "steps": 12,
        "rows": 8,
        "config": {"layers": 4, "width": 160, "positions": 128},
        "runs": [pair(0.0, 6.0, 6.00001), pair(0.1, 5.0, 5.5), pair(0.1, 6.0, 6.5)],
    }
    text, _, *table = script.twin(run).splitlines()
    assert "first 10 steps differ by 1e-05 at most, those of all steps by 1e-05" in text
    assert table[2] == "| **mmha**, dropout 0 | 6.000 | 25.0% | 50.0% | 2.0 | 2.50 |"
    assert table[4] == "| **mmha**, dropout 0.1, 2 seeds | 5.500 ± 0.707 | 25.0% ± 0.0% | 50.0% ± 0.0% | 2.0 | 2.50 |"
    assert len({line.count("|") for line in table}) == 1
