"""`mmha mask`: see what an expression means before it is used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmha.cli.printing import examples

if TYPE_CHECKING:
    from mmha.masks import Mask
    from mmha.masks.plan import Plan

EXAMPLES = examples(
    'mmha mask "causal & window(4)" --size 12',
    'mmha mask "causal | prefix(3)" --words "the cat sat on the mat"',
    'mmha mask "documents([0, 0, 0, 1, 1])"',
    "mmha mask causal --q-len 4 --k-len 9 --out mask.png",
)
DEFAULT_SIZE = 12


def mask(
    expression: Annotated[str, typer.Argument(metavar="EXPRESSION", help="A mask: 'causal', 'window(4) | global(0)'.")],
    size: Annotated[int | None, typer.Option(min=1, help=f"Queries and keys (default {DEFAULT_SIZE}).")] = None,
    q_len: Annotated[int | None, typer.Option(min=1, help="Queries, when not as many as keys.")] = None,
    k_len: Annotated[int | None, typer.Option(min=1, help="Keys, when not as many as queries.")] = None,
    q_start: Annotated[int | None, typer.Option(help="Position of the first query (default: k_len - q_len).")] = None,
    words: Annotated[str | None, typer.Option(help="Label rows and columns; the size is how many words.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw it to FILE too (png, svg, pdf).")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print spans and counts as JSON for programs.")] = False,
) -> None:
    """Show what a mask means. Rows are queries, columns are keys; then how many pairs and tiles that is."""
    from mmha.masks import parse

    labels = words.split() if words else None
    queries, keys = lengths(size, q_len, k_len, labels)
    value = parse(expression)
    plan = value.plan(1, 1, queries, keys, q_start)
    if out is not None:
        draw(value, (queries, keys, q_start), labels, out)
    if json:
        from mmha.cli.printing import print_json

        print_json(facts(value, plan))
        return
    print(value.show(queries, keys, q_start=q_start, rows=labels, columns=labels, width=screen_width()))
    print()
    for name, text in summary(facts(value, plan)):
        print(f"{name:<8} {text}")
    if out is not None:
        print(f"{'wrote':<8} {out}")


def lengths(size: int | None, q_len: int | None, k_len: int | None, labels: list[str] | None) -> tuple[int, int]:
    """(queries, keys) from what was given; words count as a size."""
    from mmha.checks import require

    if labels is not None:
        given = next((n for n in (size, q_len, k_len) if n not in (None, len(labels))), None)
        require(given is None, "words", f"{given} words, one per row and column", f"{len(labels)} words")
        size = len(labels)
    queries = q_len or size or k_len or DEFAULT_SIZE
    return queries, k_len or size or queries


def screen_width() -> int:
    """Columns of this terminal; 80 where nobody knows."""
    import shutil

    return shutil.get_terminal_size((80, 24)).columns


def draw(value: Mask, sizes: tuple[int, int, int | None], labels: list[str] | None, out: Path) -> None:
    """Write the picture with matplotlib, without a display."""
    from matplotlib.figure import Figure

    queries, keys, q_start = sizes
    figure = Figure(figsize=(5.0, 5.2), layout="constrained")
    value.plot(queries, keys, q_start=q_start, rows=labels, columns=labels, ax=figure.add_subplot())
    figure.savefig(out, dpi=150)


def facts(value: Mask, plan: Plan) -> dict[str, Any]:
    """What a plan says about the mask, as JSON values; `spans` lists the visible runs [start, stop) of each row."""
    tiles = plan.tiles()
    return {
        "mask": repr(value),
        "q_len": plan.q_len,
        "k_len": plan.k_len,
        "visible": plan.visible,
        "pairs": plan.q_len * plan.k_len,
        "density": plan.density,
        "kind": plan.kind,
        "nbytes": plan.nbytes,
        "tiles": {name: int((tiles == code).sum()) for code, name in enumerate(("empty", "mixed", "full"))},
        "tile_shape": [32, 256],
        "spans": [[list(span) for span in plan.row(row)] for row in range(plan.q_len)],
    }


def summary(known: dict[str, Any]) -> list[tuple[str, str]]:
    """The same for people."""
    tiles, (rows, keys) = known["tiles"], known["tile_shape"]
    kept = f"{known['kind']}, {known['nbytes']:,} bytes"
    return [
        ("mask", known["mask"]),
        ("visible", f"{known['visible']:,} of {known['pairs']:,} pairs, density {known['density']:.3f}"),
        ("kept as", kept),
        (
            "tiles",
            f"{tiles['full']} full, {tiles['mixed']} mixed, {tiles['empty']} empty ({rows} queries × {keys} keys each)",
        ),
    ]
