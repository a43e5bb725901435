"""`mmha mask`: see what an expression means before it is used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmha.cli.files import drawable
from mmha.cli.printing import examples

if TYPE_CHECKING:
    from mmha.masks import Mask
    from mmha.masks.plan import Plan

EXAMPLES = examples(
    'mmha mask "causal & window(4)" --size 12',
    'mmha mask "causal | prefix(3)" --words "the cat sat on the mat"',
    'mmha mask "causal & documents(5, 7)" --out mask.png',
    'mmha mask "per_head(causal, window(2, 2))" --heads 2',
    "mmha mask causal --q-len 4 --k-len 9 --json",
)
DEFAULT_SIZE = 12
MOST_PICTURES = 16
TILE = (32, 256)  # queries x keys: what the forward kernel skips or visits as one


@dataclass(frozen=True)
class Problem:
    """The sizes that a mask is asked about, and what to call the rows and columns."""

    batch: int
    heads: int
    q_len: int
    k_len: int
    q_start: int | None
    labels: list[str] | None

    @property
    def items(self) -> list[tuple[int, int]]:
        """Every (batch, head)."""
        return [(b, h) for b in range(self.batch) for h in range(self.heads)]


def mask(
    expression: Annotated[str, typer.Argument(metavar="EXPRESSION", help="A mask: 'causal', 'window(4) | global(0)'.")],
    size: Annotated[int | None, typer.Option(min=1, help=f"Queries and keys (default {DEFAULT_SIZE}).")] = None,
    q_len: Annotated[int | None, typer.Option(min=1, help="Queries, when not as many as keys.")] = None,
    k_len: Annotated[int | None, typer.Option(min=1, help="Keys, when not as many as queries.")] = None,
    q_start: Annotated[int | None, typer.Option(help="Position of the first query (default: k_len - q_len).")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Sequences, for masks that differ between them.")] = 1,
    heads: Annotated[int, typer.Option(min=1, help="Heads, for masks that differ between them.")] = 1,
    words: Annotated[str | None, typer.Option(help="Label rows and columns; the size is how many words.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "--output", metavar="FILE", help="Draw it to FILE too (png, svg, pdf).")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print spans and counts as JSON for programs.")] = False,
) -> None:
    """Show what a mask means. Rows are queries, columns are keys; then how many pairs and tiles that is.

    \b
    Masks, joined by & and | and ~ and parentheses:
      full  causal  strict_causal  window(left, right=0)  dilated(step)
      chunked(size)  prefix(length)  global(position, ...)
      key_padding(length)  key_padding.left(start)  query_padding(length)
      keys([true, ...])  queries([true, ...])  documents(length, ...)
      blocks([[1, 0], [1, 1]], size)  tree(parent, ...)  per_head(mask, ...)
    """
    from mmha.masks import parse

    drawable("--out", out)
    labels = words.split() if words else None
    problem = Problem(batch, heads, *lengths(size, q_len, k_len, labels), q_start, labels)
    value = parse(expression)
    plan = value.plan(batch, heads, problem.q_len, problem.k_len, q_start)
    if out is not None:
        draw(value, problem, out)
    if json:
        from mmha.cli.printing import print_json

        print_json(facts(value, plan) | {"rows": spans(plan, problem)})
        return
    show(value, problem)
    for name, text in summary(facts(value, plan)):
        print(f"{name:<8} {text}")
    if out is not None:
        print(f"{'wrote':<8} {out}")


def lengths(size: int | None, q_len: int | None, k_len: int | None, labels: list[str] | None) -> tuple[int, int]:
    """(queries, keys) from what was given; words count as a size."""
    from mmha.checks import require

    if labels is not None:
        other = next((n for n in (size, q_len, k_len) if n not in (None, len(labels))), None)
        require(other is None, "words", f"{other} words, one for each row and column", f"{len(labels)} words")
        size = len(labels)
    queries = q_len or size or k_len or DEFAULT_SIZE
    return queries, k_len or size or queries


def show(value: Mask, problem: Problem) -> None:
    """A picture of each (batch, head), the first few of them."""
    import shutil

    width = shutil.get_terminal_size((80, 24)).columns
    p = problem
    for item in p.items[:MOST_PICTURES]:
        if len(p.items) > 1:
            print("batch {}, head {}".format(*item))
        print(
            value.show(
                p.q_len, p.k_len, q_start=p.q_start, batch=p.batch, heads=p.heads, item=item,
                rows=p.labels, columns=p.labels, width=width,
            )
        )  # fmt: skip
        print()
    if len(p.items) > MOST_PICTURES:
        print(f"... and {len(p.items) - MOST_PICTURES} more\n")


def draw(value: Mask, problem: Problem, out: Path) -> None:
    """Write the pictures with matplotlib, without a display, side by side."""
    import io

    from matplotlib.figure import Figure

    from mmha import checkpoint

    p, items = problem, problem.items[:MOST_PICTURES]
    columns = min(len(items), 4)
    rows = -(-len(items) // columns)
    figure = Figure(figsize=(5.0 * columns, 5.2 * rows), layout="constrained")
    for number, item in enumerate(items, 1):
        axes = figure.add_subplot(rows, columns, number)
        value.plot(
            p.q_len, p.k_len, q_start=p.q_start, batch=p.batch, heads=p.heads, item=item,
            rows=p.labels, columns=p.labels, ax=axes,
        )  # fmt: skip
        if len(p.items) > 1:
            axes.set_title("batch {}, head {}".format(*item))
    picture = io.BytesIO()
    figure.savefig(picture, format=out.suffix[1:].lower(), dpi=150)
    checkpoint.write(out, picture.getvalue())


def facts(value: Mask, plan: Plan) -> dict[str, Any]:
    """What a plan says about the mask, as JSON values."""
    tiles = plan.tiles(*TILE)
    return {
        "mask": repr(value),
        "batch": plan.batch,
        "heads": plan.heads,
        "q_len": plan.q_len,
        "k_len": plan.k_len,
        "visible": plan.visible,
        "pairs": plan.batch * plan.heads * plan.q_len * plan.k_len,
        "density": plan.density,
        "kind": plan.kind,
        "nbytes": plan.nbytes,
        "tile": {"queries": TILE[0], "keys": TILE[1]},
        "tiles": {name: int((tiles == code).sum()) for code, name in enumerate(("empty", "mixed", "full"))},
    }


def spans(plan: Plan, problem: Problem) -> list[dict[str, Any]]:
    """The visible spans [start, stop) of every query row of every (batch, head)."""
    return [
        {"batch": b, "head": h, "query": i, "spans": [list(span) for span in plan.row(i, b, h)]}
        for b, h in problem.items
        for i in range(problem.q_len)
    ]


def summary(known: dict[str, Any]) -> list[tuple[str, str]]:
    """The facts for people."""
    tiles, tile = known["tiles"], known["tile"]
    counts = f"{tiles['full']} full, {tiles['mixed']} mixed, {tiles['empty']} empty"
    return [
        ("mask", known["mask"]),
        ("visible", f"{known['visible']:,} of {known['pairs']:,} pairs, density {known['density']:.3f}"),
        ("tiles", f"{counts}, of {tile['queries']} queries x {tile['keys']} keys; empty ones are skipped"),
        ("plan", f"{known['kind']}, {known['nbytes']:,} bytes"),
    ]
