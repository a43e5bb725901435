"""The rows that `mmha bench` measures, group by group.

An aim is the ratio to torch that the design asks for ("Speed that must be reached"); 1 where it names none: whatever
the mask or the shape, torch shall not be faster. A small call may take twice torch's time, which dispatches in C++.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmha.bench.cases import Case, Direction, DType, Family, Kind, Sizes, sizes

QUICK_FLOP = 1e10
"""`--quick` leaves out what would cost more than this if nothing were hidden: a forward pass at 2048 is in."""


def rows(
    family: Family,
    direction: Direction,
    dtype: DType,
    wanted: Sequence[tuple[Kind, Sizes, float]],
    threads: int = 0,
) -> tuple[Case, ...]:
    """Cases that share family, direction and dtype."""
    return tuple(Case(family, direction, kind, size, aim, dtype, threads) for kind, size, aim in wanted)


SHORT = (16, 32, 64, 128)
FEW = (1, 8, 32)
CALL = sizes(16)
BATCHES: dict[int, Sizes] = {length: sizes(length, batch=64) for length in SHORT}
PADDED = sizes(512, batch=16)
READ_SHARE = 0.8  # of the read bandwidth, for a cache that no level of the CPU's holds
CACHE_DTYPES: tuple[DType, ...] = ("f32", "bf16", "f16", "i8")
SMALL_STEP = sizes(512, q_len=1)
IN_CACHE = (SMALL_STEP, sizes(4096, q_len=1), sizes(8192, q_len=1, heads=32, kv_heads=1, dim=128))
IN_MEMORY = (
    sizes(16384, q_len=1),
    sizes(4096, q_len=1, heads=32, kv_heads=8, dim=128),
    sizes(16384, q_len=1, heads=32, kv_heads=8, dim=128),
    sizes(4096, q_len=1, batch=8, heads=32, kv_heads=8, dim=128),
)
CHUNK = sizes(4096 + 256, q_len=256, heads=32, kv_heads=8, dim=128)
GUESSES = sizes(4096 + 16, q_len=16, heads=32, kv_heads=8, dim=128)


def tokens(dtype: DType) -> tuple[Case, ...]:
    """One token a row against a cache in this dtype; where float32 or bfloat16 comes from memory, a share is asked."""
    shares = {size: READ_SHARE for size in IN_MEMORY if dtype in ("f32", "bf16")}
    return tuple(
        Case("decode", "forward", "token", size, aim=1.0, dtype=dtype, least_share=shares.get(size, 0.0))
        for size in (*IN_CACHE, *IN_MEMORY)
    )


CASES: tuple[Case, ...] = (
    *rows("masks", "forward", "f32", [
        ("dense", sizes(2048), 1.4),
        ("dense", sizes(4096), 1.4),
        ("causal", sizes(512), 2.4),
        ("causal", sizes(1024), 1.5),
        ("causal", sizes(2048), 1.5),
        ("causal", sizes(4096), 1.5),
        ("padding", sizes(4096), 2.0),
        ("window", sizes(4096), 18.5),
        ("window", sizes(8192, dim=128), 34.0),
        ("documents", sizes(2048), 9.0),
        ("documents", sizes(4096), 16.0),
    ]),
    *rows("masks", "forward", "bf16", [
        ("dense", sizes(2048), 2.6),
        ("causal", sizes(512), 4.3),
        ("causal", sizes(4096), 2.65),
        ("padding", sizes(4096), 4.0),
        ("window", sizes(4096), 23.0),
        ("documents", sizes(2048), 16.0),
    ]),
    *rows("masks", "forward", "f16", [
        ("dense", sizes(2048), 1.0),
        ("causal", sizes(4096), 1.0),
        ("window", sizes(4096), 1.0),
    ]),
    *rows("masks", "backward", "f32", [
        ("dense", sizes(2048), 1.4),
        ("dense", sizes(4096), 1.3),
        ("causal", sizes(512), 2.4),
        ("causal", sizes(2048), 1.5),
        ("causal", sizes(4096), 1.5),
        ("padding", sizes(4096), 1.9),
        ("window", sizes(4096), 18.0),
        ("documents", sizes(2048), 8.6),
        ("documents", sizes(4096), 14.6),
    ]),
    *rows("masks", "backward", "bf16", [
        ("causal", sizes(4096), 1.8),
        ("window", sizes(2048), 9.0),
        ("documents", sizes(2048), 8.6),
    ]),
    *rows("masks", "backward", "f16", [("causal", sizes(2048), 1.0)]),
    *rows("features", "forward", "f32", [
        (kind, sizes(2048), 1.0) for kind in ("dropout", "alibi", "relative", "softcap", "sinks")
    ]),
    *rows("features", "training", "f32", [
        ("dropout", sizes(2048), 10.0),
        *((kind, sizes(2048), 1.0) for kind in ("alibi", "relative", "softcap", "sinks")),
    ]),
    *rows("irregular", "forward", "f32", [
        *((kind, sizes(4096), 1.0) for kind in ("random", "bigbird", "blocks", "longformer")),
        ("tree", sizes(4096, q_len=64), 1.0),
    ]),
    *rows("irregular", "backward", "f32", [
        (kind, sizes(4096), 1.0) for kind in ("random", "bigbird", "blocks", "longformer")
    ]),
    *rows("shapes", "forward", "f32", [
        *((kind, BATCHES[length], 1.0) for kind in ("dense", "causal") for length in SHORT),
        ("causal", sizes(8192, heads=1), 1.0),
        *(("causal", sizes(8192, q_len=few), 1.0) for few in FEW),
        *(("causal", sizes(8192, q_len=few, kv_heads=2), 1.0) for few in FEW),
        *(("causal", sizes(2048, dim=dim), 1.0) for dim in (40, 80)),
        ("padded", PADDED, 1.0),
        ("packed", PADDED, 1.0),
    ]),
    *rows("shapes", "backward", "f32", [
        *((kind, BATCHES[length], 1.0) for kind in ("dense", "causal") for length in SHORT),
        ("causal", sizes(8192, heads=1), 1.0),
        *(("causal", sizes(2048, dim=dim), 1.0) for dim in (40, 80)),
        ("padded", PADDED, 1.0),
        ("packed", PADDED, 1.0),
    ]),
    *rows("call", "forward", "f32", [("dense", CALL, 0.5), ("causal", CALL, 0.5)], threads=1),
    *rows("call", "recorded", "f32", [("dense", CALL, 0.5), ("causal", CALL, 0.5)], threads=1),
    *(case for dtype in CACHE_DTYPES for case in tokens(dtype)),
    *rows("decode", "forward", "f32", [("step", SMALL_STEP, 1.0)]),
    *(
        case
        for dtype in CACHE_DTYPES
        for case in rows("decode", "forward", dtype, [("prefill", CHUNK, 1.0), ("guesses", GUESSES, 1.0)])
    ),
)  # fmt: skip


def quick(cases: Sequence[Case] = CASES) -> tuple[Case, ...]:
    """The rows that are soon measured."""
    return tuple(case for case in cases if case.flop(case.sizes.pairs) <= QUICK_FLOP)
