"""The picture behind `mmha translate --attention`: where each word of a translation looked in its source."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmha.cli.looks import most, shade

if TYPE_CHECKING:
    from mmha.models.seq2seq import Seq2Seq, Tokenizer
    from mmha.models.seq2seq.alignment import Alignment
    from mmha.models.seq2seq.text import Part, Translated

LIST = 40  # columns that the words looked at most may take


def show(
    model: Seq2Seq,
    tokenizer: Tokenizer,
    found: Iterable[Translated],
    where: tuple[int | None, int | None],
    plot: Path | None,
    settings: dict[str, Any] | None,
) -> None:
    """Print a picture for each part that was translated, or JSON with the settings; draw one when `plot` is a file.

    where: the layer, None = the last, and the head, None = the mean of all.
    """
    from mmha import checks
    from mmha.cli.printing import console, harmless
    from mmha.cli.translate import document
    from mmha.models.seq2seq.alignment import align

    layer, head = -1 if where[0] is None else where[0], where[1]
    layers, heads = model.config.decoder_layers, model.config.heads
    checks.integer("--layer", layer, -layers, layers - 1)
    checks.integer("--head", 0 if head is None else head, -heads, heads - 1)

    def look(part: Part) -> Alignment:
        return align(model, tokenizer, part.source, part.wordings[0].tokens, layer, head)

    if plot is not None:
        found = list(found)
        parts = [part for translation in found for part in translation.parts]
        checks.require(len(parts) == 1, "--plot", "one sentence", f"{len(parts)}")
        draw(look(parts[0]), plot)
    if settings is not None:
        rows = (facts(translation, [look(part) for part in translation.parts]) for translation in found)
        sys.stdout.writelines(document(settings, rows))
        return
    out = console()
    width = shutil.get_terminal_size((100, 24)).columns
    for part in (part for translation in found for part in translation.parts):
        out.print(harmless(part.source), style="dim", markup=False)
        out.print(harmless(part.wordings[0].text), style="bold", markup=False)
        for line in picture(look(part), width):
            out.print(line, markup=False)
        out.print()
    if plot is not None:
        out.print(f"wrote {plot}", markup=False)


def facts(translation: Translated, seen: Sequence[Alignment]) -> dict[str, Any]:
    """A translation as JSON values, with the words of both sides and the weights of each part."""
    from mmha.cli.translate import facts as plain

    parts = [{"source": list(one.source), "target": list(one.target), "weights": one.weights.tolist()} for one in seen]
    return plain(translation) | {"attention": parts}


def picture(seen: Alignment, width: int) -> list[str]:
    """A row a word of the translation, darker the more it looked at the word of the source above, and where it looked
    most; without the grid when that has no room.

    >>> import torch
    >>> from mmha.models.seq2seq.alignment import Alignment
    >>> seen = Alignment(("a", "cat"), ("eine", "Katze"), torch.tensor([[0.9, 0.1], [0.0, 1.0]]))
    >>> for line in picture(seen, 80):
    ...     print(line)
            c
            a
          a t
     eine █ ░   a 90 %, cat 10 %
    Katze   █   cat 100 %
    """
    from mmha.masks.picture import clean, columns_of, header

    rows = [clean(word) for word in seen.target]
    left = max(map(columns_of, rows))
    grid = left + 1 + 2 * len(seen.source) + 2 + LIST <= width
    lines = header(rows, seen.source, 2) if grid else []
    for name, row in zip(rows, seen.weights.tolist(), strict=True):
        cells = "".join(shade(weight) + " " for weight in row) + "  " if grid else "  "
        looked = ", ".join(f"{clean(seen.source[j])} {100 * row[j]:.0f} %" for j in most(row))
        lines.append((" " * (left - columns_of(name)) + name + " " + cells + looked).rstrip())
    return lines


def draw(seen: Alignment, path: Path) -> None:
    """Write the weights as a drawing, without a display: rows are words of the translation, columns of the source."""
    import io
    import warnings

    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from mmha import checkpoint
    from mmha.masks.picture import clean

    columns, rows = [clean(word) for word in seen.source], [clean(word) for word in seen.target]
    wide, high = len(seen.source), len(seen.target)
    text: Any = {"svg.fonttype": "none", "font.family": fonts("".join(rows + columns))}
    with rc_context(text), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # said by `fonts`
        figure = Figure(figsize=(2.2 + 0.36 * wide, 1.6 + 0.32 * high), layout="constrained")
        axes = figure.add_subplot()
        image = axes.imshow(seen.weights.numpy(), cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
        figure.colorbar(image, ax=axes, label="attention weight")
        axes.set_xticks(range(wide), columns, rotation=60, ha="left", rotation_mode="anchor")
        axes.set_yticks(range(high), rows)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        picture = io.BytesIO()
        figure.savefig(picture, format=path.suffix[1:].lower(), dpi=150)
    checkpoint.write(path, picture.getvalue())


def fonts(text: str) -> list[str]:
    """Font families that have all characters of the text together, matplotlib's own first.

    A character that no font of this machine has is drawn as a box, and standard error says so.
    """
    from matplotlib.font_manager import FontProperties, findfont, fontManager
    from matplotlib.ft2font import FT2Font

    from mmha.cli.printing import console

    names = ["DejaVu Sans"]
    missing = set(map(ord, text)) - set(FT2Font(findfont(FontProperties(family=names))).get_charmap())
    for entry in fontManager.ttflist if missing else ():
        if missing <= set(FT2Font(entry.fname).get_charmap()) and "Last Resort" not in entry.name:
            return [*names, entry.name]
    if missing:
        some = "".join(map(chr, sorted(missing)[:5]))
        note = f"no font here has {some}, which become boxes: install one (fonts-noto-cjk), or draw an svg"
        console(stderr=True).print(f"mmha: {note}", markup=False)
    return names
