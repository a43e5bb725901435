"""The tables of docs/bert.md, from what bert.py and bert_twin.py wrote: for fill_readme.py."""

from __future__ import annotations

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
