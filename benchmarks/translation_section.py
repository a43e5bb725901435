"""The tables of docs/translation.md, from what translation.py wrote: for fill_readme.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

OURS = "mmha"
TRAINING = ("torch.nn", OURS)
DECODING = ("torch", "CTranslate2 float32", "CTranslate2 int8", OURS)
TITLES = {"torch": "torch, growing cache", "torch.nn": "torch.nn.Transformer", OURS: "**mmha**"}


def section(run: Mapping[str, Any]) -> str:
    """Both tables, and how to read them."""
    trained = [row for row in run["rows"] if row["unit"] == "tokens"]
    written = [row for row in run["rows"] if row["unit"] == "sentences"]
    return "\n".join(
        [
            f"`make bench-translation` on {run['measured'][:10]}, {run['machine']['cpu']}, "
            f"torch {run['machine']['torch']['version']}, all sides in turns within one run; medians. Losses, "
            "gradients and translations were compared first.",
            "",
            *table("target tokens a second", trained, TRAINING),
            "",
            *table("sentences a second, 4 beams", written, DECODING),
            *without(run["rows"]),
        ]
    )


def table(unit: str, rows: Sequence[Mapping[str, Any]], sides: Sequence[str]) -> list[str]:
    """What each side does in a second, and ours over each of theirs."""
    heads = [TITLES.get(side, side) for side in sides] + [f"× {TITLES.get(side, side)}" for side in sides[:-1]]
    return [f"| {unit} | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads), *(line(row, sides) for row in rows)]


def line(row: Mapping[str, Any], sides: Sequence[str]) -> str:
    """One row; a dash where a side was not there."""
    found = {side["side"]: side["per_second"] for side in row["sides"]}
    rates = [found.get(side) for side in sides]
    cells = ["–" if rate is None else f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}" for rate in rates]
    cells += ["–" if rate is None else f"{found[OURS] / rate:.2f}" for rate in rates[:-1]]
    threads = "1 thread" if row["threads"] == 1 else f"{row['threads']} threads"
    return f"| {row['title']}, {threads} | {' | '.join(cells)} |"


def without(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which sides are missing, and why."""
    reasons = {name: reason for row in rows for name, reason in row["without"].items()}
    return ["", *(f"Without {name}: {reason}." for name, reason in reasons.items())] if reasons else []
