"""The picture of a run, for any choice of rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmha.bench import chart
from mmha.bench.cases import CASES, Case
from mmha.bench.measure import Limits, Row

LIMITS = Limits(threads=2, fma_gflops=200.0, read_gbs=20.0)


def row(case: Case, ratio: float) -> Row:
    return Row(case, pairs=1000, limit=200.0, torch_ms=[ratio], mmha_ms=[1.0], difference=0.0)


@pytest.mark.parametrize("count", [1, len(CASES)])
def test_draws_any_number_of_rows(count: int, tmp_path: Path) -> None:
    path = tmp_path / "bench.svg"
    chart.draw(LIMITS, [row(case, 0.8 + number) for number, case in enumerate(CASES[:count])], path)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<?xml")


def test_a_bar_is_as_long_as_its_ratio_and_the_first_row_on_top() -> None:
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    chart.panel(axes, "forward", [row(CASES[0], 1.5), row(CASES[2], 3.0)])
    assert [(bar.get_x(), bar.get_width()) for bar in axes.patches] == [(1, 0.5), (1, 2.0)]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["dense 2048", "causal 512"]
    assert axes.yaxis_inverted()
    assert axes.get_xscale() == "log"
