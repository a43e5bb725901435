"""Accuracy: what is counted, and what cannot be compared."""

from __future__ import annotations

import pytest

from mmha.metrics import Accuracy, tag_accuracy


def test_right_tags_are_counted_over_all_sentences() -> None:
    result = tag_accuracy([["A", "B", "C"], [], ["D", "E"]], [["A", "X", "C"], [], ["E", "D"]])
    assert result == Accuracy(correct=2, total=5)
    assert result.value == 0.4
    assert str(result) == "40.00 % (2 of 5)"


def test_other_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 2 tags in sentence 2, as in gold, got 3"):
        tag_accuracy([["A"], ["A", "B"]], [["A"], ["A", "B", "C"]])
    with pytest.raises(ValueError, match="expected as many sentences as in gold"):
        tag_accuracy([["A"], ["B"]], [["A"]])
