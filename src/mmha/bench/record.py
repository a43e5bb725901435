"""A run as plain JSON values: every sample, so that anyone can take another statistic, and where it was measured."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from mmha.bench.cases import BATCH, HEADS
from mmha.bench.machine import machine
from mmha.bench.measure import Limits, Row

SCHEMA = 1


def record(limits: Limits, rows: Sequence[Row]) -> dict[str, Any]:
    """The whole run; times in ms, rates in GFLOP/s and GB/s."""
    return {
        "schema": SCHEMA,
        "measured": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "limits": {"threads": limits.threads, "fma_gflops": limits.fma_gflops, "read_gbs": limits.read_gbs},
        "rows": [row_record(row) for row in rows],
    }


def row_record(row: Row) -> dict[str, Any]:
    """One row: what was run, the medians and what follows from them, and the samples."""
    case = row.case
    return {
        "name": case.name,
        "direction": case.direction,
        "mask": case.kind,
        "shape": {"batch": BATCH, "heads": HEADS, "length": case.length, "head_dim": case.head_dim},
        "dtype": "float32",
        "visible_pairs": row.pairs,
        "useful_flop": case.flop(row.pairs),
        "torch_ms": round(row.torch_median, 4),
        "mmha_ms": round(row.mmha_median, 4),
        "ratio": round(row.ratio, 3),
        "aim": case.aim,
        "gflops": round(row.gflops, 2),
        "limit_gflops": round(row.limit, 2),
        "share_of_limit": round(row.share, 4),
        "relative_difference": row.difference,
        "rounds": row.rounds,
        "torch_samples_ms": [round(x, 4) for x in row.torch_ms],
        "mmha_samples_ms": [round(x, 4) for x in row.mmha_ms],
    }
