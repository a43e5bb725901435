"""A run as plain JSON values: every sample, so that anyone can take another statistic, and where it was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from mmha.bench.cases import TORCH_NAMES
from mmha.bench.machine import machine
from mmha.bench.measure import Limits, Row

SCHEMA = 3


def record(limits: Limits, rows: Sequence[Row]) -> dict[str, Any]:
    """The whole run; times in ms, rates in GFLOP/s of useful work or, where reading bounds a row, GB/s."""
    return {
        "schema": SCHEMA,
        "measured": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "limits": {
            "threads": limits.threads,
            "fma_gflops": limits.fma_gflops,
            "read_gbs": limits.read_gbs,
        },
        "rows": [row_record(row) for row in rows],
    }


def row_record(row: Row) -> dict[str, Any]:
    """One row: what was run, the medians and what follows from them, and the samples."""
    case = row.case
    return {
        "name": case.name,
        "family": case.family,
        "direction": case.direction,
        "kind": case.kind,
        "dtype": TORCH_NAMES[case.dtype],
        "sizes": asdict(case.sizes),
        "threads": row.threads,
        "visible_pairs": row.pairs,
        "useful_flop": case.flop(row.pairs),
        "torch_ms": rounded(row.torch_median),
        "mmha_ms": rounded(row.mmha_median),
        "ratio": round(row.ratio, 3),
        "aim": case.aim,
        **rates(row),
        "relative_difference": row.difference,
        "rounds": row.rounds,
        "calls_a_round": row.calls,
        "torch_samples_ms": [rounded(x) for x in row.torch_ms],
        "mmha_samples_ms": [rounded(x) for x in row.mmha_ms],
        **part(row),
    }


def rates(row: Row) -> dict[str, Any]:
    """What the row did, its limit, and the share of it, in the row's unit."""
    name = "gflops" if row.case.unit == "GFLOP/s" else "gbs"
    read = {} if row.read == 0 else {"read_bytes": row.read}
    limit = {name: round(row.rate, 2), f"limit_{name}": round(row.limit, 2)}
    return {**read, **limit, "share_of_limit": round(row.share, 4)}


def part(row: Row) -> dict[str, Any]:
    """What a step takes beyond the attention in it, where that was timed."""
    if row.beyond_part is None:
        return {}
    return {"beyond_part_us": round(row.beyond_part * 1e3, 2), "part_samples_ms": [rounded(x) for x in row.part_ms]}


def rounded(ms: float) -> float:
    """Five significant digits: rows last from microseconds to seconds.

    >>> rounded(0.0123456), rounded(1234.567)
    (0.012346, 1234.6)
    """
    return float(f"{ms:.5g}")
