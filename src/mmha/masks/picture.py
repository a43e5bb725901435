"""Text pictures of a plan for a terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from mmha import checks
from mmha.masks.plan import Plan

CELLS = ("·", "▒", "█")  # hidden, in part, visible
WIDE = ("· ", "▒▒", "██")  # two columns a cell make a square in most fonts
LABEL = 16  # a longer token is cut


def draw(
    plan: Plan, item: tuple[int, int], rows: Sequence[str] | None, columns: Sequence[str] | None, width: int
) -> str:
    """The picture of one (batch, head) item; cells stand for several pairs when the mask is too large."""
    place = place_of(plan, item)
    check_labels("rows", rows, plan.q_len)
    check_labels("columns", columns, plan.k_len)
    width = checks.integer("width", width, 20)
    if plan.q_len == 0 or plan.k_len == 0:
        return f"(nothing to draw: {plan.q_len} queries, {plan.k_len} keys)"
    names = [str(i) for i in range(plan.q_len)] if rows is None else [clean(str(row)) for row in rows]
    room = width - max(map(columns_of, names)) - 1
    if plan.k_len <= room and plan.q_len <= 2 * width:
        cells = WIDE if 2 * plan.k_len <= room else CELLS
        return "\n".join(header(names, columns, len(cells[0])) + _cells(plan, names, place, (1, 1), cells))
    steps = max(1, -(-2 * plan.q_len // width)), -(-plan.k_len // room)  # half as many lines as columns: a square
    names = names[:: steps[0]]
    note = f"{plan.q_len} queries x {plan.k_len} keys; a cell is {steps[0]} x {steps[1]} pairs"
    note += "" if columns is None else ", too many keys for their labels"
    legend = "  ".join(f"{cell} {word}" for cell, word in zip(CELLS, ("hidden", "in part", "visible"), strict=True))
    return "\n".join([note, legend, *_cells(plan, names, place, steps, CELLS)])


def place_of(plan: Plan, item: tuple[int, int]) -> tuple[int, int]:
    """Where the native plan keeps the (batch, head) item, which it may share with others."""
    batch, head = item
    if not (0 <= batch < max(plan.batch, 1) and 0 <= head < max(plan.heads, 1)):
        raise checks.value_error("item", f"(batch, head) within ({plan.batch}, {plan.heads})", str(tuple(item)))
    return min(batch, plan.native.batch - 1), min(head, plan.native.heads - 1)


def check_labels(argument: str, labels: Sequence[str] | None, count: int) -> None:
    """Raise ValueError unless there is a label for each row or column."""
    if labels is not None and len(labels) != count:
        raise checks.value_error(argument, f"{count} labels", str(len(labels)))


def _cells(
    plan: Plan, names: list[str], item: tuple[int, int], steps: tuple[int, int], cells: tuple[str, str, str]
) -> list[str]:
    tiles = plan.tiles(*steps)[item]
    wide = max(map(columns_of, names))
    lines = zip(names, tiles.tolist(), strict=True)
    return [(_right(name, wide) + " " + "".join(cells[tile] for tile in row)).rstrip() for name, row in lines]


def header(names: list[str], columns: Sequence[str] | None, cell: int) -> list[str]:
    """Key labels written downwards, one character a line; nothing without labels."""
    if columns is None:
        return []
    labels = [clean(str(label)) for label in columns]
    if cell == 1:  # a wide character would push all that follow out of their columns
        labels = ["".join(c if columns_of(c) == 1 else "�" for c in label) for label in labels]
    high = max(map(len, labels))
    indent = " " * (max(map(columns_of, names)) + 1)
    tall = [label.rjust(high) for label in labels]
    lines = ["".join(label[line] + " " * (cell - columns_of(label[line])) for label in tall) for line in range(high)]
    return [(indent + line).rstrip() for line in lines]


def _right(name: str, wide: int) -> str:
    return " " * (wide - columns_of(name)) + name


def clean(label: str) -> str:
    """A token fit for one line: control and zero-width characters made visible, a long one cut."""
    shown = "".join("�" if unicodedata.category(c) in ("Cc", "Cf", "Mn", "Zl", "Zp") else c for c in label)
    return shown if len(shown) <= LABEL else shown[: LABEL - 1] + "…"


def columns_of(label: str) -> int:
    """Terminal columns the label takes: East Asian wide characters take two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in label)
