"""The picture of a run, for any choice of rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmha.bench import chart
from mmha.bench.cases import Case, sizes
from mmha.bench.measure import Limits, Row
from mmha.bench.table import CASES

LIMITS = Limits(threads=2, best={("GFLOP/s", 2): 200.0, ("GB/s", 2): 20.0})


def row(case: Case, ratio: float) -> Row:
    return Row(case, threads=2, pairs=1000, limit=200.0, torch_ms=[ratio], mmha_ms=[1.0], difference=0.0)


@pytest.mark.parametrize("cases", [CASES[:1], CASES[-1:], CASES], ids=["forward", "recorded", "all"])
def test_draws_any_choice_of_rows(cases: tuple[Case, ...], tmp_path: Path) -> None:
    path = tmp_path / "bench.svg"
    chart.draw(LIMITS, [row(case, 0.8 + number) for number, case in enumerate(cases)], path)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<?xml")


def test_forward_stands_left_and_all_else_right() -> None:
    left, right = chart.columns_of([row(case, 1.0) for case in CASES])
    assert [heading for heading, _ in left] == [
        "masks: forward",
        "features: forward",
        "irregular masks: forward",
        "short, few and odd shapes: forward",
        "a small call on one thread: forward",
        "decode from a cache: forward, GB/s",
        "decode from a cache: forward",
    ]
    assert {member.case.direction for _, members in left for member in members} == {"forward"}
    assert [member.case for _, members in left + right for member in members] == sorted(
        CASES, key=lambda case: case.direction != "forward"
    )


def test_a_bar_is_as_long_as_its_ratio_and_the_first_row_on_top() -> None:
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    cases = (
        Case("masks", "forward", "dense", sizes(31), aim=1.0),
        Case("shapes", "forward", "tree", SHARED, 1.0, "f16"),
    )
    chart.panel(axes, "forward", [row(cases[0], 1.5), row(cases[1], 0.75)], (0.5, 5.0))
    assert [(bar.get_x(), bar.get_width()) for bar in axes.patches] == [(1, 0.5), (1, -0.25)]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["dense 31", "tree 7x31 1x8/2 d29 f16"]
    assert axes.yaxis_inverted()
    assert axes.get_xscale() == "log"
    assert axes.get_xlim() == (0.5, 5.0)


SHARED = sizes(31, q_len=7, kv_heads=2, dim=29)


def test_the_scale_holds_every_bar_and_aim() -> None:
    low, high = chart.span([row(CASES[0], 0.4), row(CASES[0], 3.0)])
    assert low < 0.4
    assert high > 3.0
    low, high = chart.span([row(Case("masks", "forward", "dense", sizes(31), aim=9.0), 2.0)])
    assert low < 1.0
    assert high > 9.0
