"""A picture of attention for a terminal: one row a word, one cell a word it looked at."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.text import Text

SHADES = " ░▒▓█"
WIDEST = 40  # words; beyond it a grid no longer fits a terminal and only the list of words is shown


def picture(words: Sequence[str], tags: Sequence[str], rows: Sequence[Sequence[float]]) -> Text:
    """Rows of `word tag cells: words looked at most`; cell j of row i is darker the more word i looked at word j.

    >>> for line in picture(["a", "saw"], ["DET", "NOUN"], [[0.1, 0.9], [1.0, 0.0]]).plain.splitlines():
    ...     print(line)
    each word's row: how much it looked at words 1 2 ...
                1 2
    1 a   DET   ░ █   saw 90 %, a 10 %
    2 saw NOUN  █     a 100 %
    """
    n = len(rows)
    left = max(cell_len(word) for word in words)
    number = len(str(n))
    grid = n <= WIDEST
    out = Text("each word's row: how much it looked at words 1 2 ...\n" if grid else "", style="")
    if grid:
        heads = " ".join(str(j % 10) for j in range(1, n + 1))
        out.append(f"{'':{number}} {'':{left}} {'':5} {heads}\n", style="dim")
    for i, (word, tag, row) in enumerate(zip(words, tags, rows, strict=False), start=1):
        out.append(f"{i:{number}} ", style="dim")
        out.append(word + " " * (left - cell_len(word) + 1), style="bold")
        out.append(f"{tag:5} ", style="cyan")
        if grid:
            out.append(" ".join(map(shade, row)) + "   ")
        out.append(", ".join(f"{words[j]} {100 * row[j]:.0f} %" for j in most(row)) + "\n", style="dim")
    return out


def shade(weight: float) -> str:
    """One of five shades for a weight from 0 to 1, even steps on a square-root scale so that small weights show.

    >>> "".join(shade(w) for w in (0.0, 0.05, 0.3, 0.6, 1.0))
    ' ░▒▓█'
    """
    return SHADES[min(4, round(4 * weight**0.5))]


def most(row: Sequence[float], count: int = 3, least: float = 0.1) -> list[int]:
    """The positions with the largest weights, at most `count`, none below `least`.

    >>> most([0.1, 0.6, 0.05, 0.25])
    [1, 3, 0]
    """
    order = sorted(range(len(row)), key=lambda j: -row[j])
    return [j for j in order[:count] if row[j] >= least]
