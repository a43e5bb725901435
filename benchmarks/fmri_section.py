"""The tables of docs/fmri.md, from what fmri.py and fmri_stage_1.py wrote: for fill_readme.py."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean
from typing import Any

from fmri_words import CHINESE, ENGLISH
from words import Words, title

__all__ = ["CHINESE", "ENGLISH", "haxby", "simulation", "stage_1"]

COURSES = {
    "MAMSM": "**MAMSM**",
    "MAMSM, weights as published": "MAMSM, weights and not their logarithms, as published",
    "MAMSM, published size": "MAMSM of the published size",
    "MAMSM, published size, faithful": "MAMSM of the published size, `faithful=True`",
    "without stage 1": "without stage 1: its weights as they are drawn",
    "without stage 1, weights as published": "the same, weights and not their logarithms",
    "voxels, smoothed": "stage 2 on the smoothed voxels themselves",
    "shuffled events": "shuffled events, r with the shuffled curves",
    "without the cosine": "without the cosine, best of 256 time courses",
    "ridge, MAMSM": "ridge regression on MAMSM's features",
    "ridge, weights as published": "the same, weights as published",
    "ridge, without stage 1": "the same, without stage 1",
    "ridge, voxels": "ridge regression on the voxels",
    "ridge, voxels, smoothed": "ridge regression on the smoothed voxels",
    "ICA": "ICA (FastICA), best of 20",
    "dictionary learning": "dictionary learning, best of 20",
    "timing": "no data: the mean curve at each volume's number",
}
DECIDED = {"trained": "logarithms", "trained, weights": "weights"}
LOOKS = {
    "drawn": "as drawn",
    "trained": "trained",
    "published size": "of the published size, trained",
    "published size, faithful": "of the published size, faithful, trained",
}
DECODED = {
    "voxels": "ridge on the voxels",
    "smoothed": "ridge on the smoothed voxels",
    "trained": "ridge on MAMSM's features",
    "trained, weights": "the same, weights as published",
    "drawn": "the same, without stage 1",
    "drawn, weights": "the same, without stage 1, weights as published",
}
HIDDEN = ("MAMSM", "without stage 1", "voxels, smoothed", "without the cosine")  # with 256 time courses to decode from
SIMULATED = {
    "MAMSM": "**MAMSM**",
    "without stage 1": "without stage 1",
    "without the cosine": "without the cosine",
    "ICA": "ICA, best of 20",
    "dictionary learning": "dictionary learning, best of 20",
    "the design's curves": "Lasso on the design's curves themselves",
    "GLM": "GLM",
}
STAGE_1 = {
    "small": "**`small`, windows of 8, a sentence a run**",
    "longer": "the same, `--steps {steps}` ({epochs:.0f} passes, {processor_seconds} s of one core)",
    "whole": "all runs in one sentence (`--whole --rows 1`), of which other places are hidden",
    "plain start": "`--plain-start` (without shares and heads that look beside)",
    "no windows": "`--window 0` (attention over the whole run)",
    "faithful": "`--faithful` (as the released code)",
    "blocks": "`--blocks` (blocks of the task hidden whole)",
}
BASELINES = {
    "regression": "least squares on four neighbours",
    "neighbours": "mean of both neighbours",
    "last": "the value before",
    "commonest": "the commonest value (the mean)",
}


def stage_1(run: Mapping[str, Any], words: Words = ENGLISH) -> str:
    """Hidden values that are found, by what was changed."""
    first = run["small"]
    total = first["scores"]["model"]["near"]["total"]
    lines = [
        words["stage_1"].format(run=first, precision=first["precision"].partition("-")[0], total=total),
        "",
        words["hidden"],
        "|---|--:|--:|--:|--:|",
    ]
    for name, kind in STAGE_1.items():
        row = run[name]
        bold = "**" if name == "small" else ""
        lines.append(_found(title(kind.format(**row), words), row["scores"]["model"], row["scores"]["commonest"], bold))
    for name, kind in BASELINES.items():
        lines.append(_found(title(kind, words), first["scores"][name], first["scores"]["commonest"]))
    exact = max(row["scores"]["model"]["exact"]["correct"] / total for row in run.values())
    return "\n".join([*lines, "", words["exact"].format(share=exact * 100)])


def _found(name: str, score: Mapping[str, Any], base: Mapping[str, Any], bold: str = "") -> str:
    near = score["near"]["correct"] / score["near"]["total"]
    nats = f"{score['loss']:.3f}" if "loss" in score else ""
    cells = [f"{near:.1%}".replace("%", " %"), f"{score['rms']:.3f}", f"{score['rms'] / base['rms']:.3f}", nats]
    return f"| {name} | " + " | ".join(f"{bold}{cell}{bold}" if cell else "" for cell in cells) + " |"


def haxby(run: Mapping[str, Any], words: Words = ENGLISH) -> str:
    """Time courses, what the rows of attention hold, and decoding."""
    found = run["haxby"]
    published, hidden = "", found["hidden_values"]
    if "published size" in hidden:
        names = {"error": "published size", "faithful": "published size, faithful", "small": "model"}
        errors = {name: hidden[key]["rms"] for name, key in names.items()}
        published = words["published"].format(steps=found["published_steps"], **errors)
    return "\n".join(
        [
            words["haxby"].format(run=found, published=published),
            "",
            *_courses(found["time_courses"], words),
            "",
            words["decision"],
            "",
            *_decision(found["decision"], words),
            "",
            words["looks"].format(volumes=found["looks"]["drawn"]["volumes"]),
            "",
            *_looks(found["looks"], words),
            "",
            words["blocks"],
            "",
            *_decoding(found, words),
        ]
    )


def _courses(table: Mapping[str, Any], words: Words) -> list[str]:
    lines = [
        words["courses"],
        "|---|--:|--:|--:|--:|",
    ]
    for name, kind in COURSES.items():
        if name in table:
            row = table[name]
            bold = "**" if name == "MAMSM" else ""
            keys = ("r_fitted", "r_held_out", "r_beyond_timing", "r_first_fold")
            lines.append(
                f"| {title(kind, words)} | " + " | ".join(f"{bold}{row[key]:.3f}{bold}" for key in keys) + " |"
            )
    return lines


def _decision(found: Mapping[str, Any], words: Words) -> list[str]:
    heads = " | ".join(words["epochs"].format(count=count) for count in found["epochs"])
    lines = [f"| | {heads} |", "|---|" + "--:|" * len(found["epochs"])]
    for name, kind in DECIDED.items():
        lines.append(f"| {title(kind, words)} | " + " | ".join(f"{r:.3f}" for r in found["r"][name]) + " |")
    return lines


def _looks(table: Mapping[str, Any], words: Words) -> list[str]:
    lines = [
        words["looked"],
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, kind in LOOKS.items():
        if name in table:
            row = table[name]
            kept = {"log": row["kept"].get("log", row["kept"].get(name)), "weights": row["kept"].get("weights")}
            if name.endswith("faithful"):
                kept = {"log": None, "weights": kept["log"]}
            r2 = ["–" if value is None else f"{value:.2f}" for value in kept.values()]
            shares = [f"{row[key]:.0%}".replace("%", " %") for key in ("place", "value")]
            lines.append(f"| {title(kind, words)} | {row['effective']:.0f} | " + " | ".join([*shares, *r2]) + " |")
    return lines


def _decoding(found: Mapping[str, Any], words: Words) -> list[str]:
    def share(value: float | None) -> str:
        return "–" if value is None else f"{value:.1%}".replace("%", " %")

    lines = [words["decoded"], "|---|--:|--:|"]
    for name, kind in DECODED.items():
        row = found["decoding"][name]
        lines.append(f"| {title(kind, words)} | {share(row['one'])} | {share(row['two'])} |")
    for name in HIDDEN:
        short = COURSES[name].replace("**", "").partition(",")[0].partition(":")[0]
        kind = title(f"ridge on 256 time courses: {short}", words)
        lines.append(f"| {kind} | – | {share(found['time_courses'][name]['decoded'])} |")
    return lines


def simulation(run: Mapping[str, Any], words: Words = ENGLISH) -> str:
    """Networks found in simulated tasks, where they are known."""
    made, tasks = run["simulation"], run["simulation"]["tasks"]
    lines = [
        words["simulation"].format(made=made, minutes=run["processor_minutes"]),
        "",
        words["networks"].format(tasks=" | ".join(title(task, words) for task in tasks)),
        "|---|" + "--:|" * (3 + len(tasks)),
    ]
    for name, kind in SIMULATED.items():
        rows = [task[name] for task in tasks.values()]
        cells = [f"{mean(row[key] for row in rows):.3f}" for key in ("r", "iou", "map_r")]
        lines.append(f"| {title(kind, words)} | " + " | ".join([*cells, *(f"{row['iou']:.2f}" for row in rows)]) + " |")
    return "\n".join(lines)
