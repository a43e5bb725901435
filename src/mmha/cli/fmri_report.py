"""The page of a fit: one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
from html import escape
from typing import Any

import numpy as np

from mmha.cli.fmri_files import Found

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; } h3 { font-size: 1rem; margin: 1.5rem 0 .3rem; }
table { border-collapse: collapse; } td { font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .9rem .2rem 0; text-align: right; } th:first-child, td:first-child { text-align: left; }
div { overflow-x: auto; } th { border-bottom: 1px solid #999; } img { max-width: 100%; } figure { margin: 0; }
small, .note { color: #555; max-width: 50rem; }
"""
PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}: MAMSM</title>
<style>{style}</style></head>
<body>
<h1>What follows the task</h1>
{body}
</body>
</html>
"""
LEGEND = (
    "Grey: the design's curve. Red: the time course. Maps: weights of the time courses in the voxels (Lasso), and z of "
    "the general linear model; coloured is what is above 0.3 of the largest, on the mean volume or the image that was "
    "given. Left is left."
)
NAMES = {
    "model": "MAMSM",
    "commonest": "commonest value",
    "last": "last value",
    "neighbours": "mean of both neighbours",
}


def page(found: Found) -> str:
    """The page, as text."""
    result = found.result
    data = result["data"] if isinstance(result["data"], str) else ", ".join(map(str, result["data"]))
    rows = enumerate(result["conditions"])
    parts = [
        _what(result, data),
        _conditions(result, found.curves),
        _hidden(result["hidden_values"]),
        f'<h2>Time courses and maps</h2><p class="note">{LEGEND}</p>',
        *(_condition(found, index, row) for index, row in rows),
    ]
    return PAGE.format(title=escape(data), style=STYLE, body="\n".join(parts))


def _what(result: dict[str, Any], data: str) -> str:
    size, steps, epochs = (
        escape(str(result["size"])),
        _count(result["steps"], "step"),
        _count(result["epochs"], "epoch"),
    )
    return (
        f"<p>{escape(data)}: {_count(result['voxels'], 'voxel')}, {_count(result['volumes'], 'volume')} of "
        f"{result['tr']:g} s in {_count(result['runs'], 'run')}. Fitted by <code>mmha fmri fit</code>, size {size}, "
        f"{steps}, {epochs}, seed {result['seed']}{_ways(result)}.</p>"
    )


def _ways(result: dict[str, Any]) -> str:
    """What was chosen otherwise than usual."""
    said = (("faithful", "as the released code"), ("blocks", "blocks of the task hidden whole"))
    return "".join(f", {words}" for name, words in said if result.get(name))


def _count(number: int, unit: str) -> str:
    return f"{number:,} {unit}{'' if number == 1 else 's'}"


def _conditions(result: dict[str, Any], curves: Any) -> str:
    names = ["condition", "r, fitted", "r, held out", "overlap with GLM", "by chance", "voxels", "highest z"]
    rows = []
    for row in result["conditions"]:
        held = "–" if row.get("r_held_out") is None else f"{row['r_held_out']:.3f}"
        figures = [f"{row[key]:.3f}" for key in ("iou", "chance")]
        rows.append([str(row["name"]), f"{row['r']:.3f}", held, *figures, f"{row['voxels']}", f"{row['z']:.1f}"])
    count = result["held_out_runs"]
    last = "the last run" if count == 1 else f"the last {count} runs"
    where = f"{last}, which a second fit left out" if count else "other runs, and there is one"
    note = (
        "<b>r, fitted</b> says little: the time courses were made to follow these curves, and would follow those of "
        f"shuffled events nearly as well. <b>r, held out</b> is in {where}.{_timing(curves)} Overlap is "
        "|A ∩ B| / |A ∪ B| of the strong "
        "voxels, beside that of random sets as large."
    )
    return f'<h2>Conditions</h2>{_table(names, rows)}<p class="note">{note}</p>'


def _timing(curves: Any) -> str:
    """What is known of one of several conditions by who knows when any of them lasts."""
    from mmha.metrics.series import correlation

    count = curves.shape[1]
    if count < 2:
        return ""
    r = correlation(np.repeat(curves.mean(1)[:, None], count, 1), curves).mean()
    return f" A time course that tells when any event lasts, and not of which kind, has r {r:.2f}."


def _hidden(scores: dict[str, Any]) -> str:
    names = ["hidden values of voxels not trained on", "exact", "within 2.5 % of the range", "error (deviations)"]
    rows = [
        [NAMES.get(name, name), f"{s['exact']:.1%}", f"{s['near']:.1%}", f"{s['rms']:.3f}"]
        for name, s in scores.items()
    ]
    return f"<h2>Hidden values</h2>{_table(names, rows)}"


def _table(names: list[str], rows: list[list[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"  # narrow screens scroll it


def _condition(found: Found, index: int, row: dict[str, Any]) -> str:
    from mmha.cli import fmri_pictures
    from mmha.models.mamsm.maps import SHARE

    name = str(row["name"])
    line = fmri_pictures.time_course(found.curves[:, index], found.courses[:, index], found.runs, found.result["tr"])
    brain = fmri_pictures.maps(found, index, SHARE)
    title = f"{escape(name)} <small>r {row['r']:.3f}, overlap {row['iou']:.3f}</small>"
    return f"<h3>{title}</h3>{_image(line, f'{name}: time course')}{_image(brain, f'{name}: maps')}"


def _image(data: bytes, text: str) -> str:
    return f'<figure><img alt="{escape(text)}" src="data:image/png;base64,{base64.b64encode(data).decode()}"></figure>'
