"""`mmha translate`: translate texts, a file or standard input, line by line, and see where the decoder looked."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmha.cli.lines import streamed
from mmha.cli.printing import examples

if TYPE_CHECKING:
    from mmha.models.seq2seq import Beams, Seq2Seq, Tokenizer
    from mmha.models.seq2seq.text import Translated

EXAMPLE = 'mmha translate "Click the icon."'
EXAMPLES = examples(
    f"{EXAMPLE} --to de",
    f"{EXAMPLE} --to zh --n-best 4",
    "mmha translate --file manual.txt --to de --output manual.de.txt",
    'mmha translate "Open the file in a new window." --attention --plot alignment.png',
    'echo "Save the document." | mmha translate --to zh --json',
)
LANGUAGES = ("de", "zh")
BEAM, ALPHA, BATCH = 4, 0.6, 32

Texts = Annotated[
    list[str] | None,
    typer.Argument(metavar="TEXT", help="Texts to translate, each in quotes; else --file or standard input."),
]
File = Annotated[Path | None, typer.Option(metavar="FILE", help="A text file: each of its lines is translated.")]
To = Annotated[str | None, typer.Option(help="The language, from English: de (the default) or zh.")]
Model = Annotated[str | None, typer.Option(metavar="FILE|FOLDER", help="A model from `mmha train translate`.")]
Beam = Annotated[int, typer.Option(help="How many translations grow side by side; 1 takes the best word each time.")]
Alpha = Annotated[float, typer.Option(help="Above 0: longer translations count for more, (5 + length)^alpha.")]
NBest = Annotated[int, typer.Option(help="Print so many translations of each line: line ||| translation ||| score.")]
Batch = Annotated[int, typer.Option(help="How many sentences are translated together.")]
Output = Annotated[
    Path | None, typer.Option("--output", "--out", metavar="FILE", help="Write to FILE, whole or not at all.")
]
Attention = Annotated[bool, typer.Option("--attention", help="Draw where each word of the translation looked.")]
Layer = Annotated[int | None, typer.Option(help="With --attention: the decoder's layer, from 0; -1 is the last.")]
Head = Annotated[int | None, typer.Option(help="With --attention: the head, from 0. Default: the mean of all.")]
Plot = Annotated[Path | None, typer.Option(metavar="FILE", help="With --attention: draw it to FILE (png, svg, pdf).")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def translate(
    texts: Texts = None,
    file: File = None,
    to: To = None,
    model: Model = None,
    beam: Beam = BEAM,
    alpha: Alpha = ALPHA,
    n_best: NBest = 1,
    batch: Batch = BATCH,
    output: Output = None,
    attention: Attention = False,
    layer: Layer = None,
    head: Head = None,
    plot: Plot = None,
    json: Json = False,
) -> None:
    """Translate from English, each line by itself. Empty lines stay empty lines."""
    from mmha import checks
    from mmha.cli.files import drawable, writable
    from mmha.models.seq2seq import Beams, load

    for name, value in (("--layer", layer), ("--head", head), ("--plot", plot)):
        checks.require(attention or value is None, name, "it with --attention", "it alone")
    for name, wanted in (("--n-best", n_best != 1), ("--output", output is not None)):
        checks.require(not (attention and wanted), name, "it without --attention", "both")
    checks.require(to is None or model is None, "--to", "it without --model", "both")
    writable("--output", output)
    drawable("--plot", plot)
    with checks.renamed(width="--beam", alpha="--alpha", n_best="--n-best"):
        beams = Beams(beam, alpha, n_best)
    checks.integer("--batch", batch, 1)
    place = _place(to, model)
    streamed(texts or [], file, EXAMPLE)
    loaded = load(place)
    count = _count(loaded[1], file) if file is not None and file.is_file() else None  # a pipe is read once
    found = _translated(loaded, streamed(texts or [], file, EXAMPLE), beams, batch, count)
    choice = {"beam": beam, "alpha": alpha, "n_best": n_best}
    if attention:
        from mmha.cli.alignment import show

        show(*loaded, found, (layer, head), plot, choice if json else None)
    elif json:
        _finish(output, document(choice, map(facts, found)))
    else:
        _finish(output, _plain(found) if n_best == 1 else _ranked(found))


def _place(to: str | None, model: str | None) -> Path:
    """Where the model is. Raises: ValueError for a language that no translator ships for."""
    from mmha.checks import one_of
    from mmha.models.seq2seq import SHIPPED

    if model is not None:
        return Path(model)
    return SHIPPED[one_of("--to", to or LANGUAGES[0], LANGUAGES)]


def _count(tokenizer: Tokenizer, file: Path) -> int:
    """How many lines the file has; all of it is read before any is translated, which may take hours.

    Raises: ValueError when it is not UTF-8 or a sentence is too long, OSError when it cannot be read.
    """
    from mmha.models.seq2seq.text import LONGEST, split

    count = 0
    for names, lines in streamed([], file, EXAMPLE):
        for name, line in zip(names, lines, strict=True):
            split(tokenizer, line, LONGEST, name)
        count += len(lines)
    return count


def _translated(
    loaded: tuple[Seq2Seq, Tokenizer],
    parts: Iterator[tuple[list[str], list[str]]],
    beams: Beams,
    batch: int,
    count: int | None,
) -> Iterator[Translated]:
    """The translations in order as they are made, with a bar where there is a wait and somebody to see it."""
    from mmha.cli.printing import console
    from mmha.models.seq2seq.text import WINDOW, translate_texts

    found = (one for names, lines in parts for one in translate_texts(*loaded, lines, beams, batch, names=names))
    err = console(stderr=True)
    if count is not None and count > WINDOW * batch and err.is_terminal and not sys.stdout.isatty():
        from rich.progress import track

        return iter(track(found, "translating", total=count, console=err, transient=True))
    return found


def _plain(found: Iterator[Translated]) -> Iterator[str]:
    """The best translation of each line."""
    return (_line(translation.text) + "\n" for translation in found)


def _ranked(found: Iterator[Translated]) -> Iterator[str]:
    """All translations of each line, as Moses and its kin write them."""
    for number, translation in enumerate(found):
        for wording in translation.wordings:
            yield f"{number} ||| {_line(wording.text)} ||| {wording.score:.4f}\n"


def _line(text: str) -> str:
    """A translation on one line, whatever the model has written."""
    return " ".join(text.splitlines())


def document(choice: dict[str, Any], rows: Iterator[dict[str, Any]]) -> Iterator[str]:
    """A JSON document in pieces, a translation each.

    >>> print("".join(document({"beam": 4}, iter([{"text": "Ja."}]))), end="")
    {
      "settings": {"beam": 4},
      "translations": [
        {
          "text": "Ja."
        }
      ]
    }
    """
    import json
    from textwrap import indent

    yield f'{{\n  "settings": {json.dumps(choice)},\n  "translations": ['
    before = "\n"
    for row in rows:
        yield before + indent(json.dumps(row, indent=2), "    ")
        before = ",\n"
    yield "\n  ]\n}\n" if before == ",\n" else "]\n}\n"


def facts(translation: Translated) -> dict[str, Any]:
    """A translation as JSON values."""
    return {
        "source": translation.source,
        "text": translation.text,
        "hypotheses": [{"text": w.text, "score": w.score} for w in translation.wordings],
        "parts": [part.source for part in translation.parts],
    }


def _finish(output: Path | None, pieces: Iterator[str]) -> None:
    """Print each piece when it is there, or write them to the file, which is there when all are."""
    from mmha.cli.printing import harmless

    if output is not None:
        from mmha import checkpoint

        checkpoint.write(output, (piece.encode() for piece in pieces))
        return
    terminal = sys.stdout.isatty()
    for piece in pieces:
        sys.stdout.write(harmless(piece) if terminal else piece)
        sys.stdout.flush()
