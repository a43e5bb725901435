"""The task: events in seconds, and what a voxel that follows them would show, volume by volume."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mmha import checks
from mmha.data.bold import tables
from mmha.data.bold.tables import needs

COLUMNS = ("onset", "duration", "trial_type")
EARLIEST = -24.0  # seconds: what ended before has no response left in the first volume


def events(path: str | Path) -> Any:
    """The events of a BIDS `events.tsv`, in the order of time.

    Returns: a pandas DataFrame of onset and duration, float64 in seconds, and trial_type, text; other columns are left
        out. Without a column trial_type all events are of one kind, "task".
    Raises: ValueError naming the file and line: no events, a column missing, a cell that is no number, a duration < 0;
        OSError when it cannot be read.
    Source: Brain Imaging Data Structure, task events.
    """
    pandas, place = needs("pandas"), Path(path)
    found = tables.cells(place)
    for name in COLUMNS[:2]:
        if name not in found:
            raise ValueError(f"{place}: expected columns onset and duration, got {', '.join(found)}")
    if not found["onset"]:
        raise ValueError(f"{place}: expected at least one event, got none")
    onset, duration = (tables.column(place, name, found[name], "seconds") for name in COLUMNS[:2])
    kinds = found.get("trial_type", ["task"] * len(onset))
    for line, (seconds, kind) in enumerate(zip(duration, kinds, strict=True), 2):
        if seconds < 0 or not kind:
            wanted, got = ("a trial_type", "an empty cell") if not kind else ("a duration >= 0", f"{seconds:g}")
            raise ValueError(f"{place}: line {line}: expected {wanted}, got {got}")
    table = pandas.DataFrame({"onset": onset, "duration": duration, "trial_type": kinds})
    return table.sort_values("onset", kind="stable", ignore_index=True)


def design(
    events: Any, tr: float, volumes: int | Sequence[int], hrf: Literal["spm", "glover"] = "spm"
) -> tuple[tuple[str, ...], Any]:
    """A curve for each kind of event: its boxes convolved with the haemodynamic response, sampled at each volume.

    Args:
        events: a table as `events` gives it, or the path of such a file; one for each run, or a single one whose onsets
            count from the first volume of all. Or the path of a design matrix (.tsv, .csv: a column a curve, a line a
            volume), which is taken as it is.
        tr: seconds between volumes. volumes: of each run; the response of one run does not reach into the next.
        hrf: the response, without derivatives: SPM's, or Glover's.

    Returns: the names, sorted, and float64 (T, n), T volumes of all runs. A kind that a run lacks is 0 there.
    Raises: ValueError for events beyond the run, and as `events`; TypeError for what is no table.
    Source: Friston et al. (1998); Glover (1999); computed by nilearn.

    >>> import pandas
    >>> table = pandas.DataFrame({"onset": [10.0], "duration": [20.0], "trial_type": ["face"]})
    >>> names, curves = design(table, tr=2.5, volumes=23)
    >>> names, curves.shape, int(curves[:, 0].argmax()) * 2.5
    (('face',), (23, 1), 22.5)
    """
    checks.one_of("hrf", hrf, ("spm", "glover"))
    lengths = _lengths(tr, volumes)
    if _is_matrix(events):
        return tables.numbers(Path(events), sum(lengths))
    parts = _parts(events, tr, lengths)
    names = tuple(sorted({str(kind) for part in parts for kind in part["trial_type"]}))
    curves = [_curves(part, names, tr, n, hrf) for part, n in zip(parts, lengths, strict=True)]
    return names, np.concatenate(curves)


def blocks(events: Any, tr: float, volumes: int | Sequence[int]) -> Any:
    """The event that each volume shows, a number for each event: int64 (T,), -1 where there is none.

    A volume belongs to an event that lasts over its middle, or begins in it; to the later one of two.

    Args: as of `design`, but for a design matrix, which says nothing of when an event ends.
    Raises: as `design`; ValueError for a design matrix.

    >>> import pandas
    >>> table = pandas.DataFrame({"onset": [2.0, 10.0], "duration": [4.0, 0.0], "trial_type": ["face", "house"]})
    >>> blocks(table, tr=2.0, volumes=[7]).tolist()
    [-1, 0, 0, -1, -1, 1, -1]
    """
    lengths = _lengths(tr, volumes)
    if _is_matrix(events):
        raise checks.value_error("events", "onsets and durations, to hide blocks of the task", f"the matrix {events}")
    found, number = [], 0
    for table, length in zip(_parts(events, tr, lengths), lengths, strict=True):
        _inside(table, length * tr)
        run = np.full(length, -1, np.int64)
        for onset, duration in zip(table["onset"], table["duration"], strict=True):
            begin = int(np.floor(onset / tr + 1e-6))
            first, end = int(np.ceil(onset / tr - 0.5)), int(np.ceil((onset + duration) / tr - 0.5))
            first, end = (first, end) if end > first else (begin, begin + 1)
            run[max(0, first) : max(0, end)] = number
            number += 1
        found.append(run)
    return np.concatenate(found)


def _lengths(tr: float, volumes: int | Sequence[int]) -> list[int]:
    """The volumes of each run, checked, and the TR with them."""
    checks.require(checks.number("tr", tr) > 0, "tr", "seconds > 0", float(tr))
    listed = [volumes] if isinstance(volumes, (int, np.integer)) else list(volumes)
    return [checks.integer("volumes", n, minimum=1) for n in listed]


def _is_matrix(events: Any) -> bool:
    """Whether it is the path of a design matrix, and not of events."""
    return isinstance(events, (str, Path)) and not {"onset", "duration"} <= set(tables.cells(Path(events)))


def _parts(events: Any, tr: float, lengths: Sequence[int]) -> list[Any]:
    """The events as a table for each run."""
    given = [events] if isinstance(events, (str, Path)) or hasattr(events, "columns") else list(events)
    parts = [_table(one) for one in given]
    if len(parts) == 1 and len(lengths) > 1:
        parts = _cut(parts[0], tr, lengths)
    checks.require(len(parts) == len(lengths), "events", f"{len(lengths)} tables, one for each run", len(parts))
    return parts


def _table(given: Any) -> Any:
    if isinstance(given, (str, Path)):
        return events(given)
    if not hasattr(given, "columns") or not set(COLUMNS) <= set(given.columns):
        raise checks.type_error("events", f"a table of {', '.join(COLUMNS)}, or a path", given)
    checks.require(len(given) > 0, "events", "at least one event", "none")
    return given


def _cut(table: Any, tr: float, lengths: Sequence[int]) -> list[Any]:
    """A table over all runs as one a run, each counted from its own first volume."""
    ends = [n * tr for n in accumulate(lengths)]
    _inside(table, ends[-1])
    cut = []
    for start, end in zip([0.0, *ends[:-1]], ends, strict=True):
        here = table[(table["onset"] >= start) & (table["onset"] < end)]
        if start == 0:
            here = table[table["onset"] < end]
        cut.append(here.assign(onset=here["onset"] - start))
    return cut


def _inside(table: Any, end: float) -> None:
    """Raise unless all events begin within the run (or so shortly before it that their response reaches into it)."""
    for onset, kind in zip(table["onset"], table["trial_type"], strict=True):
        if not EARLIEST <= onset < end:
            got = f"{kind!r} at {onset:g} s: another TR, another run?"
            raise checks.value_error("events", f"onsets within the run, before {end:g} s", got)


def _curves(table: Any, names: Sequence[str], tr: float, volumes: int, hrf: str) -> Any:
    first_level = needs("nilearn.glm.first_level")
    _inside(table, volumes * tr)
    curves = np.zeros((volumes, len(names)))
    for i, name in enumerate(names):
        mine = table[table["trial_type"] == name]
        if len(mine):
            boxes = np.stack([mine["onset"], mine["duration"], np.ones(len(mine))]).astype(float)
            made, _ = first_level.compute_regressor(boxes, hrf, np.arange(volumes) * tr, min_onset=EARLIEST)
            curves[:, i] = made[:, 0]
    return curves
