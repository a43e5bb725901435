"""The compiled kernels (csrc/bind.cpp). Private: use mmha.attention and mmha.masks."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

# offsets int64 (rows + 1,), spans int32 (n, 2): row r owns the sorted, disjoint runs spans[offsets[r]:offsets[r + 1]].
Spans = tuple[NDArray[np.int64], NDArray[np.int32]]
Dims = tuple[int, int, int]
# Address, (B, heads, T, width), strides in elements of all but the last dimension, which is contiguous.
Tensor = tuple[int, tuple[int, int, int, int], Dims]

def isa() -> str: ...
def compiled() -> list[str]: ...
def available() -> list[str]: ...
def select(name: str) -> str: ...
def pool() -> str: ...
def combine(op: Literal["and", "or"], a: Spans, b: Spans, dims: Dims, a_dims: Dims, b_dims: Dims) -> Spans: ...
def complement(a: Spans, k_len: int) -> Spans: ...
def from_bool(rows: NDArray[np.bool_]) -> Spans: ...
def pack_bits(rows: NDArray[np.bool_]) -> NDArray[np.uint64]: ...
def spans_to_bits(offsets: NDArray[np.int64], spans: NDArray[np.int32], k_len: int) -> NDArray[np.uint64]: ...

class Plan:
    def __init__(
        self,
        batch: int,
        heads: int,
        q_len: int,
        k_len: int,
        offsets: NDArray[np.int64] | None,
        spans: NDArray[np.int32] | None,
        bits: NDArray[np.uint64] | None = None,
    ) -> None: ...
    @property
    def batch(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def q_len(self) -> int: ...
    @property
    def k_len(self) -> int: ...
    @property
    def visible(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    def row(self, r: int) -> list[tuple[int, int]]: ...
    def tiles(self, q_tile: int = 32, k_tile: int = 256) -> NDArray[np.uint8]: ...

# The element type of q, k, v, out, grad_out and gradients: 0 float32, 1 bfloat16, 2 float16. lse and delta are float32.
DType = int
# softcap (0.0: none); addresses of start (int64 (B,), 0: Tk - Tq), of slopes (H,), of the table (H, width) with its
# width and head stride; additives (address, dtype, strides of (B, H, Tq, Tk)); address of sinks (H,); dropout_p; seed.
# An address of 0 stands for what is not there; slopes, table and sinks are float32.
Additive = tuple[int, DType, tuple[int, int, int, int]]
Extras = tuple[float, int, int, tuple[int, int, int], list[Additive], int, float, int]
# q, k, v, lse, delta, grad_out, and the gradient of returned weights (with the address 0: none), which takes extras.
Saved = tuple[Tensor, Tensor, Tensor, int, int, Tensor, Additive]

def forward(
    plan: Plan,
    dtype: DType,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    residual: int,
    lse: int,
    scale: float,
    extras: Extras | None,
    threads: int,
) -> None: ...
def weights(
    plan: Plan,
    dtype: DType,
    q: Tensor,
    k: Tensor,
    lse: int,
    out: Tensor,
    scale: float,
    extras: Extras | None,
    threads: int,
) -> None: ...
def backward(
    plan: Plan,
    dtype: DType,
    saved: Saved,
    grads: tuple[Tensor, Tensor, Tensor],
    scale: float,
    extras: Extras | None,
    threads: int,
) -> None: ...
def table_gradient(
    plan: Plan, dtype: DType, saved: Saved, scale: float, extras: Extras, table: int, slopes: int, threads: int
) -> None: ...
def additive_gradient(
    plan: Plan,
    dtype: DType,
    saved: Saved,
    scale: float,
    extras: Extras,
    out: int,
    dims: tuple[int, int, int, int],
    threads: int,
) -> None: ...
def sink_gradient(lse: int, delta: int, sinks: int, dims: Dims, out: int) -> None: ...
def row_dot(dtype: DType, a: Tensor, residual: int, b: Tensor, out: int, threads: int) -> None: ...
def probe_fma(threads: int, seconds: float = 0.2) -> float: ...
def probe_read(nbytes: int, threads: int) -> float: ...
def prefer_large_pages(address: int, bytes: int) -> None: ...

# Addresses of q, out and lse (0: not wanted); of keys, values and their scales (0: none); of q, k and v.
Three = tuple[int, int, int]

# Addresses of qkv and of its bias (0: none); dims of the rotation (0: none), its base, interleaved, address of the
# positions (0: the rows' lengths), ids a position.
Step = tuple[int, int, int, float, bool, int, int]

class Cache:
    """A view of a cache whose memory torch owns (csrc/cache.h): good while that memory lives."""

    def __init__(
        self,
        dtype: int,
        memory: tuple[int, int, int, int],
        counts: tuple[int, int],
        heads: tuple[int, int, int],
        sizes: tuple[int, int, int],
        turning: tuple[int, int, int],
    ) -> None: ...
    def point(self, table: int, table_width: int, beam: int) -> None: ...
    def write(self, keys: int, values: int, tokens: int, first: int, counts: int, threads: int) -> None: ...
    def read(self, keys: int, values: int, tokens: int, first: int, counts: int, threads: int) -> None: ...
    def attend(
        self,
        plan: Plan | None,
        bounds: tuple[int, int],
        start: list[int] | None,
        memory: Three,
        heads: int,
        q_len: int,
        scale: float,
        extras: Extras | None,
        threads: int,
    ) -> int: ...
    def longest(self) -> int: ...
    def step(
        self,
        what: Step,
        bounds: tuple[int, int],
        out: int,
        heads: int,
        scale: float,
        extras: Extras | None,
        threads: int,
    ) -> int: ...
    def split(self, what: Step, heads: int, to: Three) -> None: ...
