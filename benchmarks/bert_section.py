"""The tables of docs/bert.md, from what bert.py, bert_twin.py and tagging_transfer.py wrote: for fill_readme.py."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from end_to_end_section import line

PADDED, SORTED = "transformers", "transformers, sorted"
SIDES = (PADDED, "torch", "mmha")
EMBEDDING = (PADDED, SORTED, "mmha")


def section(run: Mapping[str, Any]) -> str:
    """Both tables, and how to read them."""
    vectors = [row for row in run["rows"] if any(side["side"] == SORTED for side in row["sides"])]
    models = [row for row in run["rows"] if row not in vectors]
    return "\n".join(
        [
            f"Seconds, medians; `make bench-bert` on {run['measured'][:10]}, {run['machine']['cpu']}, "
            f"{run['threads']} threads, torch {run['machine']['torch']['version']}, all sides in turns within one run.",
            "",
            "| BERT-base | transformers, sdpa | torch.nn | **mmha** | × transformers | × torch.nn |",
            "|---|" + "---:|" * 5,
            *(line(row, SIDES, _against("mmha", SIDES)) for row in models),
            "",
            "| MiniLM | transformers, as they come | sorted by length | **mmha** | × as they come | × sorted |",
            "|---|" + "---:|" * 5,
            *(line(row, EMBEDDING, _against("mmha", EMBEDDING)) for row in vectors),
        ]
    )


def _against(ours: str, sides: Sequence[str]) -> list[tuple[str, str]]:
    return [(ours, side) for side in sides if side != ours]


def twin(run: Mapping[str, Any]) -> str:
    """How two trainings from the same weights end, and what they took."""
    exact = [one for one in run["runs"] if one["dropout"] == 0]
    apart = [abs(a - b) for one in exact for a, b in zip(*(side["losses"] for side in _both(one)), strict=True)]
    groups: dict[float, list[Mapping[str, Any]]] = {}
    for one in run["runs"]:
        groups.setdefault(one["dropout"], []).append(one)
    size = run["config"]
    return "\n".join(
        [
            f"{run['steps']} steps of {run['rows']} pairs of up to {size['positions']} tokens, {size['layers']} layers "
            f"of {size['width']}, from the same weights on the same batches; `make bench-bert-twin` on "
            f"{run['measured'][:10]}, {run['machine']['cpu']}, {run['threads']} threads, both sides in turns. Without "
            f"dropout the losses of the first 10 steps differ by {max(apart[:10]):.0e} at most, those of all steps by "
            f"{max(apart):.0e}. *Loss* is the mean over the last 50 steps, ± the deviation between seeds; words and "
            "next sentences are those found in held-out files.",
            "",
            "| | loss | masked words | next sentences | seconds | × |",
            "|---|---:|---:|---:|---:|---:|",
            *(row for dropout, runs in groups.items() for row in _rows(dropout, runs)),
        ]
    )


def transfer(run: Mapping[str, Any]) -> str:
    """How many test words each tagger gets right, by the share of the data that it learned from."""
    groups: dict[float, dict[str, list[Mapping[str, Any]]]] = {}
    for row in run["rows"]:
        groups.setdefault(row["share"], {}).setdefault(row["side"], []).append(row)
    rows = [_transferred(share, sides) for share, sides in groups.items()]
    drawn = "; ± is the deviation between draws of the share" if any("±" in row for row in rows) else ""
    return "\n".join(
        [
            f"Of {run['rows'][0]['test_words']:,} test words; `make bench-tagging-transfer` on {run['measured'][:10]}, "
            f"{run['machine']['cpu']}, {run['threads']} thread{'s' * (run['threads'] > 1)}. *Fewer errors* is what "
            f"pretraining takes off those of the network from scratch{drawn}.",
            "",
            "| share | words | steps | CRF | from scratch | **pretrained** | fewer errors |",
            "|---|" + "---:|" * 6,
            *rows,
        ]
    )


def _transferred(share: float, sides: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The row of a share; a dash for what was not measured."""
    first = sides["pretrained"][0]
    draws = f", {len(sides['pretrained'])} draws" if len(sides["pretrained"]) > 1 else ""
    wrong = {side: 1 - statistics.mean(row["test"] for row in rows) for side, rows in sides.items()}
    cells = [f"{first['words']:,}", f"{first['steps']:,}"]
    columns = ("CRF", "from scratch", "pretrained")
    cells += [_spread(sides[side], "test", ".2%") if side in sides else "–" for side in columns]
    return f"| {share:.0%}{draws} | {' | '.join(cells)} | {1 - wrong['pretrained'] / wrong['from scratch']:.0%} |"


def _both(one: Mapping[str, Any]) -> tuple[Any, Any]:
    return one["sides"]["mmha"], one["sides"]["transformers"]


def _rows(dropout: float, runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """A row for each of the two, means over the seeds."""
    seeds = f", {len(runs)} seeds" if len(runs) > 1 else ""
    sides = [list(pair) for pair in zip(*map(_both, runs), strict=True)]
    times = [statistics.mean(side["seconds"] for side in one) for one in sides]
    made = []
    for name, one, time in zip(("**mmha**", "transformers"), sides, times, strict=True):
        cells = [_spread(one, "loss", ".3f"), _spread(one, "words", ".1%"), _spread(one, "next", ".1%")]
        cells += [f"{time:.1f}", f"{times[1] / time:.2f}"]
        made.append(f"| {name}, dropout {dropout:g}{seeds} | {' | '.join(cells)} |")
    return made


def _spread(sides: Sequence[Mapping[str, Any]], key: str, form: str) -> str:
    """A mean, and the deviation where there are several."""
    values = [side[key] for side in sides]
    mean = format(statistics.mean(values), form)
    return mean if len(values) < 2 else f"{mean} ± {format(statistics.stdev(values), form)}"
