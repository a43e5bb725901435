"""Haxby's object vision experiment: one person, half an axial slice, 12 runs, 8 kinds of pictures and rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mmha.data import registry
from mmha.data.bold.images import Bold, load
from mmha.data.bold.tables import needs

REST = "rest"


def haxby(folder: Path | None = None) -> tuple[Bold, list[Any], Any]:
    """The signals of 530 voxels in 1452 volumes, what was shown, run by run, and the label of each volume.

    Args: folder, of the set `haxby`; None = where `mmha data get haxby` puts it.
    Returns: `Bold`; for each of 12 runs a table as `bold.events` gives it, a row for each block of pictures; text
        (1452,), "rest" between the blocks.
    Raises: DataError when the set is not here; as `bold.load`.
    Source: Haxby et al., *Distributed and overlapping representations of faces and objects in ventral temporal cortex*
        (2001); the slice as PyMVPA carries it.
    """
    place = registry.path("haxby") if folder is None else folder
    lines = [line.split() for line in (place / "attributes_literal.txt").read_text("ascii").splitlines()]
    labels = np.array([label for label, _ in lines])
    runs = [int(run) for _, run in lines]
    found = load(place / "bold.nii.gz", place / "mask.nii.gz", runs=runs)
    return found, [_blocks(labels[found.runs == run], found.tr) for run in range(len(found.lengths))], labels


def _blocks(labels: Any, tr: float) -> Any:
    """Neighbouring volumes of one label as an event, rest left out."""
    starts = np.flatnonzero(np.concatenate(([True], labels[1:] != labels[:-1])))
    lengths = np.diff(np.append(starts, len(labels)))
    blocks = [
        (start * tr, length * tr, str(labels[start]))
        for start, length in zip(starts, lengths, strict=True)
        if labels[start] != REST
    ]
    return needs("pandas").DataFrame(blocks, columns=["onset", "duration", "trial_type"])
