"""A run as plain JSON values: every sample, so that anyone can take another statistic, and where it was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from mmha.bench.cases import TORCH_NAMES
from mmha.bench.machine import machine
from mmha.bench.measure import Limits, Row

SCHEMA = 2


def record(limits: Limits, rows: Sequence[Row]) -> dict[str, Any]:
    """The whole run; times in ms, rates in GFLOP/s and GB/s."""
    return {
        "schema": SCHEMA,
        "measured": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "limits": {
            "threads": limits.threads,
            "fma_gflops": limits.fma_gflops[limits.threads],
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
        "gflops": round(row.gflops, 2),
        "limit_gflops": round(row.limit, 2),
        "share_of_limit": round(row.share, 4),
        "relative_difference": row.difference,
        "rounds": row.rounds,
        "calls_a_round": row.calls,
        "torch_samples_ms": [rounded(x) for x in row.torch_ms],
        "mmha_samples_ms": [rounded(x) for x in row.mmha_ms],
    }


def rounded(ms: float) -> float:
    """Five significant digits: rows last from microseconds to seconds.

    >>> rounded(0.0123456), rounded(1234.567)
    (0.012346, 1234.6)
    """
    return float(f"{ms:.5g}")
