"""How it is measured: torch and mmha in turns within one run, medians, a bounded time per row.

Machines drift (frequency, neighbours), so two programs are only comparable when they are timed alternately: every
round times each once and every other round swaps the order. Before anything is timed the two results are compared;
a row whose results differ is a bug and not a figure. What torch needs prepared (its dense mask) is prepared outside
the clock.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

import mmha
from mmha import _kernels
from mmha.bench.cases import BATCH, HEADS, Case

MIN_ROUNDS, MAX_ROUNDS = 5, 61
READ_BYTES = 256 * 2**20  # larger than any last-level cache we know
# Both sides compute in float32 from unit-normal inputs: they may differ by rounding, not by more.
TOLERANCE = 2e-5


@dataclass(frozen=True)
class Limits:
    """What this machine can do at all with these threads: GFLOP/s of fused multiply-adds, GB/s of reading memory."""

    threads: int
    fma_gflops: float
    read_gbs: float


@dataclass(frozen=True)
class Row:
    """One measured row; times in milliseconds, one entry per round; `limit` is the best FMA probe so far, GFLOP/s."""

    case: Case
    pairs: int
    limit: float
    torch_ms: list[float] = field(repr=False)
    mmha_ms: list[float] = field(repr=False)
    difference: float

    @property
    def torch_median(self) -> float:
        """Median time of torch, ms."""
        return statistics.median(self.torch_ms)

    @property
    def mmha_median(self) -> float:
        """Median time of mmha, ms."""
        return statistics.median(self.mmha_ms)

    @property
    def ratio(self) -> float:
        """How many times faster than torch: the quotient of the medians."""
        return self.torch_median / self.mmha_median

    @property
    def gflops(self) -> float:
        """Useful GFLOP/s: visible pairs only."""
        return self.case.flop(self.pairs) / self.mmha_median / 1e6

    @property
    def share(self) -> float:
        """Useful GFLOP/s as a share of the multiply-adds that this machine reached, 0 to 1."""
        return self.gflops / self.limit

    @property
    def rounds(self) -> int:
        """How many times each side was timed."""
        return len(self.mmha_ms)


@contextmanager
def thread_count(threads: int) -> Iterator[None]:
    """Run with this many threads in torch's pool, which mmha shares, and put the old number back."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def probe(threads: int) -> Limits:
    """The machine's own limits, measured now: the best of three short probes, since a limit is what can be reached."""
    read = max(_kernels.probe_read(READ_BYTES, threads) for _ in range(3))
    return Limits(threads, probe_fma(threads), read)


def probe_fma(threads: int) -> float:
    """GFLOP/s of multiply-adds without any memory traffic, the best of three probes of 0.05 s."""
    return max(_kernels.probe_fma(threads, 0.05) for _ in range(3))


def measure(case: Case, threads: int, seconds: float = 2.0, limit: float = 0.0) -> Row:
    """Time one case against torch for about `seconds`, at least 5 rounds, probing the machine before and after.

    A probe can only fall short of what the machine can do, so that the best one counts; `limit` is the best so far.

    Raises:
        RuntimeError: mmha and torch do not agree on the result.
    """
    with thread_count(threads):
        ours, theirs, pairs = prepare(case)
        difference = compare(case, ours(), theirs())
        limit = max(limit, probe_fma(threads))
        theirs_ms, ours_ms = interleave(theirs, ours, seconds)
        limit = max(limit, probe_fma(threads))
    return Row(case, pairs, limit, theirs_ms, ours_ms, difference)


Work = Callable[[], tuple[Tensor, ...]]


def prepare(case: Case) -> tuple[Work, Work, int]:
    """(mmha's work, torch's work, visible pairs) of a case, with everything but the work itself already done."""
    generator = torch.Generator().manual_seed(7)
    shape = (BATCH, HEADS, case.length, case.head_dim)
    q, k, v, grad = (torch.randn(shape, generator=generator) for _ in range(4))
    mask = case.mask()
    pairs = BATCH * HEADS * case.length**2
    dense = None
    if mask is not None:
        pairs = mask.plan(BATCH, HEADS, case.length, case.length).visible
        if case.kind != "causal":
            dense = mask.dense(1, 1, case.length, case.length)

    def ours() -> Tensor:
        out: Tensor = mmha.attention(q, k, v, mask)
        return out

    def theirs() -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=dense, is_causal=case.kind == "causal")

    if case.direction == "forward":
        return (lambda: (ours(),)), (lambda: (theirs(),)), pairs
    inputs = [x.requires_grad_() for x in (q, k, v)]
    return backward_of(ours(), inputs, grad), backward_of(theirs(), inputs, grad), pairs


def backward_of(out: Tensor, inputs: list[Tensor], grad: Tensor) -> Work:
    """The backward pass alone, again and again from one saved graph."""
    return lambda: torch.autograd.grad(out, inputs, grad, retain_graph=True)


def compare(case: Case, ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> float:
    """The largest relative difference (norm over norm) between the two results."""
    # torch's max and not Python's, which loses a NaN.
    difference = float(torch.stack([(a - b).norm() / b.norm() for a, b in zip(ours, theirs, strict=True)]).max())
    if not difference <= TOLERANCE:
        raise RuntimeError(f"{case.name}: mmha and torch differ by {difference:.1e} relative, allowed {TOLERANCE:.0e}")
    return difference


def interleave(first: Work, second: Work, seconds: float) -> tuple[list[float], list[float]]:
    """Times in ms of both, one of each a round, in swapped order every other round; the comparison warmed them up."""
    times: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + seconds
    while len(times[0]) < MIN_ROUNDS or (time.perf_counter() < end and len(times[0]) < MAX_ROUNDS):
        turns = [(first, times[0]), (second, times[1])]
        for work, taken in turns if len(times[0]) % 2 == 0 else reversed(turns):
            start = time.perf_counter()
            work()
            taken.append((time.perf_counter() - start) * 1e3)
    return times
