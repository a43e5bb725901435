"""The picture of a run: how many times faster than torch, row by row, with the aim marked."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmha import checkpoint
from mmha.bench.machine import cpu_name
from mmha.bench.measure import Limits, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BAR, AIM, GRID, TEXT = "#3b6ea8", "#c8501e", "#d9d9d9", "#333333"


def draw(limits: Limits, rows: Sequence[Row], path: Path) -> None:
    """Write the picture; the file's ending chooses the format.

    Raises:
        ValueError: matplotlib does not know the ending.
    """
    from matplotlib.figure import Figure

    groups = [(name, [row for row in rows if row.case.direction == name]) for name in ("forward", "backward")]
    groups = [(name, members) for name, members in groups if members]
    figure = Figure(figsize=(9.0, 1.5 + 0.33 * len(rows)), layout="constrained")
    heights = [len(members) for _, members in groups]
    panels = figure.subplots(len(groups), 1, sharex=True, squeeze=False, height_ratios=heights)
    for (name, members), axes in zip(groups, panels[:, 0], strict=True):
        panel(axes, name, members)
    panels[0, 0].legend(loc="upper right", frameon=False, fontsize=9)
    panels[-1, 0].set_xlabel("times as fast as torch.nn.functional.scaled_dot_product_attention (log scale)")
    figure.suptitle(f"Masked attention, float32, {limits.threads} threads, {cpu_name()}", fontsize=12, color=TEXT)
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix[1:].lower(), dpi=150)
    checkpoint.write(path, picture.getvalue())


def panel(axes: Axes, title: str, rows: Sequence[Row]) -> None:
    """Horizontal bars for one direction, the first row on top; a bar starts at 1, as fast as torch."""
    places = range(len(rows))
    ratios = [row.ratio for row in rows]
    axes.barh(places, [ratio - 1 for ratio in ratios], left=1, color=BAR, height=0.66)
    axes.plot(
        [row.case.aim for row in rows], places, "|", color=AIM, markersize=13, markeredgewidth=2, label="what we aim at"
    )
    for place, row in zip(places, rows, strict=True):
        note = f"{row.ratio:.1f}×   {row.gflops:.0f} GFLOP/s, {row.share:.0%} of limit"
        axes.annotate(
            note, (max(row.ratio, row.case.aim), place), (8, 0), textcoords="offset points", va="center", fontsize=8
        )
    axes.set_yticks(places, [f"{row.case.kind} {row.case.length}" for row in rows], fontsize=9)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(min(0.9, 0.9 * min(ratios)), 6 * max(max(ratios), *(row.case.aim for row in rows)))
    axes.set_xticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
    axes.minorticks_off()
    axes.axvline(1, color=TEXT, linewidth=0.8)
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, loc="left", fontsize=11, color=TEXT)
