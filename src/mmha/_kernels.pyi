"""The compiled kernels (csrc/bind.cpp). Private: use mmha.attention and mmha.masks."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

# offsets int64 (rows + 1,), spans int32 (n, 2): row r owns the sorted, disjoint runs spans[offsets[r]:offsets[r + 1]].
Spans = tuple[NDArray[np.int64], NDArray[np.int32]]
Dims = tuple[int, int, int]
Dims4 = tuple[int, int, int, int]
# 0 float32, 1 bfloat16, 2 float16. All tensors of a call have the one dtype that is given, unless said otherwise.
DType = int
# Address, (B, heads, T, width), strides in elements of all but the last dimension, which is contiguous.
Tensor = tuple[int, Dims4, Dims]
# Address, dtype, strides in elements of (B, H, Tq, Tk), 0 where broadcast.
Additive = tuple[int, DType, Dims4]
# softcap (0 = none); address of the positions of the first queries, int64 (B,), 0 = Tk - Tq; address of the slopes,
# float32 (H,), 0 = none; the table, float32: address (0 = none), width, stride of a head (0 = shared); additives; address
# of the sinks, float32 (H,), 0 = none; dropout_p; seed.
Extras = tuple[float, int, int, tuple[int, int, int], list[Additive], int, float, int]

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

# lse and delta are addresses of float32 (B, H, Tq).
def forward(
    plan: Plan,
    dtype: DType,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: int,
    scale: float,
    extras: Extras | None,
    threads: int,
) -> None: ...
def row_dot(dtype: DType, a: Tensor, b: Tensor, out: int, threads: int) -> None: ...
def backward(
    plan: Plan,
    dtype: DType,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lse: int,
    delta: int,
    grad_out: Tensor,
    grads: tuple[Tensor, Tensor, Tensor],
    scale: float,
    extras: Extras | None,
    threads: int,
) -> None: ...

# table_grad float32 (H, width) and slopes_grad float32 (H,), contiguous: addresses, 0 = not wanted.
def table_gradient(
    plan: Plan,
    dtype: DType,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lse: int,
    delta: int,
    grad_out: Tensor,
    scale: float,
    extras: Extras,
    table_grad: int,
    slopes_grad: int,
    threads: int,
) -> None: ...

# index: which of the additives. out: address of float32, contiguous, and its sizes, each 1 or that of (B, H, Tq, Tk).
def additive_gradient(
    plan: Plan,
    dtype: DType,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lse: int,
    delta: int,
    grad_out: Tensor,
    scale: float,
    extras: Extras,
    index: int,
    out: tuple[int, Dims4],
    threads: int,
) -> None: ...
def sink_gradient(lse: int, delta: int, sinks: int, dims: Dims, out: int, threads: int) -> None: ...
def probe_fma(threads: int, seconds: float = 0.2) -> float: ...
def probe_read(nbytes: int, threads: int) -> float: ...
