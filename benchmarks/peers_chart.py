"""The picture of docs/peers.md: every side's time over that of mmha, row by row, on a log scale."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peers_section import OURS, PEERS, heads, times

from mmha import checkpoint
from mmha.bench.chart import GRID, TEXT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colours that stay apart for eyes that see no red or no green (Okabe and Ito 2008), and shapes for those that see none.
STYLE = {
    "torch SDPA": ("#d55e00", "o"),
    "FlexAttention": ("#e69f00", "D"),
    "ONNX Runtime": ("#0072b2", "s"),
    "JAX": ("#cc79a7", "v"),
    "OpenVINO": ("#009e73", "^"),
}
DIRECTIONS = {"forward": "forward", "training": "forward and backward"}
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200)


def draw(run: Mapping[str, Any], path: Path) -> None:
    """Write the picture, on white, so that a dark page shows it as a light one does; the ending chooses the format."""
    from matplotlib.figure import Figure

    groups = [[row for row in run["rows"] if row["direction"] == direction] for direction in DIRECTIONS]
    titles = [title for title, rows in zip(DIRECTIONS.values(), groups, strict=True) if rows]
    groups = [rows for rows in groups if rows]
    ratios = [ms / times(row)[OURS] for row in run["rows"] for ms in times(row).values()]
    limits = 0.8 * min(ratios), 1.25 * max(ratios)
    figure = Figure(figsize=(9, 1.8 + 0.27 * sum(map(len, groups))), layout="constrained", facecolor="white")
    panels = figure.subplots(len(groups), 1, squeeze=False, sharex=True, height_ratios=[len(rows) for rows in groups])
    for axes, title, rows in zip(panels[:, 0], titles, groups, strict=True):
        panel(axes, title, rows, limits)
    figure.supxlabel("time over that of mmha (log scale): right of 1, mmha is faster", fontsize=9.5, color=TEXT)
    marks = {
        label: mark for axes in panels[:, 0] for mark, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    title = f"Attention, {run['threads']} threads, {run['machine']['cpu']}"
    figure.legend(marks.values(), marks, title=title, loc="outside upper center", ncols=len(marks), frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix[1:].lower(), dpi=130)
    checkpoint.write(path, picture.getvalue())


def panel(axes: Axes, title: str, rows: Sequence[Mapping[str, Any]], limits: tuple[float, float]) -> None:
    """One line a row, the first on top; a mark a peer."""
    for peer in PEERS:
        found = [(times(row)[peer] / times(row)[OURS], place) for place, row in enumerate(rows) if peer in times(row)]
        colour, shape = STYLE[peer]
        if found:
            axes.plot(*zip(*found, strict=True), shape, color=colour, markersize=6, label=peer)
    axes.axvline(1, color=TEXT, linewidth=1)
    axes.set_yticks(range(len(rows)), [label(row) for row in rows], fontsize=8.5, color=TEXT)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xscale("log")
    axes.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS], fontsize=8.5)
    axes.set_xlim(*limits)
    axes.minorticks_off()
    axes.tick_params(labelbottom=True, colors=TEXT)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, loc="left", fontsize=10, color=TEXT, pad=4)


def label(row: Mapping[str, Any]) -> str:
    """What a row is called; 8 heads in float32 go without saying."""
    dtype = "" if row["dtype"] == "float32" else f" {row['dtype']}"
    shared = "" if heads(row) == "8" else f" heads {heads(row)}"
    return f"{row['kind']} {row['sizes']['k_len']}{shared}{dtype}"
