"""`mmha demo`: what this is, in a few seconds, on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from mmha.cli.printing import examples

if TYPE_CHECKING:
    from rich.console import Console

EXAMPLES = examples("mmha demo", 'mmha demo "Time flies like an arrow but fruit flies like a banana"')
SENTENCE = "I saw a saw"
SIZE = 8
PICTURES = (
    ("causal", "no looking ahead", "causal"),
    ("window(3)", "itself and 3 back", "window(3)"),
    ("key_padding(5)", "padding from key 5", "key_padding(5)"),
    ("documents(3, 5)", "two texts, packed", "causal & documents(3, 5)"),
)
NEXT = (
    ('mmha tag "They can fish" --attention', "which words each word looked at"),
    ('mmha generate --explain "I have a dream"', "how a language model reads"),
    ('mmha mask "causal & window(4) | global(0)"', "see any mask before you use it"),
    ("mmha bench --quick", "more timings, both directions"),
    ("mmha --help", "everything else"),
)


def demo(
    sentence: Annotated[str, typer.Argument(help="English text to tag.")] = SENTENCE,
    seconds: Annotated[
        float, typer.Option(min=0.0, help="For each of four timings; each has at least 3 rounds.")
    ] = 0.4,
) -> None:
    """See it work. Tags a sentence, draws four masks, times attention against torch here."""
    from mmha.cli.printing import console

    out = console()
    show_tags(out, sentence)
    show_masks(out)
    show_times(out, seconds)
    out.print("\n[bold]Where to go next[/bold]")
    for command, what in NEXT:
        out.print(f"  {command:<44}{what}", markup=False)


def show_tags(out: Console, sentence: str) -> None:
    """Each word with its tag below."""
    from rich.cells import cell_len

    from mmha.checks import require
    from mmha.data import text
    from mmha.models.tagger import load

    sentences = list(text.sentences(sentence))
    require(bool(sentences), "sentence", "at least one word", "nothing")
    tags = load().tag(sentences)
    out.print("[bold]A self-attention tagger[/bold], its weights come with mmha")
    for words, kinds in zip(sentences, tags, strict=True):
        for row in lines(list(zip(words, kinds, strict=True)), out.width - 4):
            for part, style in ((0, None), (1, "cyan")):
                cells = "".join(pair[part] + " " * (cell_width(pair) - cell_len(pair[part])) for pair in row)
                out.print("  " + cells.rstrip(), style=style, markup=False)


def lines(pairs: list[tuple[str, str]], width: int) -> Iterator[list[tuple[str, str]]]:
    """The pairs broken into lines that fit the width; one that is too wide alone gets its own line."""
    row: list[tuple[str, str]] = []
    for pair in pairs:
        if row and sum(map(cell_width, [*row, pair])) > width:
            yield row
            row = []
        row.append(pair)
    yield row


def cell_width(pair: tuple[str, str]) -> int:
    """Columns that a word above its tag needs, with a gap."""
    from rich.cells import cell_len

    return max(map(cell_len, pair)) + 2


def show_masks(out: Console) -> None:
    """The classic masks side by side: a row of a picture is a query, a column a key."""
    from mmha.masks import parse

    out.print("\n[bold]Four masks[/bold]: row = who looks, column = at whom, █ = may see")
    columns = [[name, what, *parse(notation).show(SIZE).splitlines()] for name, what, notation in PICTURES]
    width = max(len(line) for cells in columns for line in cells) + 2
    for number, cells in enumerate(zip(*columns, strict=True)):
        style = ("cyan", "dim")[number] if number < 2 else None
        out.print("  " + "".join(cell.ljust(width) for cell in cells).rstrip(), style=style, markup=False)


def show_times(out: Console, seconds: float) -> None:
    """A few rows of `mmha bench`, cut short."""
    import torch

    from mmha.bench.cases import Case, sizes
    from mmha.bench.measure import measure

    threads = torch.get_num_threads()
    out.print(f"\n[bold]Attention on this machine[/bold]: float32, 8 heads of 64, {threads} threads, median times")
    out.print(f"  {'':<30}{'torch':>10}{'mmha':>10}", markup=False)
    cases = (
        Case("masks", "forward", "causal", sizes(1024), aim=1.0),
        Case("masks", "backward", "causal", sizes(1024), aim=1.0),
        Case("masks", "forward", "window", sizes(2048), aim=1.0),
        Case("masks", "forward", "documents", sizes(2048), aim=1.0),
    )
    for case in cases:
        row = measure(case, threads, seconds)
        name = f"{case.direction} {case.kind}, {case.sizes.k_len} tokens"
        out.print(f"  {name:<30}{row.torch_median:>7.1f} ms{row.mmha_median:>7.1f} ms", end="")
        out.print(f"   [{'green' if row.ratio >= 1 else 'yellow'}]{row.ratio:.1f} times as fast[/]")
