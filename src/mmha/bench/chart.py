"""The picture of a run: how many times as fast as torch, row by row, with the aim marked.

One panel a group of rows, forward passes in the left column, all else in the right; every panel has the same scale.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from mmha import checkpoint
from mmha.bench.cases import DType
from mmha.bench.machine import cpu_name
from mmha.bench.measure import Limits, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

BARS: dict[DType, str] = {"f32": "#3b6ea8", "bf16": "#4f9a62", "f16": "#8a6bb0", "i8": "#c79a3a"}
AIM, GRID, TEXT = "#c8501e", "#d9d9d9", "#333333"
TITLE_ROWS = 1.6  # the height that a panel's title and margins take, in rows
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)

Group = tuple[str, list[Row]]


def draw(limits: Limits, rows: Sequence[Row], path: Path) -> None:
    """Write the picture; the file's ending chooses the format.

    Raises:
        ValueError: matplotlib does not know the ending.
    """
    from matplotlib.figure import Figure

    columns = [column for column in columns_of(rows) if column]
    height = max(map(column_height, columns))
    figure = Figure(figsize=(7.5 * len(columns), 1.2 + 0.23 * height), layout="constrained")
    parts = figure.subfigures(1, len(columns), squeeze=False)[0]
    for part, groups in zip(parts, columns, strict=True):
        fill(part, groups, height, span(rows))
    figure.suptitle(f"Masked attention, {limits.threads} threads, {cpu_name()}", fontsize=13, color=TEXT)
    figure.supxlabel(
        "times as fast as torch (log scale) and share of the machine's multiply-adds or reading", fontsize=10
    )
    figure.legend(handles=legend(rows), loc="upper right", ncols=4, frameon=False, fontsize=9)
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix[1:].lower(), dpi=130)
    checkpoint.write(path, picture.getvalue())


def columns_of(rows: Sequence[Row]) -> tuple[list[Group], list[Group]]:
    """The groups of forward passes, and the others, each with its heading."""
    groups = [(heading, list(members)) for heading, members in groupby(rows, lambda row: row.case.heading)]
    forward = [group for group in groups if group[1][0].case.direction == "forward"]
    return forward, [group for group in groups if group not in forward]


def column_height(groups: Sequence[Group]) -> float:
    """The height of a column, in rows."""
    return sum(len(members) + TITLE_ROWS for _, members in groups)


def fill(part: SubFigure, groups: Sequence[Group], height: float, limits: tuple[float, float]) -> None:
    """One panel a group; the rest of the height stays empty, so that rows are as high in every column."""
    heights = [len(members) + TITLE_ROWS for _, members in groups]
    rest = height - sum(heights)
    panels = part.subplots(len(groups) + (rest > 0), 1, squeeze=False, height_ratios=[*heights, *[rest] * (rest > 0)])
    for axes in panels[len(groups) :, 0]:
        axes.axis("off")
    for (heading, members), axes in zip(groups, panels[:, 0], strict=False):
        panel(axes, heading, members, limits)


def panel(axes: Axes, title: str, rows: Sequence[Row], limits: tuple[float, float]) -> None:
    """Horizontal bars for one group, the first row on top; a bar starts at 1, as fast as torch."""
    places = range(len(rows))
    colours = [BARS[row.case.dtype] for row in rows]
    axes.barh(places, [row.ratio - 1 for row in rows], left=1, color=colours, height=0.7)
    axes.plot([row.case.aim for row in rows], places, "|", color=AIM, markersize=11, markeredgewidth=2)
    for place, row in zip(places, rows, strict=True):
        note = f"{row.ratio:.{2 if row.ratio < 10 else 1}f}×  {row.share:.0%}"
        end = max(row.ratio, row.case.aim, 1)
        axes.annotate(note, (end, place), (7, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(places, [label(row) for row in rows], fontsize=8.5)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xscale("log")
    axes.set_xlim(*limits)
    axes.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS], fontsize=8)
    axes.set_xlim(*limits)
    axes.minorticks_off()
    axes.axvline(1, color=TEXT, linewidth=0.8)
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, loc="left", fontsize=10.5, color=TEXT, pad=4)


def label(row: Row) -> str:
    """What a row is called beside its bar; one batch of 8 heads of 64 in float32 goes without saying."""
    case, size = row.case, row.case.sizes
    heads = "" if size.heads_text == "1x8" else f" {size.heads_text}"
    dim = "" if size.dim == 64 else f" d{size.dim}"
    dtype = "" if case.dtype == "f32" else f" {case.dtype}"
    return f"{case.kind} {size.length_text}{heads}{dim}{dtype}"


def span(rows: Sequence[Row]) -> tuple[float, float]:
    """The ends of the scale: room for the shortest bar, and for a note behind the longest."""
    ends = [end for row in rows for end in (row.ratio, row.case.aim)]
    return 0.85 * min(1.0, *ends), 2.4 * max(1.0, *ends)


def legend(rows: Sequence[Row]) -> list[object]:
    """A patch for every dtype in the picture, and the mark of what is aimed at."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    present = {row.case.dtype for row in rows}
    mark = Line2D([], [], color=AIM, marker="|", linestyle="none", markersize=11, markeredgewidth=2, label="aim")
    return [*(Patch(color=colour, label=name) for name, colour in BARS.items() if name in present), mark]
