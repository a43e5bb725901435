"""`mmha demo`: what this is, in a few seconds, on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mmha.cli.printing import examples

if TYPE_CHECKING:
    from rich.console import Console

EXAMPLES = examples("mmha demo", 'mmha demo "Time flies like an arrow but fruit flies like a banana"')
SENTENCE = "I saw a saw"
SIZE = 10
PICTURES = (
    ("causal", "no looking ahead", "causal"),
    ("window(3)", "itself and 3 before", "causal & window(3)"),
    ("key_padding(7)", "keys 7.. are padding", "key_padding(7)"),
    ("documents(4, 6)", "two texts, packed", "causal & documents(4, 6)"),
)
NEXT = (
    ('mmha tag "They can fish" --attention', "which words each word looked at"),
    ('mmha mask "causal & window(4) | global(0)"', "see any mask before you use it"),
    ("mmha bench --quick", "more timings against torch, forward and backward"),
    ("mmha --help", "everything else"),
)


def demo(
    sentence: Annotated[str, typer.Argument(help="English text to tag.")] = SENTENCE,
    seconds: Annotated[
        float, typer.Option(min=0.0, help="For each of four timings; each has at least 5 rounds.")
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
    """The sentence with a tag under each word."""
    from mmha.checks import require
    from mmha.models import tagger

    words = sentence.split()
    require(bool(words), "sentence", "at least one word", "nothing")
    tags = tagger.load().tag([words])[0]
    out.print("[bold]A self-attention tagger[/bold] (its weights come with mmha)")
    line = max(20, out.width - 4)
    row: list[tuple[str, str]] = []
    for pair in zip(words, tags, strict=True):
        if row and sum(cell_width(p) for p in [*row, pair]) > line:
            print_cells(out, row)
            row = []
        row.append(pair)
    print_cells(out, row)


def cell_width(pair: tuple[str, str]) -> int:
    """Columns that a word above its tag needs, with a gap."""
    return max(len(pair[0]), len(pair[1])) + 2


def print_cells(out: Console, row: list[tuple[str, str]]) -> None:
    """A line of words and, below it, the line of their tags."""
    for part, style in ((0, None), (1, "cyan")):
        out.print(
            "  " + "".join(pair[part].ljust(cell_width(pair)) for pair in row).rstrip(), style=style, markup=False
        )


def show_masks(out: Console) -> None:
    """The classic masks side by side: a row of a picture is a query, a column a key."""
    from mmha.masks import parse

    out.print("\n[bold]Four masks[/bold]: row = who looks, column = at whom, █ = may see")
    columns = [[name, what, *parse(notation).show(SIZE).splitlines()] for name, what, notation in PICTURES]
    width = max(len(what) for _, what, _ in PICTURES) + 2
    for number, cells in enumerate(zip(*columns, strict=True)):
        style = ("cyan", "dim")[number] if number < 2 else None
        out.print("  " + "".join(cell.ljust(width) for cell in cells).rstrip(), style=style, markup=False)


def show_times(out: Console, seconds: float) -> None:
    """A few rows of `mmha bench`, cut short."""
    import torch

    from mmha.bench.cases import Case
    from mmha.bench.measure import measure

    threads = torch.get_num_threads()
    out.print(f"\n[bold]Attention on this machine[/bold]: float32, 8 heads of 64, {threads} threads, median times")
    out.print(f"  {'':<30}{'torch':>10}{'mmha':>10}", markup=False)
    cases = (
        Case("forward", "causal", 1024, aim=1.0),
        Case("backward", "causal", 1024, aim=1.0),
        Case("forward", "window", 2048, aim=1.0),
        Case("forward", "documents", 2048, aim=1.0),
    )
    for case in cases:
        row = measure(case, threads, seconds)
        name = f"{case.direction} {case.kind}, {case.length} tokens"
        out.print(f"  {name:<30}{row.torch_median:>7.1f} ms{row.mmha_median:>7.1f} ms", end="")
        out.print(f"   [{'green' if row.ratio >= 1 else 'yellow'}]{row.ratio:.1f} times as fast[/]")
