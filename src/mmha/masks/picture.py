"""Text pictures of a plan for a terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from mmha import checks
from mmha.masks.plan import Plan

CELLS = "·▒█"  # hidden, mixed, visible
LABEL = 16  # a longer token is cut


def draw(
    plan: Plan, item: tuple[int, int], rows: Sequence[str] | None, columns: Sequence[str] | None, width: int
) -> str:
    """The picture of one (batch, head) item; cells stand for several pairs when the mask is too large."""
    batch, head = _item(plan, item)
    check_labels("rows", rows, plan.q_len)
    check_labels("columns", columns, plan.k_len)
    width = checks.integer("width", width, 20)
    if plan.q_len == 0 or plan.k_len == 0:
        return f"(no cells: {plan.q_len} queries, {plan.k_len} keys)"
    names = [str(i) for i in range(plan.q_len)] if rows is None else [clean(str(row)) for row in rows]
    room = width - max(map(columns_of, names)) - 1
    if plan.k_len <= room and plan.q_len <= 4 * width:
        return "\n".join(_header(names, columns) + _cells(plan, names, (batch, head), 1, 1))
    step = max(-(-plan.k_len // room), -(-plan.q_len // (2 * width)), 1)
    q_step, k_step = 2 * step, step  # a terminal cell is twice as high as wide
    names = [str(i) for i in range(0, plan.q_len, q_step)]
    note = f"{plan.q_len} queries x {plan.k_len} keys, {plan.density:.1%} visible; a cell is {q_step} x {k_step} pairs"
    lines = _cells(plan, names, (batch, head), q_step, k_step)
    return "\n".join([note, f"{CELLS[0]} hidden  {CELLS[1]} in part  {CELLS[2]} visible", *lines])


def _item(plan: Plan, item: tuple[int, int]) -> tuple[int, int]:
    batch, head = item
    if not (0 <= batch < max(plan.batch, 1) and 0 <= head < max(plan.heads, 1)):
        raise checks.value_error("item", f"(batch, head) within ({plan.batch}, {plan.heads})", str(tuple(item)))
    return min(batch, plan.native.batch - 1), min(head, plan.native.heads - 1)


def check_labels(argument: str, labels: Sequence[str] | None, count: int) -> None:
    """Raise ValueError unless there is a label for each row or column."""
    if labels is not None and len(labels) != count:
        raise checks.value_error(argument, f"{count} labels", str(len(labels)))


def _cells(plan: Plan, names: list[str], item: tuple[int, int], q_step: int, k_step: int) -> list[str]:
    tiles = plan.tiles(q_step, k_step)[item]
    wide = max(map(columns_of, names))
    lines = zip(names, tiles.tolist(), strict=True)
    return [f"{' ' * (wide - columns_of(name))}{name} {''.join(CELLS[t] for t in row)}" for name, row in lines]


def _header(names: list[str], columns: Sequence[str] | None) -> list[str]:
    """Key labels written downwards, one character a line; nothing without labels."""
    if columns is None:
        return []
    labels = [clean(str(label)) for label in columns]
    high = max(map(len, labels))
    indent = " " * (max(map(columns_of, names)) + 1)
    lines = ["".join(label.rjust(high)[line] for label in labels) for line in range(high)]
    return [(indent + line).rstrip() for line in lines]


def clean(label: str) -> str:
    """A token fit for one line: control and zero-width characters made visible, a long one cut."""
    shown = "".join("�" if unicodedata.category(c) in ("Cc", "Cf", "Mn", "Zl", "Zp") else c for c in label)
    return shown if len(shown) <= LABEL else shown[: LABEL - 1] + "…"


def columns_of(label: str) -> int:
    """Terminal columns the label takes: East Asian wide characters take two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in label)
