"""`mmha bench`: the door to `mmha.bench`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmha.cli.files import drawable, writable
from mmha.cli.printing import examples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mmha.bench.cases import Case
    from mmha.bench.measure import Limits, Row

EXAMPLES = examples(
    "mmha bench --quick",
    "mmha bench --filter 'forward causal'",
    "mmha bench --threads 1 --json results.json --plot results.png",
)
HEADER = (
    f"{'':<19}{'L':>5}{'D':>4}{'torch ms':>9}{'mmha ms':>9}"
    f"{'× torch':>8}{'aim':>6}{'GFLOP/s':>8}{'limit':>6}{'runs':>5}"
)


def bench(
    words: Annotated[str, typer.Option("--filter", metavar="WORDS", help="Only rows that have all these words.")] = "",
    threads: Annotated[int, typer.Option(min=0, help="Threads for both sides; 0 means as many as torch uses.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Only rows up to L = 2048, half a second each.")] = False,
    seconds: Annotated[float, typer.Option(min=0.0, help="Time for a row; a row has at least 5 rounds.")] = 2.0,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write every sample and the machine to FILE.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the ratios to FILE (png, svg, pdf).")] = None,
) -> None:
    """Time attention against torch here. Forward and backward, beside this machine's own limits.

    Both sides compute float32, batch 1, 8 heads, in turns within one run; figures are medians. GFLOP/s counts visible
    pairs only and "limit" is its share of the multiply-adds that the machine reached in the best probe so far. torch
    gets is_causal=True for causal rows and a ready-made dense mask for padding, window and documents.
    """
    chosen = choose(words, quick)
    writable("--json", json)
    drawable("--plot", plot)
    limits, rows = run(chosen, threads, min(seconds, 0.5) if quick else seconds)
    if json is not None:
        import json as codec

        from mmha import checkpoint
        from mmha.bench.record import record

        checkpoint.write(json, (codec.dumps(record(limits, rows), indent=1) + "\n").encode())
        print(f"wrote {json}")
    if plot is not None:
        from mmha.bench.chart import draw

        draw(limits, rows, plot)
        print(f"wrote {plot}")


def choose(words: str, quick: bool) -> tuple[Case, ...]:
    """The rows asked for."""
    from mmha.bench.cases import CASES, QUICK_LENGTH, select

    return select(words, tuple(case for case in CASES if case.length <= QUICK_LENGTH) if quick else CASES)


def run(chosen: Sequence[Case], threads: int, seconds: float) -> tuple[Limits, list[Row]]:
    """Measure the cases, printing each row as soon as it is known."""
    import torch

    from mmha.bench.measure import measure, probe
    from mmha.cli.printing import console

    out, progress = console(), console(stderr=True)
    limits = probe(threads or torch.get_num_threads())
    out.print(f"float32, batch 1, 8 heads, {limits.threads} threads, median times")
    out.print(
        f"this machine: {limits.fma_gflops:.0f} GFLOP/s of multiply-adds, {limits.read_gbs:.0f} GB/s of reading\n"
    )
    out.print(HEADER, style="bold", markup=False)
    rows: list[Row] = []
    for number, case in enumerate(chosen, 1):
        if progress.is_terminal:
            progress.print(f"[dim]{number}/{len(chosen)} {case.name}[/dim]", end="\r")
        row = measure(case, limits.threads, seconds, limits.fma_gflops)
        limits = replace(limits, fma_gflops=row.limit)
        rows.append(row)
        out.print(row_text(row))
    return limits, [replace(row, limit=limits.fma_gflops) for row in rows]


def row_text(row: Row) -> str:
    """A row of the table; the ratio is green where it reaches its aim and yellow where it does not (rich markup)."""
    case, colour = row.case, "green" if row.ratio >= row.case.aim else "yellow"
    return (
        f"{case.direction:<9} {case.kind:<9}{case.length:>5}{case.head_dim:>4}"
        f"{row.torch_median:>9.2f}{row.mmha_median:>9.2f}"
        f"[{colour}]{row.ratio:>8.2f}[/{colour}]{case.aim:>6g}{row.gflops:>8.1f}{row.share:>6.0%}{row.rounds:>5}"
    )
