"""The README's table of whole models, from what end_to_end.py wrote: for fill_readme.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

INFERENCE = ("eager", "sdpa", "flex", "mmha")
TRAINING = ("torch", "mmha.patch()", "mmha.nn")


def section(run: Mapping[str, Any]) -> str:
    """Both tables, and how to read them."""
    trained = [row for row in run["rows"] if seconds(row, "torch") is not None]
    used = [row for row in run["rows"] if row not in trained]
    return "\n".join(
        [
            f"Whole models, seconds; `make bench-end-to-end` on {run['measured'][:10]}, {run['machine']['cpu']}, "
            f"{run['threads']} threads, float32, all sides in turns within one run; medians. Sides share weights and "
            "inputs, and their results were compared first. Models are transformers', and but for MiniLM their weights "
            f"are random; the sides are its attentions. {flex(used)}",
            "",
            "| work | eager | sdpa | flex | **mmha** | × eager | × sdpa | × flex |",
            "|---|" + "---:|" * 7,
            *(line(row, INFERENCE, [("mmha", peer) for peer in INFERENCE[:-1]]) for row in used),
            "",
            "| work | torch.nn | **mmha.patch()** | **mmha.nn** | × torch, patched | × torch, mmha.nn |",
            "|---|" + "---:|" * 5,
            *(line(row, TRAINING, [(ours, "torch") for ours in TRAINING[1:]]) for row in trained),
        ]
    )


def seconds(row: Mapping[str, Any], name: str) -> float | None:
    """The median of a side, None where it was not there."""
    return next((side["s"] for side in row["sides"] if side["side"] == name), None)


def flex(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the first call of flex took, and where and why it is missing."""
    first = [side["first_s"] for row in rows for side in row["sides"] if side["side"] == "flex"]
    reasons = dict.fromkeys(row["without"]["flex"] for row in rows if "flex" in row["without"])
    parts = []
    if first:
        parts.append(
            f"flex compiles in its first call, which took {min(first):.0f} to {max(first):.0f} s and is not counted; "
            "on a CPU it has no backward."
        )
    if reasons:
        parts.append("Where flex is missing: " + "; ".join(reasons) + ".")
    return " ".join(parts)


def line(row: Mapping[str, Any], sides: Sequence[str], ratios: Sequence[tuple[str, str]]) -> str:
    """One row: the seconds of all sides, then for each pair how many times faster the first is than the second."""
    taken = {name: seconds(row, name) for name in sides}
    cells = [cell(s, "{:.0f}" if s is not None and s >= 100 else "{:.3g}") for s in taken.values()]
    for ours, theirs in ratios:
        a, b = taken[ours], taken[theirs]
        cells.append(cell(None if a is None or b is None else b / a, "{:.2f}"))
    return f"| {row['title']} | " + " | ".join(cells) + " |"


def cell(value: float | None, form: str) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None else form.format(value)
