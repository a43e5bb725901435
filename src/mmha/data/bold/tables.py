"""Tables of text: columns with names, separated by tabs (or by commas in a .csv), of which each cell is checked."""

from __future__ import annotations

import csv
import importlib
import io
import math
from pathlib import Path
from typing import Any

import numpy as np

from mmha.data import text


def needs(module: str) -> Any:
    """The module, or the ImportError that says how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(f'fMRI needs {package}: pip install "mmha[fmri]"') from error


def cells(path: Path) -> dict[str, list[str]]:
    """The columns by name, as text.

    Raises: ValueError for a file that is no such table, naming the line; OSError when it cannot be read.
    """
    content = text.read(path)
    reader = csv.reader(io.StringIO(content), delimiter="," if path.suffix == ".csv" else "\t")
    try:
        rows = list(reader)
    except csv.Error as error:  # a lone carriage return, a cell of more than 128 kB
        raise ValueError(f"{path}: line {reader.line_num}: expected cells of a table, got others ({error})") from None
    while rows and not any(cell.strip() for cell in rows[-1]):
        rows.pop()
    if not rows:
        raise ValueError(f"{path}: expected a table with names of columns in its first line, got an empty file")
    names = [name.strip() for name in rows[0]]
    if len(set(names)) != len(names) or "" in names:
        raise ValueError(f"{path}: line 1: expected a name of its own for each column, got {names}")
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(names):
            raise ValueError(f"{path}: line {number}: expected {len(names)} columns, got {len(row)}")
    return {name: [row[i].strip() for row in rows[1:]] for i, name in enumerate(names)}


def column(path: Path, name: str, column: list[str], kind: str = "a number") -> Any:
    """A column as float64.

    Raises: ValueError naming the line whose cell is no finite number.
    """
    found = np.empty(len(column))
    for i, cell in enumerate(column):
        try:
            found[i] = float(cell)
        except ValueError:
            found[i] = math.nan
        if not math.isfinite(found[i]):
            raise ValueError(f"{path}: line {i + 2}: expected {kind} for {name}, got {cell!r}")
    return found


def numbers(path: Path, volumes: int | None = None) -> tuple[tuple[str, ...], Any]:
    """The names of the columns and their numbers, float64 (lines, columns).

    Raises: ValueError for a cell that is none, and for another number of lines than `volumes`.
    """
    found = cells(path)
    lines = len(next(iter(found.values())))
    if lines == 0 or (volumes is not None and lines != volumes):
        wanted = "a line for each volume" if volumes is None else f"{volumes} lines, one for each volume"
        raise ValueError(f"{path}: expected {wanted}, got {lines}")
    return tuple(found), np.stack([column(path, name, cells_) for name, cells_ in found.items()], 1)
