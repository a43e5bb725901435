"""The tables of docs/speech.md, from what speech.py wrote: for fill_readme.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BY_RATIO = ("PESQ-WB", "PESQ-NB", "STOI", "ESTOI", "SI-SDR")
COMPARED = ("PESQ-WB", "STOI", "ESTOI", "SI-SDR")
RATIOS = "-5, 0, 5, 10, 15"
OVERALL = ("CSIG", "CBAK", "COVL", "PESQ-WB", "STOI", "segSNR")
DIGITS = {"STOI": 1, "ESTOI": 1, "SI-SDR": 1, "segSNR": 1}
PUBLISHED = {
    "noisy": (3.35, 2.44, 2.63, 1.97, 92.0),
    "Deep Xi, ResNet-TCN": (4.12, 3.33, 3.48, 2.82, 93.3),
    "MHANet": (4.17, 3.37, 3.53, 2.88, 93.6),
}
"""CSIG, CBAK, COVL, PESQ and STOI on VoiceBank+DEMAND, as Nicolson and Paliwal (2020) give them."""


def section(run: Mapping[str, Any]) -> str:
    """What was measured, the tables, and where mmha is ahead of whom."""
    ratios = sorted({row["ratio"] for row in run["rows"]})
    missing = "".join(f" Not here: {name} ({why})." for name, why in run["missing"].items())
    return "\n".join(
        [
            f"{run['count']} stretches of 2.5 to 8 s of the held-out voice, each with one section of a held-out noise, "
            f"at {', '.join(map(str, ratios))} dB; `make bench-speech` on {run['measured'][:10]}, all sides on one set "
            f"of mixtures in one run, mmha as a stream with its window of {run['window']} frames and {run['gain'][0]}. "
            f"Best in bold.{missing}",
            "",
            tables(run),
            "",
            *verdict(run),
        ]
    )


def tables(run: Mapping[str, Any]) -> str:
    """A measure by ratio in each table, the means over all ratios in the last."""
    rows = run["rows"]
    sides = list(dict.fromkeys(row["side"] for row in rows))
    ratios = sorted({row["ratio"] for row in rows})
    lines = []
    for measure in BY_RATIO:
        columns = [[mean(rows, measure, side, ratio) for side in sides] for ratio in ratios]
        head = [f"{ratio} dB" for ratio in ratios]
        lines += [*table(measure, head, sides, columns, [DIGITS.get(measure, 2)] * len(head)), ""]
    columns = [[mean(rows, measure, side) for side in sides] for measure in OVERALL]
    lines += table("mean over all", list(OVERALL), sides, columns, [DIGITS.get(measure, 2) for measure in OVERALL])
    if run["part"] == "test":
        empty = ["", "–"]
        for name, figures in PUBLISHED.items():
            cells = [f"{value:.{DIGITS.get(measure, 2)}f}" for measure, value in zip(OVERALL, figures, strict=False)]
            lines.append(f"| *{name}, VoiceBank+DEMAND* | {' | '.join([*cells, *empty[1:]])} |")
    return "\n".join(lines)


def table(title: str, head: list[str], sides: list[str], columns: list[list[float]], digits: list[int]) -> list[str]:
    """Lines of Markdown; the best of each column is bold, as it is printed."""
    lines = [f"| {title} | {' | '.join(head)} |", "|---|" + "---:|" * len(head)]
    best = [round(max(column), places) for column, places in zip(columns, digits, strict=True)]
    for number, side in enumerate(sides):
        cells = []
        for column, places, top in zip(columns, digits, best, strict=True):
            text = f"{column[number]:.{places}f}"
            cells.append(f"**{text}**" if round(column[number], places) == top else text)
        lines.append(f"| {side} | {' | '.join(cells)} |")
    return lines


def verdict(run: Mapping[str, Any]) -> list[str]:
    """At which ratios mmha is ahead of each other side in PESQ and in STOI, and at which behind."""
    rows = run["rows"]
    ratios = sorted({row["ratio"] for row in rows})
    others = [side for side in dict.fromkeys(row["side"] for row in rows) if side != "mmha"]
    lines = []
    for side in others:
        parts = []
        for measure in ("PESQ-WB", "STOI"):
            gaps = {r: mean(rows, measure, "mmha", r) - mean(rows, measure, side, r) for r in ratios}
            behind = [f"{r} dB" for r, gap in gaps.items() if gap <= 0]
            places = DIGITS.get(measure, 2)
            spread = f"{min(gaps.values()):+.{places}f} to {max(gaps.values()):+.{places}f}"
            where = f"behind at {', '.join(behind)}" if behind else "ahead at every ratio"
            parts.append(f"{measure} {spread}, {where}")
        lines.append(f"- mmha against {side}: {'; '.join(parts)}.")
    costs = [f"{side} {1000 * mean(rows, 'seconds', side):.1f}" for side in (*others, "mmha") if side != "noisy"]
    lines.append(f"- Milliseconds of one CPU for a second of sound, resampling included: {', '.join(costs)}.")
    return lines


def ablation(run: Mapping[str, Any]) -> str:
    """What the mask does, from what speech_ablation.py wrote."""
    command = f"python benchmarks/speech_ablation.py --steps {run['steps']} --count {run['count']}"
    return "\n".join(
        [
            f"`{command}` on {run['measured'][:10]}: {run['steps']} steps of {run['batch']} rows of "
            f"{run['seconds']:g} s, the same mixtures for each; the loss is that of the validation set in nats a bin, "
            f"the measures are means over {run['count']} stretches of voices that training chose on, at {RATIOS} dB.",
            "",
            ablation_table(run["rows"]),
        ]
    )


def ablation_table(rows: list[Mapping[str, Any]]) -> str:
    """Lines of Markdown, a variant each."""
    lines = [f"| | weights | loss | {' | '.join(COMPARED)} |", "|---|" + "---:|" * (2 + len(COMPARED))]
    for row in rows:
        cells = [f"{row['weights']:,}", f"{row['loss']:.4f}", *(f"{row[name]:.2f}" for name in COMPARED)]
        lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def mean(rows: list[Mapping[str, Any]], measure: str, side: str, ratio: int | None = None) -> float:
    """Over the mixtures of a side, of one ratio or of all."""
    values = [row[measure] for row in rows if row["side"] == side and ratio in (None, row["ratio"])]
    return float(sum(values) / len(values))
