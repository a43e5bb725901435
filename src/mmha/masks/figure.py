"""Drawings of a plan with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mmha.masks.picture import check_labels, clean, place_of
from mmha.masks.plan import Plan

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CELLS = 512  # at most this many cells on a side; a larger mask is scaled down
HIDDEN, VISIBLE, GRID = "#eef1f5", "#1f5fa8", "#ffffff"


def draw(
    plan: Plan, item: tuple[int, int], rows: Sequence[str] | None, columns: Sequence[str] | None, ax: Axes | None,
    title: str,
) -> Axes:  # fmt: skip
    """Fill the Axes with one (batch, head) item: dark = visible, a shade between where a cell is mixed."""
    place = place_of(plan, item)
    check_labels("rows", rows, plan.q_len)
    check_labels("columns", columns, plan.k_len)
    try:
        from matplotlib import colors, figure
    except ImportError as error:
        raise ImportError('drawing needs matplotlib: pip install "mmha[plot]"') from error
    if ax is None:
        ax = figure.Figure(figsize=_size(plan), layout="constrained").add_subplot()
    steps = max(1, -(-plan.q_len // CELLS)), max(1, -(-plan.k_len // CELLS))
    cells = plan.tiles(*steps)[place] if plan.q_len and plan.k_len else np.zeros((0, 0))
    shades = colors.LinearSegmentedColormap.from_list("mask", [HIDDEN, VISIBLE])
    long = max(plan.q_len, plan.k_len) > 16 * min(plan.q_len, plan.k_len)  # squares would make a hairline
    aspect: Literal["auto", "equal"] = "auto" if long else "equal"
    extent = (-0.5, plan.k_len - 0.5, plan.q_len - 0.5, -0.5)
    ax.imshow(cells, cmap=shades, vmin=0, vmax=2, extent=extent, interpolation="nearest", aspect=aspect)
    ax.set_title(title if len(title) <= 60 else title[:57] + "...", fontsize=10)
    ax.set_xlabel("key")
    ax.set_ylabel("query")
    _decorate(ax, plan, rows, columns)
    return ax


def _size(plan: Plan) -> tuple[float, float]:
    wide, high = max(plan.k_len, 1), max(plan.q_len, 1)
    longest = max(wide, high)
    return 1.2 + max(1.5, 5 * wide / longest), 1.0 + max(1.5, 5 * high / longest)


def _decorate(ax: Axes, plan: Plan, rows: Sequence[str] | None, columns: Sequence[str] | None) -> None:
    if max(plan.q_len, plan.k_len) <= 64:  # lines between cells while they can be told apart
        ax.set_xticks(np.arange(-0.5, plan.k_len), minor=True)
        ax.set_yticks(np.arange(-0.5, plan.q_len), minor=True)
        ax.grid(which="minor", color=GRID, linewidth=1)
        ax.tick_params(which="minor", length=0)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    if columns is not None:
        ax.set_xticks(range(plan.k_len), [clean(str(label)) for label in columns], rotation=90)
    if rows is not None:
        ax.set_yticks(range(plan.q_len), [clean(str(label)) for label in rows])
    for axis in _whole(ax, rows, columns):
        axis.get_major_locator().set_params(integer=True)


def _whole(ax: Axes, rows: Sequence[str] | None, columns: Sequence[str] | None) -> list[Any]:
    return [axis for axis, labels in ((ax.xaxis, columns), (ax.yaxis, rows)) if labels is None]
