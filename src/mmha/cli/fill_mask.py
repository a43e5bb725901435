"""`mmha fill-mask`: the words that may stand behind each [MASK], with their probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmha.cli.encoders import SHIPPED, load
from mmha.cli.lines import given
from mmha.cli.printing import examples

if TYPE_CHECKING:
    from mmha.models.bert import Bert, Tokenizer
    from mmha.models.bert.filling import Blank, Filling

EXAMPLES = examples(
    'mmha fill-mask "the [MASK] sat"',
    'mmha fill-mask "he took her [MASK] and went [MASK] the house ." --top 3',
    'mmha fill-mask "CCOC(=O)[MASK]CC" --model albert-rxn',
    'mmha fill-mask "the [MASK] sat" --attention',
    "mmha fill-mask --file sentences.txt --json",
)
WIDTH = 24  # columns of a bar of probability 1
EIGHTHS = " ▏▎▍▌▋▊▉"


def fill_mask(
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="TEXT", help="Texts with [MASK] in them, each in quotes; else standard input."),
    ] = None,
    file: Annotated[Path | None, typer.Option(metavar="FILE", help="One text a line; empty lines stay empty.")] = None,
    top: Annotated[int, typer.Option(help="How many words for each [MASK].")] = 5,
    model: Annotated[
        str, typer.Option(metavar="NAME|PATH", help="A checkpoint, a Hugging Face folder, albert-rxn.")
    ] = SHIPPED,
    attention: Annotated[bool, typer.Option("--attention", help="Draw where the tokens looked.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Show the most probable words for each [MASK] of a text, by a BERT."""
    from mmha import checks

    checks.integer("top", top, minimum=1)
    names, lines = given(texts or [], file, 'mmha fill-mask "the [MASK] sat"')
    bert, tokenizer = load(model, "--model")
    fillings = _fill(bert, tokenizer, lines, names, top)
    if json:
        _print_json(bert, tokenizer, lines, fillings, attention)
    else:
        _print(bert, tokenizer, fillings, attention)


def _fill(
    bert: Bert, tokenizer: Tokenizer, lines: Sequence[str], names: Sequence[str], top: int
) -> list[Filling | None]:
    """The fillings in the order of the lines; None for a line without text."""
    from mmha.models.bert.filling import fill

    written = [i for i, line in enumerate(lines) if line.strip()]
    if not written:
        raise ValueError(f"{names[0].partition(', line')[0]}: expected a text with at least one [MASK], got none")
    found = fill(bert, tokenizer, [lines[i] for i in written], top, [names[i] for i in written])
    at = dict(zip(written, found, strict=True))
    return [at.get(i) for i in range(len(lines))]


def _print_json(
    bert: Bert, tokenizer: Tokenizer, lines: Sequence[str], fillings: Sequence[Filling | None], attention: bool
) -> None:
    from mmha.cli.printing import print_json
    from mmha.models.bert.filling import looks

    found: list[dict[str, Any]] = []
    for line, filling in zip(lines, fillings, strict=True):
        found.append({"text": line, "tokens": [], "blanks": [], "filled": line} if filling is None else asdict(filling))
        if attention:
            found[-1]["attention"] = [] if filling is None else looks(bert, tokenizer, line).tolist()
    print_json(found)


def _print(bert: Bert, tokenizer: Tokenizer, fillings: Sequence[Filling | None], attention: bool) -> None:
    from rich.text import Text

    from mmha.cli.looks import picture
    from mmha.cli.printing import console, harmless
    from mmha.models.bert.filling import looks

    out = console()
    for i, filling in enumerate(fillings):
        if i:
            out.print()
        if filling is None:
            continue
        out.print(Text(harmless(filling.text), "bold"))
        for number, blank in enumerate(filling.blanks, start=1):
            if len(filling.blanks) > 1:
                out.print(Text(f"  [MASK] {number} of {len(filling.blanks)}", "dim"))
            for line in table(blank):
                out.print(Text.assemble("  ", (harmless(line[0]), "cyan"), line[1]))
        if attention:
            rows = looks(bert, tokenizer, filling.text).tolist()
            out.print(picture(list(map(harmless, filling.tokens)), [""] * len(rows), rows))


def table(blank: Blank) -> list[tuple[str, str]]:
    """A line for each candidate: the token, and its probability as number and bar, in two parts.

    >>> from mmha.models.bert.filling import Blank, Candidate
    >>> for token, rest in table(Blank(2, (Candidate("cat", 7, 0.5), Candidate("dog's", 8, 0.02)))):
    ...     print(token + rest)
    cat     50.0 %  ████████████
    dog's    2.0 %  ▌
    """
    from rich.cells import cell_len

    left = max(cell_len(candidate.token) for candidate in blank.candidates)
    return [
        (c.token, " " * (left - cell_len(c.token)) + f"  {100 * c.probability:5.1f} %  {bar(c.probability)}".rstrip())
        for c in blank.candidates
    ]


def bar(share: float) -> str:
    """A bar whose length is a share of `WIDTH` columns, to an eighth of a column.

    >>> bar(0.5), bar(0.0), bar(0.13)
    ('████████████', '', '███▏')
    """
    eighths = round(8 * WIDTH * share)
    return "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()
