"""The tables of docs/fmri.md, from what fmri.py and fmri_stage_1.py wrote: for fill_readme.py."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean
from typing import Any

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


def stage_1(run: Mapping[str, Any]) -> str:
    """Hidden values that are found, by what was changed."""
    first = run["small"]
    total = first["scores"]["model"]["near"]["total"]
    lines = [
        f"`python benchmarks/fmri_stage_1.py --all`, Haxby's slice, {first['steps']} steps of {first['rows']} "
        "sentences, "
        f"{first['epochs']:.0f} passes, {first['precision'].partition('-')[0]}, {first['processor_seconds']} s of one "
        f"core; {total:,} hidden values of voxels that were not trained on. The rows below the first change one thing "
        "each.",
        "",
        "| | within 25 steps | root of mean squared error | of the mean's | nats |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, title in STAGE_1.items():
        row = run[name]
        bold = "**" if name == "small" else ""
        lines.append(_found(title.format(**row), row["scores"]["model"], row["scores"]["commonest"], bold))
    lines += [_found(title, first["scores"][name], first["scores"]["commonest"]) for name, title in BASELINES.items()]
    exact = max(row["scores"]["model"]["exact"]["correct"] / total for row in run.values())
    return "\n".join([*lines, "", f"The exact value is found in at most {exact * 100:.1f} % of cases by any row."])


def _found(title: str, score: Mapping[str, Any], base: Mapping[str, Any], bold: str = "") -> str:
    near = score["near"]["correct"] / score["near"]["total"]
    nats = f"{score['loss']:.3f}" if "loss" in score else ""
    cells = [f"{near:.1%}".replace("%", " %"), f"{score['rms']:.3f}", f"{score['rms'] / base['rms']:.3f}", nats]
    return f"| {title} | " + " | ".join(f"{bold}{cell}{bold}" if cell else "" for cell in cells) + " |"


def haxby(run: Mapping[str, Any]) -> str:
    """Time courses, what the rows of attention hold, and decoding."""
    found = run["haxby"]
    size = found["hidden_values"].get("published size")
    published = (
        f" The published size was trained for {found['published_steps']} steps of 64 sentences; its error on hidden "
        f"values is then {size['rms']:.3f}, faithful {found['hidden_values']['published size, faithful']['rms']:.3f}, "
        f"and {found['hidden_values']['model']['rms']:.3f} of `small`."
        if size
        else ""
    )
    return "\n".join(
        [
            f"`make bench-fmri`, {found['steps']} steps of stage 1, 64 sentences each, {found['epochs']} epochs of "
            f"stage 2 ({found['longer']} times as many on the smoothed voxels, whose numbers are a sixth as many)."
            + published,
            "",
            *_courses(found["time_courses"]),
            "",
            "Where [CLS] looks in the last layer: how many of "
            f"{found['looks']['drawn']['volumes']} volumes (exp of the entropy), what share of the variance of log w "
            "the volume's number in its run explains (place), and after it the value itself; and R² of a voxel's own "
            "smoothed signal from its heads' features (one regression for all voxels, the place taken out).",
            "",
            *_looks(found["looks"]),
            "",
            "Which of 8 kinds of pictures a block shows, by the mean of its volumes (chance 12.5 %, 96 blocks):",
            "",
            *_decoding(found),
        ]
    )


def _courses(table: Mapping[str, Any]) -> list[str]:
    lines = [
        "| Pearson's r, mean of eight curves | fitted | held out | beyond timing | first two runs held out |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, title in COURSES.items():
        if name in table:
            row = table[name]
            bold = "**" if name == "MAMSM" else ""
            keys = ("r_fitted", "r_held_out", "r_beyond_timing", "r_first_fold")
            lines.append(f"| {title} | " + " | ".join(f"{bold}{row[key]:.3f}{bold}" for key in keys) + " |")
    return lines


def _looks(table: Mapping[str, Any]) -> list[str]:
    lines = [
        "| weights of stage 1 | volumes | place | value | R² from log w | R² from w |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, title in LOOKS.items():
        if name in table:
            row = table[name]
            kept = {"log": row["kept"].get("log", row["kept"].get(name)), "weights": row["kept"].get("weights")}
            if name.endswith("faithful"):
                kept = {"log": None, "weights": kept["log"]}
            r2 = ["–" if value is None else f"{value:.2f}" for value in kept.values()]
            shares = [f"{row[key]:.0%}".replace("%", " %") for key in ("place", "value")]
            lines.append(f"| {title} | {row['effective']:.0f} | " + " | ".join([*shares, *r2]) + " |")
    return lines


def _decoding(found: Mapping[str, Any]) -> list[str]:
    def share(value: float | None) -> str:
        return "–" if value is None else f"{value:.1%}".replace("%", " %")

    lines = ["| | one run left out | two runs left out |", "|---|--:|--:|"]
    for name, title in DECODED.items():
        row = found["decoding"][name]
        lines.append(f"| {title} | {share(row['one'])} | {share(row['two'])} |")
    for name in HIDDEN:
        title = COURSES[name].replace("**", "").partition(",")[0].partition(":")[0]
        lines.append(f"| ridge on 256 time courses: {title} | – | {share(found['time_courses'][name]['decoded'])} |")
    return lines


def simulation(run: Mapping[str, Any]) -> str:
    """Networks found in simulated tasks, where they are known."""
    made, tasks = run["simulation"], run["simulation"]["tasks"]
    lines = [
        f"Stage 1 of {made['steps']} steps, {made['epochs']} epochs; all of `make bench-fmri` takes about "
        f"{run['processor_minutes']} minutes of one core.",
        "",
        f"| | r | overlap | r of maps | {' | '.join(tasks)} |",
        "|---|" + "--:|" * (3 + len(tasks)),
    ]
    for name, title in SIMULATED.items():
        rows = [task[name] for task in tasks.values()]
        cells = [f"{mean(row[key] for row in rows):.3f}" for key in ("r", "iou", "map_r")]
        lines.append(f"| {title} | " + " | ".join([*cells, *(f"{row['iou']:.2f}" for row in rows)]) + " |")
    return "\n".join(lines)
