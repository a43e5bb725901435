"""The picture behind `mmha generate --explain`: an autoregressive model at work, in a terminal or a drawing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmha.cli.files import drawable

if TYPE_CHECKING:
    from mmha.models.causal_lm.explanation import Candidate, Explanation

CELL = 8  # columns of a number in a table
INDENT = "  "
MOST_NUMBERS = 12  # tokens; in a drawing of more, numbers would run into each other


def explain(
    model: str | None, texts: Sequence[str], layer: int | None, head: int | None, plot: Path | None, json: bool
) -> None:
    """Show how the model reads the text: as a picture, as JSON, and in a drawing when `plot` names a file."""
    from mmha import checks
    from mmha.cli.printing import console, print_json
    from mmha.models.causal_lm import load
    from mmha.models.causal_lm.explanation import explain as look

    drawable("--plot", plot)
    checks.require(len(texts) == 1, "prompt", "one text with --explain", f"{len(texts)}")
    lm, tokenizer = load() if model is None else load(model)
    seen = look(lm, tokenizer, texts[0], layer or 0, head or 0)
    if plot is not None:
        draw(seen, plot)
    if json:
        print_json(facts(seen))
        return
    out = console()
    width = shutil.get_terminal_size((100, 24)).columns
    for title, lines in chapters(seen, width):
        out.print(title, style="bold", markup=False)
        for line in lines:
            out.print(INDENT + line, markup=False)
        out.print()
    if plot is not None:
        out.print(f"wrote {plot}", markup=False)


def chapters(seen: Explanation, width: int) -> Iterator[tuple[str, list[str]]]:
    """The four parts of the picture: (title, lines)."""
    from mmha.masks import Causal

    tokens = seen.tokens
    n, where = len(tokens), f"layer {seen.layer}, head {seen.head}"
    picture = Causal().show(n, rows=tokens, columns=tokens, width=max(20, width - len(INDENT)))
    yield (
        f"1. Who sees whom: token n sees the first n of {n} (row looks at column, █ visible; ␣ is a space)",
        picture.splitlines(),
    )
    rows, weights = seen.scores.tolist(), seen.weights.tolist()
    title = f"2. Before softmax, {where}: scores q·k/√{seen.head_dim}; what is hidden is -inf"
    yield title, table(tokens, rows, width) or ["(too many tokens for this width; --json has the numbers)"]
    title = f"3. After softmax, {where}: weights; hidden is exactly 0, each row sums to 1"
    yield title, table(tokens, weights, width, total=True) or shades(tokens, weights)
    yield "4. Step by step: with n tokens visible, the probability of each next token", list(steps(seen))


def table(tokens: Sequence[str], rows: Sequence[Sequence[float]], width: int, total: bool = False) -> list[str]:
    """Numbers below the tokens they belong to, at will with the sum of each row; nothing when they do not fit.

    >>> for line in table(["I", "have"], [[1.0, 0.0], [0.25, 0.75]], 40, total=True):
    ...     print(line)
               I    have     sum
       I    1.00    0       1.00
    have    0.25    0.75    1.00
    """
    from mmha.masks.picture import clean, columns_of

    names = [clean(token) for token in tokens]
    left = max(map(columns_of, names))
    cells = [name if columns_of(name) < CELL else name[: CELL - 2] + "…" for name in names] + ["sum"] * total
    if left + CELL * len(cells) + len(INDENT) > width:
        return []
    lines = [" " * left + "".join(" " * (CELL - columns_of(cell)) + cell for cell in cells)]
    for name, row in zip(names, rows, strict=True):
        numbers = [*map(number, row), *([number(sum(row))] if total else [])]
        lines.append(" " * (left - columns_of(name)) + name + "".join(f"{x:>{CELL}}" for x in numbers))
    return [line.rstrip() for line in lines]


def number(value: float) -> str:
    """Two decimals in line with each other; what is hidden, -inf or exactly 0, stands out by having none.

    >>> [number(x) for x in (0.0, 0.004, -1.25, float("-inf"))]
    ['0   ', '0.00', '-1.25', '-inf']
    """
    return "0   " if value == 0.0 else f"{value:.2f}"


def shades(tokens: Sequence[str], rows: Sequence[Sequence[float]]) -> list[str]:
    """One character a weight, darker the larger it is, for more tokens than numbers have room for.

    >>> shades(["I", "am"], [[1.0, 0.0], [0.3, 0.7]])
    [' I █', 'am ▒▓']
    """
    from mmha.cli.looks import shade
    from mmha.masks.picture import clean, columns_of

    names = [clean(token) for token in tokens]
    left = max(map(columns_of, names))
    lines = zip(names, rows, strict=True)
    return [(" " * (left - columns_of(name)) + name + " " + "".join(map(shade, row))).rstrip() for name, row in lines]


def steps(seen: Explanation) -> Iterator[str]:
    """What is visible, what may come next, and what does, for each step."""
    wide = len(str(len(seen.tokens)))
    margin = " " * (wide + 5)
    for step in seen.steps:
        yield f"n = {step.visible:>{wide}} sees      {' '.join(seen.tokens[: step.visible])}"
        yield f"{margin}may come  {',  '.join(map(chance, step.candidates))}"
        if step.following is not None:
            yield f"{margin}comes     {chance(step.following)}, no. {step.following.rank + 1} of {seen.vocabulary:,}"


def chance(candidate: Candidate) -> str:
    """A candidate with its probability.

    >>> from mmha.models.causal_lm.explanation import Candidate
    >>> chance(Candidate("␣have", 0.1234, 0))
    '␣have 12.3 %'
    """
    return f"{candidate.token} {100 * candidate.probability:.1f} %"


def facts(seen: Explanation) -> dict[str, Any]:
    """The picture as JSON values: a hidden score is null."""
    from dataclasses import asdict

    visible = (seen.scores > float("-inf")).tolist()
    scores = [
        [s if v else None for s, v in zip(*rows, strict=True)]
        for rows in zip(seen.scores.tolist(), visible, strict=True)
    ]
    return {
        "tokens": list(seen.tokens), "layer": seen.layer, "head": seen.head, "visible": visible,
        "scores": scores, "weights": seen.weights.tolist(), "steps": [asdict(step) for step in seen.steps],
    }  # fmt: skip


def draw(seen: Explanation, path: Path) -> None:
    """Write the mask, the scores and the weights side by side with matplotlib, without a display."""
    import io

    from matplotlib.figure import Figure

    from mmha import checkpoint
    from mmha.masks import Causal

    n = len(seen.tokens)
    figure = Figure(figsize=(16.0, 5.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    Causal().plot(n, rows=seen.tokens, columns=seen.tokens, ax=left)
    left.set_title("who sees whom")
    where = f"layer {seen.layer}, head {seen.head}"
    _panel(middle, seen, seen.scores.tolist(), f"scores before softmax, {where}", cmap="Purples")
    _panel(right, seen, seen.weights.tolist(), f"weights after softmax, {where}", cmap="Blues", vmin=0.0, vmax=1.0)
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix[1:].lower(), dpi=150)
    checkpoint.write(path, picture.getvalue())


def _panel(axes: Any, seen: Explanation, rows: list[list[float]], title: str, **colours: Any) -> None:
    """A grid of colours with the numbers in it, as long as they have room; what is hidden is grey."""
    import numpy as np

    from mmha.masks.figure import HIDDEN

    n = len(rows)
    hidden = np.triu(np.ones((n, n), bool), 1)
    image = axes.imshow(np.ma.masked_where(hidden, rows), **colours)
    axes.figure.colorbar(image, ax=axes, shrink=0.8)
    axes.set_facecolor(HIDDEN)
    axes.set_title(title, fontsize=10)
    axes.set_xticks(range(n), seen.tokens, rotation=90)
    axes.set_yticks(range(n), seen.tokens)
    axes.tick_params(length=0)
    for i, row in enumerate(rows if n <= MOST_NUMBERS else ()):
        for j, value in enumerate(row):
            dark = not hidden[i, j] and image.norm(value) > 0.6
            axes.text(j, i, number(value).strip(), ha="center", va="center", color="white" if dark else "black")
