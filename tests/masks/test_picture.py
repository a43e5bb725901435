"""Pictures: text for a terminal and matplotlib."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import matplotlib
import numpy as np
import pytest
import torch

from mmha.masks import Causal, Dense, Documents, Full, KeyPadding, PerHead, Prefix, Window

SAW = ["I", "saw", "a", "saw"]


def test_small_mask() -> None:
    assert (Causal() | Prefix(2)).show(4).split("\n") == [
        "0 ████· ·",
        "1 ████· ·",
        "2 ██████·",
        "3 ████████",
    ]


def test_rows_follow_q_start() -> None:
    assert Causal().show(2, 4).split("\n") == ["0 ██████·", "1 ████████"]
    assert Causal().show(2, 4, q_start=0).split("\n") == ["0 ██· · ·", "1 ████· ·"]


def test_item_picks_batch_and_head() -> None:
    mask = PerHead([Full(), KeyPadding([1, 2])])
    assert mask.show(1, 3, batch=2, heads=2, item=(1, 0)) == "0 ██████"
    assert mask.show(1, 3, batch=2, heads=2, item=(0, 1)) == "0 ██· ·"
    assert mask.show(1, 3, batch=2, heads=2, item=(1, 1)) == "0 ████·"


def test_tokens_label_rows_and_columns() -> None:
    assert (Causal() & Window(1)).show(4, rows=SAW, columns=SAW).split("\n") == [
        "      s   s",
        "      a   a",
        "    I w a w",
        "  I ██· · ·",
        "saw ████· ·",
        "  a · ████·",
        "saw · · ████",
    ]


def test_strange_tokens_stay_in_their_columns() -> None:
    strange = ["日本", "a\tb", "\u202ex", "x" * 40]
    lines = Full().show(4, rows=strange, columns=["日", "b", "c", "d"]).split("\n")
    assert lines[0] == " " * 17 + "日b c d"
    assert lines[1] == " " * 12 + "日本 ████████"
    assert lines[2] == " " * 13 + "a�b ████████"
    assert lines[3] == " " * 14 + "�x ████████"
    assert lines[4] == "xxxxxxxxxxxxxxx… ████████"


def test_cells_get_narrow_before_the_mask_is_scaled() -> None:
    lines = Causal().show(2, 60, columns=["日"] + ["a"] * 59).split("\n")
    assert lines == ["  �" + "a" * 59, "0 " + "█" * 59 + "·", "1 " + "█" * 60]


def test_large_mask_is_scaled_down() -> None:
    lines = (Causal() & Documents.from_lengths([400, 600])).show(1000, width=44).split("\n")
    assert lines[:2] == [
        "1000 queries x 1000 keys; a cell is 46 x 25 pairs",
        "· hidden  ▒ in part  █ visible",
    ]
    assert len(lines) == 2 + 22
    assert lines[2] == "  0 ▒▒" + "·" * 38
    assert lines[10] == "368 " + "▒" * 17 + "·" * 23
    assert lines[-1] == "966 " + "·" * 16 + "█" * 22 + "▒▒"
    assert all(len(line) <= 44 for line in lines[2:])


def test_a_million_tokens_fit_a_terminal() -> None:
    lines = (Causal() & Window(50_000)).show(1_000_000).split("\n")
    assert len(lines) == 42
    assert max(map(len, lines)) <= 80


def test_few_queries_are_not_scaled_with_many_keys() -> None:
    lines = Window(64, 64).show(3, 3000, q_start=1000, rows=["x", "y", "z"], columns=["k"] * 3000, width=40).split("\n")
    assert lines[0] == "3 queries x 3000 keys; a cell is 1 x 79 pairs, too many keys for their labels"
    assert [line[0] for line in lines[2:]] == ["x", "y", "z"]


def test_nothing_to_draw() -> None:
    assert Causal().show(0, 3) == "(nothing to draw: 0 queries, 3 keys)"


DRAWINGS: list[Callable[..., object]] = [Causal().show, Causal().plot]


@pytest.mark.parametrize("draw", DRAWINGS)
def test_labels_must_match(draw: Callable[..., object]) -> None:
    with pytest.raises(ValueError, match=r"^`rows`: expected 4 labels, got 3$"):
        draw(4, rows=SAW[:3])
    with pytest.raises(ValueError, match=r"^`columns`: expected 5 labels, got 4$"):
        draw(4, 5, columns=SAW)
    with pytest.raises(ValueError, match=r"^`item`: expected \(batch, head\) within \(1, 1\), got \(0, 1\)$"):
        draw(4, item=(0, 1))


def test_width_is_checked() -> None:
    with pytest.raises(ValueError, match=r"^`width`: expected an integer >= 20, got 5$"):
        Causal().show(4, width=5)


def test_plot_shows_every_pair() -> None:
    seen = torch.rand(5, 7) < 0.5
    ax = Dense(seen).plot(5, 7, rows=list("abcde"))
    assert np.array_equal(ax.images[0].get_array() == 2, seen.numpy())
    assert [label.get_text() for label in ax.get_yticklabels()] == list("abcde")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("key", "query")
    assert ax.get_title().startswith("Dense(")


def test_plot_scales_large_masks_down() -> None:
    ax = Causal().plot(3000, 6000, q_start=0)
    assert ax.images[0].get_array().shape == (500, 500)
    assert ax.get_xlim() == (-0.5, 5999.5)
    assert ax.get_ylim() == (2999.5, -0.5)


def test_plot_takes_axes() -> None:
    axes = matplotlib.figure.Figure().subplots(1, 2)
    assert Causal().plot(4, ax=axes[1]) is axes[1]


def test_plot_without_matplotlib_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from mmha.masks import Causal\n"
        "try: Causal().plot(4)\n"
        "except ImportError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == 'drawing needs matplotlib: pip install "mmha[plot]"\n'
