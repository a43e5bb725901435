"""`mmha bench`: the door to `mmha.bench`."""

from __future__ import annotations

import math
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
    "mmha bench --filter 'forward causal bf16'",
    "mmha bench --threads 1 --json results.json --plot results.png",
    "mmha bench --filter 'forward none f32' --isa avx2",
)
HEADER = (
    f"{'':<10}{'BxH':>7}{'L':>9}{'D':>4}{'':>5}{'torch ms':>9}{'mmha ms':>9}"
    f"{'× torch':>8}{'aim':>5}{'GFLOP/s':>8}{'limit':>6}"
)
QUICK_SECONDS = 0.3


def bench(
    words: Annotated[str, typer.Option("--filter", metavar="WORDS", help="Only rows that have all these words.")] = "",
    threads: Annotated[int, typer.Option(min=0, help="Threads for both sides; 0 means as many as torch uses.")] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="Only rows that are soon done, a third of a second each.")
    ] = False,
    seconds: Annotated[
        float, typer.Option(min=0.0, help="Time for a row, of 5 rounds or more, 3 if those are long.")
    ] = 2.0,
    isa: Annotated[
        str, typer.Option(metavar="NAME", help="Our kernels for this instruction set; `mmha info` names them.")
    ] = "",
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write every sample and the machine to FILE.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the ratios to FILE (png, svg, pdf).")] = None,
) -> None:
    """Time attention against torch here: masks, features, shapes, dtypes and caches, beside this machine's own limits.

    Both sides compute the same in turns within one run; figures are medians. GFLOP/s counts visible pairs only and
    "limit" is its share of the float32 multiply-adds that the machine reached in the best probe so far; one token
    against a cache counts GB/s of keys and values, and "limit" is reading from memory. torch gets what it is fastest
    with: is_causal=True, a ready-made dense mask or bias; its formula where it has no function; bfloat16 beside int8.
    --filter takes any words of a row, or how they begin: family (masks features irregular shapes call decode), kind,
    direction (forward recorded backward training), length, dtype (f32 bf16 f16 i8), batch x heads, and head size.
    """
    chosen = choose(words, quick)
    writable("--json", json)
    drawable("--plot", plot)
    from mmha import checks
    from mmha.bench.measure import instruction_set

    with checks.renamed(isa="--isa"), instruction_set(isa):
        limits, rows = run(chosen, threads, min(seconds, QUICK_SECONDS) if quick else seconds)
        if json is not None:
            write(json, limits, rows)
    if plot is not None:
        from mmha.bench.chart import draw

        draw(limits, rows, plot)
        print(f"wrote {plot}")


def write(path: Path, limits: Limits, rows: Sequence[Row]) -> None:
    """Every sample and the machine, as JSON."""
    import json

    from mmha import checkpoint
    from mmha.bench.record import record

    checkpoint.write(path, (json.dumps(record(limits, rows), indent=1) + "\n").encode())
    print(f"wrote {path}")


def choose(words: str, quick: bool) -> tuple[Case, ...]:
    """The rows asked for."""
    from mmha.bench import table
    from mmha.bench.cases import select

    return select(words, table.quick() if quick else table.CASES)


def run(chosen: Sequence[Case], threads: int, seconds: float) -> tuple[Limits, list[Row]]:
    """Measure the cases, printing each row as soon as it is known."""
    import torch

    from mmha.bench.measure import measure, probe
    from mmha.cli.printing import console

    out, progress = console(), console(stderr=True)
    limits = probe(threads or torch.get_num_threads())
    out.print(f"{limits.threads} thread{'s' * (limits.threads > 1)}, median times; L is Tq x Tk where these differ")
    out.print(
        f"this machine: {limits.fma_gflops:.0f} GFLOP/s of multiply-adds, {limits.read_gbs:.0f} GB/s of reading\n"
    )
    out.print(HEADER, style="bold", markup=False)
    rows: list[Row] = []
    for number, case in enumerate(chosen, 1):
        if progress.is_terminal:
            progress.print(f"[dim]{number}/{len(chosen)} {case.name}[/dim]", end="\r")
        kind = case.unit, case.threads or limits.threads
        row = measure(case, limits.threads, seconds, limits.best.get(kind, 0.0))
        limits.best[kind] = row.limit
        if not rows or rows[-1].case.group != case.group:
            out.print(case.heading, style="bold cyan", markup=False)
        rows.append(row)
        out.print(row_text(row))
        if row.beyond_part is not None:
            out.print(f"{'':<10}of these beyond the attention alone: {row.beyond_part * 1e3:.1f} µs", markup=False)
    return limits, [replace(row, limit=limits.best[row.case.unit, row.threads]) for row in rows]


def row_text(row: Row) -> str:
    """A row of the table; ratio and share are green where they reach their aims, else yellow (rich markup)."""
    case, size = row.case, row.case.sizes
    colour, share = ("green" if good else "yellow" for good in (row.ratio >= case.aim, row.share >= case.least_share))
    limit_text = f"[{share}]{row.share:>6.0%}[/{share}]" if case.least_share else f"{row.share:>6.0%}"
    return (
        f"{case.kind:<10}{size.heads_text:>7}{size.length_text:>9}{size.dim:>4}{case.dtype:>5}"
        f"{ms_text(row.torch_median):>9}{ms_text(row.mmha_median):>9}"
        f"[{colour}]{row.ratio:>8.2f}[/{colour}]{case.aim:>5g}{row.rate:>8.1f}{limit_text}"
    )


def ms_text(ms: float) -> str:
    """At least three significant digits, whether it is microseconds or seconds.

    >>> ms_text(0.012345), ms_text(1.2345), ms_text(123.45), ms_text(1234.5)
    ('0.0123', '1.23', '123.5', '1234.5')
    """
    return f"{ms:.{max(1, 2 - math.floor(math.log10(max(ms, 1e-6))))}f}"
